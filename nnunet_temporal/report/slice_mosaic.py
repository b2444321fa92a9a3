"""Slices of a study as one picture: grey values, a tint inside a mask, and contours that do not hide the wall."""

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt

from nnunet_temporal.report.colours import Colour

_TINT = 0.18


@dataclass(frozen=True)
class CropBox:
    """The square in-plane part of a study that is shown: rows ``y``.. and columns ``x``.., ``size`` pixels each."""

    y: int
    x: int
    size: int

    def cut(self, plane: np.ndarray) -> np.ndarray:
        """Return the part of ``plane`` (..., Y, X) inside the box."""
        return plane[..., self.y : self.y + self.size, self.x : self.x + self.size]


def crop_box(masks: np.ndarray, margin: float = 0.35) -> CropBox:
    """Find a square around everything that is ever inside a mask.

    Args:
        masks: (..., Y, X) boolean masks.
        margin: Free room on each side, as a share of the masks' extent.

    Returns:
        A square inside the image; the largest centred square when the masks are empty.
    """
    height, width = masks.shape[-2:]
    any_mask: np.ndarray = np.any(masks.reshape(-1, height, width), axis=0)
    largest = min(height, width)
    if not any_mask.any():
        return CropBox(y=(height - largest) // 2, x=(width - largest) // 2, size=largest)
    rows, columns = np.flatnonzero(np.any(any_mask, axis=1)), np.flatnonzero(np.any(any_mask, axis=0))
    extent = max(rows[-1] - rows[0], columns[-1] - columns[0]) + 1
    size = min(largest, math.ceil(extent * (1 + 2 * margin)))
    y = int(np.clip((rows[0] + rows[-1] + 1 - size) // 2, 0, height - size))
    x = int(np.clip((columns[0] + columns[-1] + 1 - size) // 2, 0, width - size))
    return CropBox(y=y, x=x, size=size)


def grey_window(image: np.ndarray) -> np.ndarray:
    """Map intensities to grey values by the 1st and 99.5th percentile of the whole study.

    Args:
        image: Intensities of any shape.

    Returns:
        float32 of the same shape in [0, 255]; all 0 for a constant image.
    """
    low, high = (float(value) for value in np.percentile(image, (1.0, 99.5)))
    if high <= low:
        return np.zeros(image.shape, np.float32)
    return (np.clip((image - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.float32)


def still_background(grey: np.ndarray, tolerance: float = 6.0) -> np.ndarray:
    """Hold each pixel at its last value until it moves by more than ``tolerance`` grey values.

    Pixels that only carry noise become constant, which makes a movie several times smaller; moving tissue is kept.

    Args:
        grey: (T, ...) grey values.
        tolerance: Largest change that is held back, in grey values.

    Returns:
        (T, ...) grey values, nowhere further than ``tolerance`` from the input.
    """
    held = grey.copy()
    for frame in range(1, grey.shape[0]):
        small = np.abs(grey[frame] - held[frame - 1]) <= tolerance
        held[frame][small] = held[frame - 1][small]
    return held


def enlarge(plane: np.ndarray, size_px: int) -> np.ndarray:
    """Enlarge a (Y, X) float32 plane to (size_px, size_px) with a smooth filter, values kept within its range."""
    enlarged = Image.fromarray(plane.astype(np.float32), mode="F").resize((size_px, size_px), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(enlarged), plane.min(), plane.max())


def draw_outline(
    canvas: np.ndarray, mask: np.ndarray, colour: Colour, *, width_px: float, filled: bool = False
) -> None:
    """Draw the outline of a mask, and a light tint inside it on request, on an RGB picture.

    Args:
        canvas: (S, S, 3) float32 picture in [0, 255]; changed in place.
        mask: (Y, X) boolean mask of the same part, at its own resolution.
        colour: Colour of the outline and the tint.
        width_px: Width of the outline in picture pixels.
        filled: Whether to tint the inside.
    """
    if not mask.any():
        return
    inside = enlarge(mask.astype(np.float32), canvas.shape[0]) > 0.5
    # The outline runs between pixels, half a pixel from the centres of its neighbours.
    distance_px = np.maximum(distance_transform_edt(inside), distance_transform_edt(~inside)) - 0.5
    opacity = np.clip((width_px + 1) / 2 - distance_px, 0.0, 1.0).astype(np.float32)
    if filled:
        opacity = np.maximum(opacity, _TINT * inside)
    canvas += opacity[..., None] * (np.asarray(colour, np.float32) - canvas)


def mosaic_columns(n_slices: int) -> int:
    """Return the number of columns that makes a mosaic of ``n_slices`` square panels about 4:3."""
    return min(n_slices, math.ceil(math.sqrt(n_slices * 4 / 3) - 1e-9))
