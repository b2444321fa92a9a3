"""The part of a sequence that nnU-Net's preprocessing keeps, without torch and nnU-Net."""

from typing import NamedTuple

import numpy as np


class NonzeroPart(NamedTuple):
    """The smallest box of frames, rows and columns that holds all nonzero pixels of all channels.

    Attributes:
        frames: Along T; everything when all pixels are zero, as for the other axes.
        rows: Along Y.
        columns: Along X.
        black: (T,) bool, frames that are zero everywhere.
    """

    frames: slice
    rows: slice
    columns: slice
    black: np.ndarray

    @classmethod
    def of(cls, image: np.ndarray) -> "NonzeroPart":
        """Measure a sequence (C, T, Y, X) of any number type."""
        filled = [np.asarray(image.any(axis=tuple({0, 1, 2, 3} - {axis}))) for axis in (1, 2, 3)]
        frames, rows, columns = map(_extent, filled)
        return cls(frames, rows, columns, ~filled[0])

    def crop(self, image: np.ndarray) -> np.ndarray:
        """Return the part of a sequence (C, T, Y, X)."""
        return image[:, self.frames, self.rows, self.columns]

    def blank_frames(self, *, keeps_zero: bool) -> np.ndarray:
        """Tell which frames are zero everywhere when prepared: (T,) bool; those outside the part are.

        Args:
            keeps_zero: Whether preparing a black frame within the part gives zeros.
        """
        blank = self.black & keeps_zero
        blank[: self.frames.start] = blank[self.frames.stop :] = True
        return blank

    def with_all_frames(self, mask: np.ndarray | None) -> np.ndarray | None:
        """Give a mask (T, Y, X) of the part, if there is one, the frames that were cut off, of zeros."""
        if mask is None:
            return None
        return np.pad(mask, ((self.frames.start, len(self.black) - self.frames.stop), (0, 0), (0, 0)))


def _extent(filled: np.ndarray) -> slice:
    """Return the range that holds all True entries; everything when there is none."""
    where = np.flatnonzero(filled)
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, len(filled))
