"""nnU-Net's in-plane sliding windows and mirroring, for a few frames at a time."""

from itertools import combinations

import torch
from acvl_utils.cropping_and_padding.padding import pad_nd_image
from nnunetv2.inference.sliding_window_prediction import compute_gaussian, compute_steps_for_sliding_window
from torch import Tensor

OVERLAP = 0.5
"""Share of a window that neighbours overlap at least; nnU-Net's default."""


class Windows:
    """Cuts frames into windows, mirrored as often as asked, and puts their logits together again.

    Windows and mirrored copies lie along the batch, so that each has a memory of its own.
    """

    def __init__(self, size: tuple[int, int], patch: tuple[int, int], mirror_axes: tuple[int, ...] = ()) -> None:
        """Plan the windows.

        Args:
            size: Size (Y, X) of the frames.
            patch: Size (Y, X) of a window; smaller frames are padded with zeros on all sides.
            mirror_axes: Axes to flip, alone and together, 0 = Y and 1 = X; empty for none.
        """
        self.size, self.patch = size, patch
        padded = [max(side, window) for side, window in zip(size, patch, strict=True)]
        rows, columns = compute_steps_for_sliding_window(padded, patch, OVERLAP)
        self.corners = [(y, x) for y in rows for x in columns]
        self.flips = [
            tuple(axis - 2 for axis in axes)
            for number in range(len(mirror_axes) + 1)
            for axes in combinations(mirror_axes, number)
        ]

    @property
    def copies(self) -> int:
        """Number of windows and mirrored copies of a frame."""
        return len(self.corners) * len(self.flips)

    def cut(self, frames: Tensor) -> Tensor:
        """Cut frames (C, T, Y, X) into windows (``copies``, C, T, *patch)."""
        padded = pad_nd_image(frames, self.patch, "constant", {"value": 0})
        height, width = self.patch
        windows = [padded[..., y : y + height, x : x + width] for y, x in self.corners]
        return torch.stack([window.flip(axes) for axes in self.flips for window in windows])

    def join(self, logits: Tensor) -> Tensor:
        """Put the logits (``copies``, K, T, *patch) of windows together: (K, T, *size).

        Mirrored copies count alike; overlapping windows count by nnU-Net's Gaussian, in float32.
        """
        mirrored = logits.unflatten(0, (len(self.flips), -1))
        windows = torch.stack([copy.flip(axes) for axes, copy in zip(self.flips, mirrored, strict=True)]).mean(0)
        (height, width), size = self.patch, self.size
        above, left = (max(window - side, 0) // 2 for window, side in zip(self.patch, size, strict=True))
        if len(self.corners) == 1:
            return windows[0, ..., above : above + size[0], left : left + size[1]]
        weight = compute_gaussian(tuple(self.patch), value_scaling_factor=10, dtype=torch.float32, device=logits.device)
        padded = [max(side, window) for side, window in zip(size, self.patch, strict=True)]
        total, weights = logits.new_zeros((*windows.shape[1:3], *padded)), logits.new_zeros(padded)
        for (y, x), window in zip(self.corners, windows, strict=True):
            total[..., y : y + height, x : x + width] += window * weight
            weights[y : y + height, x : x + width] += weight
        return (total / weights)[..., above : above + size[0], left : left + size[1]]
