"""Loads batches of triplets: three labelled frames of a study, each moved and changed on its own."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch import Tensor

from nnunet_temporal.sequences import Sequence
from nnunet_temporal.training.sequence_loader import (
    Box,
    LoaderOptions,
    SequenceLoader,
    crop_frames,
    first_kept_frame,
    foreground_pixel,
)
from nnunet_temporal.training.study_grid import origin_of_case
from nnunet_temporal.training.triplets import Place, TripletSampler

FRAMES = 3
"""Frames of a triplet, all decoded."""

_LARGEST_SHIFT = 1 / 16
"""Largest independent shift of a frame, as a share of the patch: about what breathing does between two slices."""


class TripletLoader(SequenceLoader):
    """Draws triplets of labelled frames; all of them are decoded.

    Frames of different slices are cropped at the same place of their study. A batch also holds ``prompted`` (B,) bool:
    whether a network that remembers masks is given the first one.
    """

    def __init__(
        self,
        dataset: nnUNetBaseDataset,
        sequences: Mapping[str, Sequence],
        options: LoaderOptions,
        *,
        frame_transforms: BasicTransform | None,
        prompted_share: float,
    ) -> None:
        """Prepare to draw.

        Args:
            dataset: See ``SequenceLoader``, as for all arguments not named here.
            sequences: Siblings of a sequence are looked for among those in ``dataset`` only.
            options: Its transforms are applied to each triplet as one.
            frame_transforms: Applied to each frame's ``image`` (C, Y, X) and ``segmentation`` (1, Y, X) before that,
                together with a small shift; None for neither.
            prompted_share: Share of triplets that are prompted.
        """
        super().__init__(dataset, sequences, options)
        self.triplets = TripletSampler(sequences[case] for case in self.indices)
        self.frame_transforms = frame_transforms
        self.prompted_share = prompted_share

    def draw_clip(self, case: str, force_foreground: bool, rng: np.random.Generator) -> dict[str, Any]:
        """See ``SequenceLoader``."""
        data, _, _, properties = self._data.load_case(case)
        labelled = self.some_labelled_frames(case, data.shape[1], properties)
        centre = foreground_pixel(properties["class_locations"], labelled, rng) if force_foreground else None
        frame = int(rng.choice(labelled)) if centre is None else int(centre[0])
        box = self.draw_box(data.shape[2:], None if centre is None else centre[1:], rng)
        # On the study's grid, where the box means the same place for every slice.
        corner = np.array([lower for lower, _ in box]) + origin_of_case(properties, data.shape[2:])
        triplet = self.triplets.sample(Place(case, frame + first_kept_frame(properties)), rng)
        images, labels, valid = zip(*(self._draw_frame(place, corner, rng) for place in triplet), strict=True)
        sample = self.options.transforms(image=torch.cat(images, 1), segmentation=torch.cat(labels, 1))
        is_frame = torch.tensor(valid)
        sample["image"][:, ~is_frame] = 0
        return {
            "data": sample["image"],
            "target": sample["segmentation"],
            "valid": is_frame,
            "decoded": torch.arange(FRAMES),
            "prompted": torch.tensor(rng.random() < self.prompted_share),
        }

    def _draw_frame(self, place: Place, corner: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor, bool]:
        """Crop a frame and its mask, (C, 1, Y, X) and (1, 1, Y, X); False with padding if preprocessing cut it off."""
        data, segmentation, _, properties = self._data.load_case(place.case)
        frame = place.frame - first_kept_frame(properties)
        exists = 0 <= frame < data.shape[1]
        frames = np.array([frame if exists else -1])
        box = self._box_at(corner - origin_of_case(properties, data.shape[2:]), rng)
        image = torch.from_numpy(crop_frames(data, frames, box, 0)).float()
        labels = self.crop_labels(segmentation, frames, box)
        if exists and self.frame_transforms is not None:
            moved = self.frame_transforms(image=image[:, 0], segmentation=labels[:, 0])
            image, labels = moved["image"].unsqueeze(1), moved["segmentation"].unsqueeze(1)
        return image, labels, exists

    def _box_at(self, corner: np.ndarray, rng: np.random.Generator) -> Box:
        lower = np.rint(corner).astype(int)
        if self.frame_transforms is not None:
            largest = (np.array(self.options.final_size) * _LARGEST_SHIFT).astype(int)
            lower = lower + rng.integers(-largest, largest + 1)
        return [[int(start), int(start) + size] for start, size in zip(lower, self.options.crop_size, strict=True)]
