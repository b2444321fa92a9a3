"""nnU-Net's windows in plane in numpy, for single frames; ``Windows`` does the same with torch."""

import itertools
import math

import numpy as np
from scipy.ndimage import gaussian_filter

_GAUSSIAN_SIGMA = 1 / 8  # of a window's side; nnU-Net's, as is the following
_LARGEST_WEIGHT = 10.0


class FrameWindows:
    """Cuts a frame into windows of one size and puts their logits together again.

    Attributes:
        corners: First row and column of each window.
    """

    def __init__(self, size: tuple[int, int], patch: tuple[int, int], overlap: float) -> None:
        """Plan the windows.

        Args:
            size: Size (Y, X) of the frames.
            patch: Size (Y, X) of a window; smaller frames are padded with zeros on all sides.
            overlap: Share of a window, 0 to 1, that neighbours overlap at least.
        """
        self._patch = patch
        self._padded = tuple(max(pair) for pair in zip(size, patch, strict=True))
        above, left = ((whole - side) // 2 for whole, side in zip(self._padded, size, strict=True))
        self._inside = np.s_[..., above : above + size[0], left : left + size[1]]
        starts = (_starts(whole, side, overlap) for whole, side in zip(self._padded, patch, strict=True))
        self.corners = list(itertools.product(*starts))

    def cut(self, frame: np.ndarray) -> list[np.ndarray]:
        """Cut a frame (C, Y, X) into windows (C, *patch)."""
        padded = np.zeros((len(frame), *self._padded), frame.dtype)
        padded[self._inside] = frame
        return [padded[self._at(corner)] for corner in self.corners]

    def join(self, logits: list[np.ndarray]) -> np.ndarray:
        """Put the logits (K, *patch) of windows together: (K, *size); where they overlap, by nnU-Net's Gaussian."""
        if len(logits) == 1:
            return logits[0][self._inside]
        weight = _gaussian(self._patch)
        total = np.zeros((len(logits[0]), *self._padded), np.float32)
        weights = np.zeros(self._padded, np.float32)
        for corner, window in zip(self.corners, logits, strict=True):
            total[self._at(corner)] += window * weight
            weights[self._at(corner)] += weight
        return (total / weights)[self._inside]

    def _at(self, corner: tuple[int, ...]) -> tuple:
        rows, columns = (slice(start, start + side) for start, side in zip(corner, self._patch, strict=True))
        return (..., rows, columns)


def _starts(whole: int, side: int, overlap: float) -> list[int]:
    steps = math.ceil((whole - side) / (side * (1 - overlap)))
    return [round((whole - side) / max(steps, 1) * number) for number in range(steps + 1)]


def _gaussian(patch: tuple[int, int]) -> np.ndarray:
    peak = np.zeros(patch)
    peak[patch[0] // 2, patch[1] // 2] = 1
    bell = gaussian_filter(peak, [side * _GAUSSIAN_SIGMA for side in patch], mode="constant")
    bell = (bell * (_LARGEST_WEIGHT / bell.max())).astype(np.float32)
    return np.maximum(bell, bell[bell > 0].min())
