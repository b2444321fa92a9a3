"""The slices of a study on one grid, each prepared as in training."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
from torch import Tensor

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.preparation import PreparedSequence
from nnunet_temporal.training.study_grid import origin_on_study


@dataclass(frozen=True)
class StudyCanvas:
    """Where the cropped, resampled slices of a study lie relative to each other.

    Attributes:
        slices: {slice: prepared sequence}, 0 to Z - 1.
        corners: {slice: (Y, X) of its first pixel on the canvas}.
        size: (Y, X) of the canvas in pixels of the networks.
    """

    slices: Mapping[int, PreparedSequence]
    corners: Mapping[int, tuple[int, int]]
    size: tuple[int, int]

    @classmethod
    def of(cls, slices: Mapping[int, PreparedSequence]) -> "StudyCanvas":
        """Lay the slices out.

        Raises:
            InputError: Slices are missing, or differ in their number of frames or their size.
        """
        shapes = {sequence.image.shape for sequence in slices.values()}
        if sorted(slices) != list(range(len(slices))) or len(shapes) != 1:
            raise InputError(
                f"found slices {sorted(slices)} of shapes {sorted(shapes)}, expected all of 0..Z-1 with as many frames "
                "of one size each"
            )
        origins = {}
        for z, sequence in slices.items():
            preparation = sequence.preparation
            crop = [(side.start, side.stop) for side in (preparation.rows, preparation.columns)]
            origins[z] = origin_on_study(crop, preparation.network_size)
        first = np.min(list(origins.values()), 0)
        corners = {z: (round(y), round(x)) for z, (y, x) in ((z, origin - first) for z, origin in origins.items())}
        ends = [np.add(corners[z], sequence.preparation.network_size) for z, sequence in slices.items()]
        height, width = (int(n) for n in np.max(ends, 0))
        return cls(slices, corners, (height, width))

    @property
    def frames(self) -> int:
        """Number of frames T."""
        return self.slices[0].image.shape[1]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape (T, Z, Y, X) of the study on its own pixels."""
        height, width = self.slices[0].image.shape[2:]
        return self.frames, len(self.slices), height, width

    def prepare(self, z: int, index: np.ndarray) -> np.ndarray:
        """Prepare frames of a slice: (C, N, *size) float32, zero beyond the slice's own crop."""
        frames = self.slices[z].frames(index)
        canvas = np.zeros((*frames.shape[:2], *self.size), np.float32)
        canvas[self._part(z)] = frames
        return canvas

    def to_native(self, z: int, probabilities: Tensor) -> tuple[Tensor, tuple[slice, slice]]:
        """Resample probabilities (K, N, *size) of a slice.

        Returns:
            (K, N, Y, X) on the pixels of the slice's crop, and where that is in the slice.
        """
        preparation = self.slices[z].preparation
        return preparation.to_native(self.crop(z, probabilities)), (preparation.rows, preparation.columns)

    def from_native(self, z: int, mask: np.ndarray) -> np.ndarray:
        """Resample a mask (Y, X) of label values as in preprocessing: (*size), background beyond the slice's crop."""
        preparation = self.slices[z].preparation
        cropped = mask[preparation.rows, preparation.columns]
        canvas = np.zeros(self.size, mask.dtype)
        canvas[self._part(z)] = preparation.mask_to_network(cropped)
        return canvas

    def crop(self, z: int, maps: Tensor) -> Tensor:
        """Return the part of maps (..., *size) that a slice covers."""
        return maps[self._part(z)]

    def _part(self, z: int) -> tuple[EllipsisType, slice, slice]:
        (y, x), (height, width) = self.corners[z], self.slices[z].preparation.network_size
        return ..., slice(y, y + height), slice(x, x + width)
