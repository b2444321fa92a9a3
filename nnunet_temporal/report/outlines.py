"""Outlines of masks as polygons in few characters, for pictures that are drawn where they are looked at."""

from collections.abc import Mapping

import numpy as np
from skimage.measure import find_contours

from nnunet_temporal.report.slice_mosaic import CropBox

GRAIN = 2
"""Places per pixel: the outline of a mask runs half-way between pixels, so that halves are exact."""


def outlines(masks: np.ndarray, values: Mapping[str, int], box: CropBox) -> list[list[list[list[int]]]]:
    """Trace the outlines of every structure in every slice of one frame.

    Args:
        masks: (Z, Y, X) label values.
        values: Label name to value.
        box: The part of the slices that is shown.

    Returns:
        By slice, by label in the order of ``values``: closed polygons, each a flat list of whole numbers in units of
        1 / ``GRAIN`` pixels from the upper left corner of the box: x and y of the first corner, then the steps in x and
        y to each next one.
    """
    return [[_polygons(box.cut(plane) == value) for value in values.values()] for plane in masks]


def _polygons(mask: np.ndarray) -> list[list[int]]:
    """Return the outlines of a mask (Y, X), holes among them."""
    if not mask.any():
        return []
    # Contours run through the centres of pixels; the padding moves all by one, and a pixel's centre lies at one half.
    contours = find_contours(np.pad(mask, 1).astype(np.float32), 0.5)
    return [_corners(np.rint((contour - 0.5) * GRAIN).astype(int)[:-1, ::-1]) for contour in contours]


def _corners(points: np.ndarray) -> list[int]:
    """Return the corners of a closed polygon (N, 2), the first and then the steps, without points on straight lines."""
    steps = np.roll(points, -1, axis=0) - points
    corners = points[(steps != np.roll(steps, 1, axis=0)).any(axis=1)]
    return np.concatenate((corners[:1], np.diff(corners, axis=0))).ravel().tolist()
