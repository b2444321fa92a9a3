"""Loads batches of clips in which any frame may be segmented, labelled or not."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch import Tensor

from nnunet_temporal.sequences import Sequence
from nnunet_temporal.training.clip_loader import ClipLoader
from nnunet_temporal.training.clip_sampling import ClipSampler
from nnunet_temporal.training.sequence_loader import (
    Box,
    LoaderOptions,
    crop_frames,
    foreground_pixel,
)


class AnyFrameLoader(ClipLoader):
    """Draws some clips around labelled frames, as ``ClipLoader`` does, and the others around any frames.

    Every frame of a sequence is as likely as another in the latter; the decoded ones that happen to be labelled keep
    their labels. A batch also holds ``counted`` (B, 1, D, Y, X) bool: decoded pixels that show the image, labelled or
    not, and neither padding nor what an augmentation moved in from outside. Sequences without labels are drawn, too.
    """

    def __init__(
        self,
        dataset: nnUNetBaseDataset,
        sequences: Mapping[str, Sequence],
        options: LoaderOptions,
        sampler: ClipSampler,
        *,
        target_transforms: BasicTransform,
        any_frame_share: float,
    ) -> None:
        """Prepare to draw.

        Args:
            dataset: See ``ClipLoader``, as for all arguments not named here.
            sequences: See there.
            options: Its transforms return label maps: regions and scales are made by ``target_transforms``.
            sampler: See there.
            target_transforms: Applied to the ``segmentation`` (1, D, Y, X) of an augmented clip.
            any_frame_share: Share of the clips that are drawn around any frames.
        """
        super().__init__(dataset, sequences, options, sampler)
        self.target_transforms = target_transforms
        self.any_frame_share = any_frame_share

    def choose_cases(self, cases: Iterable[str]) -> list[str]:
        """Choose all cases.

        Raises:
            InputError: None of them has a labelled frame.
        """
        cases = list(cases)
        super().choose_cases(cases)
        return cases

    def draw_clip(self, case: str, force_foreground: bool, rng: np.random.Generator) -> dict[str, Any]:
        """See ``SequenceLoader``."""
        data, segmentation, _, properties = self._data.load_case(case)
        sequence, n_frames = self.sequences[case], data.shape[1]
        labelled = self.labelled_frames(case, n_frames, properties)
        around_any = len(labelled) == 0 or rng.random() < self.any_frame_share
        # A heart hardly moves: where a label has its foreground, other frames have it, too.
        centre = foreground_pixel(properties["class_locations"], labelled, rng) if force_foreground else None
        required = None if centre is None or around_any else int(centre[0])
        cyclic = sequence.cyclic and n_frames == sequence.n_frames
        candidates = np.arange(n_frames) if around_any else labelled
        clip = self.sampler.sample(n_frames, candidates, cyclic, rng, required)
        box = self.draw_box(data.shape[2:], None if centre is None else centre[1:], rng)
        valid, decoded = torch.from_numpy(clip.frames >= 0), clip.frames[clip.decoded]
        image = torch.from_numpy(crop_frames(data, clip.frames, box, 0)).float()
        labels = self.crop_labels(segmentation, np.where(np.isin(decoded, labelled), decoded, -1), box)
        sample = self.options.transforms(
            image=image, segmentation=torch.cat((labels, self._inside(decoded, segmentation.shape[2:], box)))
        )
        sample["image"][:, ~valid] = 0
        labels, inside = sample["segmentation"][:1], sample["segmentation"][1:]
        return {
            "data": sample["image"],
            "target": self.target_transforms(segmentation=labels)["segmentation"],
            "valid": valid,
            "decoded": torch.from_numpy(clip.decoded),
            "counted": inside != self.options.ignore_label,
        }

    def _inside(self, frames: np.ndarray, size: tuple[int, int], box: Box) -> Tensor:
        """Make labels (1, D, Y, X) of background where a frame shows the image; all else is ignored, as in targets."""
        return self.crop_labels(np.zeros((1, 1, *size), np.int16), np.where(frames >= 0, 0, -1), box)
