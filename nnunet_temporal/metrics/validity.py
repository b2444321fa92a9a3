"""Whether masks look like a heart: without holes, in one part, with a wall around the cavity.

These counts need no reference. Each is taken per frame, in the image plane.
"""

import math

import numpy as np
from scipy import ndimage

from nnunet_temporal.metrics.overlap import check_masks

# (T, Y, X) neighbourhoods that never join two frames: across faces, and across faces and corners.
_FACES = np.zeros((3, 3, 3), bool)
_FACES[1] = ndimage.generate_binary_structure(2, 1)
_FACES_AND_CORNERS = np.zeros((3, 3, 3), bool)
_FACES_AND_CORNERS[1] = True


def count_parts(masks: np.ndarray) -> np.ndarray:
    """Count the connected parts of a mask in every frame.

    Args:
        masks: (T, Y, X) boolean masks of one structure. Pixels that share an edge or a corner are connected.

    Returns:
        (T,) int64; 0 for an empty frame, 1 where all is well.

    Raises:
        ValueError: If the masks are not a boolean (T, Y, X) array.
    """
    _check_movie(masks)
    parts, n_parts = ndimage.label(masks, structure=_FACES_AND_CORNERS)
    return _count_per_frame(parts, n_parts)


def count_holes(masks: np.ndarray) -> np.ndarray:
    """Count the holes of a mask in every frame: parts of its outside that do not reach the image border.

    The cavity is a hole of the myocardium: pass both together (``ventricle | myocardium``) to judge the wall.

    Args:
        masks: (T, Y, X) boolean masks of one structure. Outside pixels are connected where they share an edge: the
            counterpart of :func:`count_parts`, so that a line of pixels that touch at corners closes a hole.

    Returns:
        (T,) int64.

    Raises:
        ValueError: If the masks are not a boolean (T, Y, X) array.
    """
    _check_movie(masks)
    # The frame of background makes all that reaches the border one part.
    padded = np.pad(~masks, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    parts, n_parts = ndimage.label(padded, structure=_FACES)
    return _count_per_frame(parts, n_parts) - 1


def ring_opening_share(cavity: np.ndarray, wall: np.ndarray, aside: np.ndarray | None = None) -> np.ndarray:
    """Compute which share of the outline of the cavity is not covered by the wall, in every frame.

    The outline is counted in pixel edges. In a short-axis slice below the base the left ventricle should be closed; in
    an apical view it is open at the base, towards the atrium.

    Args:
        cavity: (T, Y, X) boolean masks of the left ventricle.
        wall: (T, Y, X) boolean masks of the myocardium.
        aside: (T, Y, X) boolean masks of what may neither close nor open the ring (the right ventricle, the left
            atrium): edges of the cavity towards it are not counted. None counts all.

    Returns:
        (T,) float64 in [0, 1], 0 for a closed ring; NaN where the cavity is empty or touches only what is set aside.
        The image border counts as open.

    Raises:
        ValueError: If a mask is not a boolean (T, Y, X) array or the shapes differ.
    """
    check_masks(cavity=cavity, wall=wall, aside=aside)
    _check_movie(cavity)
    margins = ((0, 0), (1, 1), (1, 1))
    cavity, wall = np.pad(cavity, margins), np.pad(wall, margins)
    aside = np.zeros_like(cavity) if aside is None else np.pad(aside, margins)
    covered = _count_edges(cavity, wall)
    outline = _count_edges(cavity, ~(cavity | aside))
    return np.divide(outline - covered, outline, out=np.full(len(cavity), math.nan), where=outline > 0)


def _count_edges(masks: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the number of pixel edges between two kinds of (T, Y, X) masks in every frame, (T,)."""
    in_y = (masks[:, 1:] & others[:, :-1]).sum(axis=(1, 2)) + (masks[:, :-1] & others[:, 1:]).sum(axis=(1, 2))
    in_x = (masks[..., 1:] & others[..., :-1]).sum(axis=(1, 2)) + (masks[..., :-1] & others[..., 1:]).sum(axis=(1, 2))
    return in_y + in_x


def _count_per_frame(parts: np.ndarray, n_parts: int) -> np.ndarray:
    """Return how many of the parts 1..n of a (T, Y, X) map lie in each frame; none lies in two."""
    frames = [box[0].start for box in ndimage.find_objects(parts, max_label=n_parts)]
    return np.bincount(frames, minlength=len(parts)) if n_parts else np.zeros(len(parts), np.int64)


def _check_movie(masks: np.ndarray) -> None:
    """Raise ValueError unless masks are boolean (T, Y, X)."""
    if masks.dtype != np.bool_ or masks.ndim != 3:
        raise ValueError(f"masks must be boolean (T, Y, X), got {masks.dtype} of shape {masks.shape}")
