"""Geometry of the left ventricle in an apical echo view: base, apex, long axis, discs.

Points are (y, x) in mm; the centre of pixel (i, j) lies at (i, j) times the spacing.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_temporal.metrics.overlap import check_masks

_FEWEST_PIXELS = 10
# A prediction may leave a thin seam of background between ventricle and atrium; wider than this they do not touch.
_WIDEST_SEAM_PIXELS = 3
# The two ends of the ventricle are compared over this share of its length.
_END_SHARE = 0.15
# Each pixel counts as 3 x 3 points when it is dealt to the discs: a disc is often thinner than two pixels.
_POINTS_PER_SIDE = 3
_HALF_DOWN, _HALF_RIGHT = np.array((0.5, 0.0)), np.array((0.0, 0.5))


@dataclass(frozen=True, eq=False)
class ApicalShape:
    """What is measured on the ventricle in one frame; every length is NaN where ``reason`` is not empty.

    Attributes:
        ventricle: (Y, X) boolean mask of the largest connected part; smaller ones would only displace the apex.
        spacing_mm: Spacing of (Y, X).
        hinges_mm: (2, 2) the two ends of the base, one point per row.
        apex_mm: (2,) the point of the outline that lies farthest from the middle of the base.
        orientation_degrees: Direction of the principal axis from base to apex, in (-180, 180]: 0 when the apex points
            to row 0 of the image, 90 when it points to larger x. It moves less than the apex, which may jump along a
            blunt tip.
        reason: Why the shape could not be measured; empty when it was.
    """

    ventricle: np.ndarray
    spacing_mm: tuple[float, float]
    hinges_mm: np.ndarray
    apex_mm: np.ndarray
    orientation_degrees: float
    reason: str = ""

    @property
    def area_mm2(self) -> float:
        """Area of the largest part; 0 for an empty mask."""
        return float(np.count_nonzero(self.ventricle) * math.prod(self.spacing_mm))

    @property
    def base_mm(self) -> np.ndarray:
        """(2,) middle of the base, where the long axis starts."""
        return self.hinges_mm.mean(axis=0)

    @property
    def base_width_mm(self) -> float:
        """Distance between the hinges."""
        return float(np.linalg.norm(self.hinges_mm[1] - self.hinges_mm[0]))

    @property
    def length_mm(self) -> float:
        """Length of the long axis, from the middle of the base to the apex."""
        return float(np.linalg.norm(self.apex_mm - self.base_mm))

    def disc_diameters_mm(self, n_discs: int = 20) -> np.ndarray:
        """Cut the ventricle into discs of equal height across the long axis and measure their diameters.

        A diameter is the area of the mask inside the disc over the height of the disc, that is the mean length of the
        chords; unlike a single chord it does not depend on where the pixel rows happen to lie. What lies beyond the
        middle of a tilted base belongs to no disc.

        Args:
            n_discs: Number of discs, at least 1.

        Returns:
            (n_discs,) float64, from base to apex.

        Raises:
            ValueError: If there is no disc.
        """
        if n_discs < 1:
            raise ValueError(f"n_discs must be at least 1, got {n_discs}")
        if self.reason:
            return np.full(n_discs, math.nan)
        axis = (self.apex_mm - self.base_mm) / self.length_mm**2  # position @ axis is 0 at the base and 1 at the apex
        places = (np.arange(_POINTS_PER_SIDE) + 0.5) / _POINTS_PER_SIDE - 0.5
        points = np.stack(np.meshgrid(places, places), axis=-1).reshape(-1, 2) * self.spacing_mm  # (9, 2)
        positions = (_pixels_mm(self.ventricle, self.spacing_mm) - self.base_mm) @ axis  # (N,)
        disc = np.floor((positions[:, None] + points @ axis) * n_discs).astype(int)  # (N, 9)
        counts = np.bincount(disc[(disc >= 0) & (disc < n_discs)], minlength=n_discs)
        return counts * (math.prod(self.spacing_mm) / len(points)) / (self.length_mm / n_discs)


def measure_apical_shape(
    ventricle: np.ndarray, spacing_mm: tuple[float, float], atrium: np.ndarray | None = None
) -> ApicalShape:
    """Find base, apex and orientation of the left ventricle in one frame of an apical view.

    The base is where the ventricle touches the atrium: a straight line fitted to the pixel edges between the two, as
    long as these edges reach. Without an atrium it joins the two corners of the blunter end: the ends of the principal
    axis are compared, and a corner is the point of the outline that lies farthest in the direction 45 degrees between
    "towards the base" and "sideways". Both rules turn with the image. The second one needs a ventricle that is longer
    than wide. The apex is the point farthest from the middle of the base (as in Painchaud et al., TMI 2022).

    Args:
        ventricle: (Y, X) boolean mask of the cavity.
        spacing_mm: Spacing of (Y, X).
        atrium: (Y, X) boolean mask of the left atrium. None finds the base from the ventricle alone.

    Returns:
        The shape. With fewer than 10 pixels, or more than 3 pixels between ventricle and atrium, it is not measurable
        and says why.

    Raises:
        ValueError: If a mask is not a boolean (Y, X) array, the shapes differ or a spacing is not positive.
    """
    check_masks(ventricle=ventricle, atrium=atrium)
    if ventricle.ndim != 2:
        raise ValueError(f"ventricle must have the axes (Y, X), got shape {ventricle.shape}")
    check_pixel_spacing(spacing_mm)
    part = _largest_part(ventricle)
    n_pixels = np.count_nonzero(part)
    if n_pixels < _FEWEST_PIXELS:
        return _not_measurable(part, spacing_mm, f"the ventricle has {n_pixels} pixels, fewer than {_FEWEST_PIXELS}")
    hinges = _corners_of_blunt_end(part, spacing_mm) if atrium is None else _contact_line(part, atrium, spacing_mm)
    if hinges is None:
        return _not_measurable(part, spacing_mm, "the ventricle does not touch the atrium")
    from_base = _outline_mm(part, spacing_mm) - hinges.mean(axis=0)
    long_axis = from_base[np.argmax((from_base**2).sum(axis=1))]
    direction = _principal_axis(_pixels_mm(part, spacing_mm))
    direction = direction if direction @ long_axis >= 0 else -direction
    orientation = float(np.degrees(np.arctan2(direction[1], -direction[0])))
    return ApicalShape(part, spacing_mm, hinges, hinges.mean(axis=0) + long_axis, orientation)


def check_pixel_spacing(spacing_mm: tuple[float, float]) -> None:
    """Check the spacing of an image (Y, X).

    Raises:
        ValueError: If it is not two positive numbers.
    """
    if len(spacing_mm) != 2 or not all(math.isfinite(entry) and entry > 0 for entry in spacing_mm):
        raise ValueError(f"spacing_mm must be two positive numbers (Y, X), got {spacing_mm}")


def _not_measurable(part: np.ndarray, spacing_mm: tuple[float, float], reason: str) -> ApicalShape:
    """Return a shape without landmarks."""
    return ApicalShape(part, spacing_mm, np.full((2, 2), math.nan), np.full(2, math.nan), math.nan, reason)


def _largest_part(mask: np.ndarray) -> np.ndarray:
    """Return the largest connected part of a mask; pixels that share a corner are connected."""
    parts, n_parts = ndimage.label(mask, structure=np.ones((3, 3)))
    return mask if n_parts < 2 else parts == 1 + np.argmax(np.bincount(parts[mask])[1:])


def _pixels_mm(mask: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return the centres of the pixels of a mask, (N, 2)."""
    return np.argwhere(mask) * spacing_mm


