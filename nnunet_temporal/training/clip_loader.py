"""Loads batches of clips from nnU-Net's preprocessed cases."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunet_temporal.sequences import Sequence
from nnunet_temporal.training.clip_sampling import ClipSampler
from nnunet_temporal.training.sequence_loader import LoaderOptions, SequenceLoader, crop_frames, foreground_pixel


class ClipLoader(SequenceLoader):
    """Draws clips around labelled frames, which are decoded; the other frames are context."""

    def __init__(
        self,
        dataset: nnUNetBaseDataset,
        sequences: Mapping[str, Sequence],
        options: LoaderOptions,
        sampler: ClipSampler,
    ) -> None:
        """Prepare to draw; ``sampler`` chooses the frames of a clip, the rest is as in ``SequenceLoader``."""
        super().__init__(dataset, sequences, options)
        self.sampler = sampler

    def draw_clip(self, case: str, force_foreground: bool, rng: np.random.Generator) -> dict[str, Any]:
        """See ``SequenceLoader``."""
        data, segmentation, _, properties = self._data.load_case(case)
        sequence = self.sequences[case]
        n_frames = data.shape[1]
        labelled = self.some_labelled_frames(case, n_frames, properties)
        centre = foreground_pixel(properties["class_locations"], labelled, rng) if force_foreground else None
        required = None if centre is None else int(centre[0])
        cyclic = sequence.cyclic and n_frames == sequence.n_frames
        clip = self.sampler.sample(n_frames, labelled, cyclic, rng, required)
        box = self.draw_box(data.shape[2:], None if centre is None else centre[1:], rng)
        valid = torch.from_numpy(clip.frames >= 0)
        sample = self.options.transforms(
            image=torch.from_numpy(crop_frames(data, clip.frames, box, 0)).float(),
            segmentation=self.crop_labels(segmentation, clip.frames[clip.decoded], box),
        )
        # Noise and gamma make padding frames non-zero, but zero is how the network knows them.
        sample["image"][:, ~valid] = 0
        decoded = torch.from_numpy(clip.decoded)
        return {"data": sample["image"], "target": sample["segmentation"], "valid": valid, "decoded": decoded}