def _outline_mm(mask: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return the middles of the pixel edges around a mask, (N, 2); the true outline crosses them without bias."""
    padded = np.pad(mask, 1)
    return (np.concatenate(_edges_between(padded, ~padded)) - 1) * spacing_mm


def _edges_between(mask: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the middles, in pixels, of the edges between two disjoint masks: (N, 2) in rows, (M, 2) in columns."""
    rows = np.argwhere((mask[1:] & other[:-1]) | (mask[:-1] & other[1:]))
    columns = np.argwhere((mask[:, 1:] & other[:, :-1]) | (mask[:, :-1] & other[:, 1:]))
    return rows + _HALF_DOWN, columns + _HALF_RIGHT


def _contact_line(ventricle: np.ndarray, atrium: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray | None:
    """Fit a line to the edges between ventricle and atrium and return its ends, (2, 2) in mm; None without contact.

    Where the two do not touch, the thinnest seam of background that brings them together is bridged.
    """
    rows, columns = _edges_between(ventricle, atrium)
    for _ in range(_WIDEST_SEAM_PIXELS):
        if len(rows) + len(columns):
            break
        atrium = ndimage.binary_dilation(atrium)
        rows, columns = _edges_between(ventricle, atrium)
    if not len(rows) + len(columns):
        return None
    # An edge in a row of edges reaches half a pixel to the left and right, one in a column up and down.
    ends = np.concatenate((rows - _HALF_RIGHT, rows + _HALF_RIGHT, columns - _HALF_DOWN, columns + _HALF_DOWN))
    ends *= spacing_mm
    centre, direction = ends.mean(axis=0), _principal_axis(ends)
    reach = (ends - centre) @ direction
    return centre + np.outer((reach.min(), reach.max()), direction)


def _corners_of_blunt_end(mask: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """Return the two corners of the blunter end of a mask, (2, 2) in mm."""
    pixels, outline = _pixels_mm(mask, spacing_mm), _outline_mm(mask, spacing_mm)
    centre, axis = pixels.mean(axis=0), _principal_axis(pixels)
    along = (pixels - centre) @ axis
    end = _END_SHARE * np.ptp(along)
    if np.count_nonzero(along > along.max() - end) < np.count_nonzero(along < along.min() + end):
        axis = -axis  # from here on it points to the base
    towards_base = (outline - centre) @ axis
    sideways = (outline - centre) @ (-axis[1], axis[0])
    return outline[[np.argmax(towards_base + sideways), np.argmax(towards_base - sideways)]]


def _principal_axis(points: np.ndarray) -> np.ndarray:
    """Return the unit vector (2,) along which points (N, 2) scatter most; its sign is arbitrary."""
    offsets = points - points.mean(axis=0)
    return np.linalg.eigh(offsets.T @ offsets)[1][:, -1]
