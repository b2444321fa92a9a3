"""Short-axis cross-sections of the cine phantom: how far each pixel is inside cavity, wall and right ventricle."""

import math
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.datasets.phantom.left_ventricle import BeatingLeftVentricle, LeftVentricle, radii_at
from nnunet_temporal.datasets.phantom.right_ventricle import (
    BeatingRightVentricle,
    growth_at,
    spread,
    valve_height_mm,
)

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3}

_MIN_RADIUS_MM = 1e-3
# Where the crescent is closed, its wall and the left one coincide but for rounding.
_ROUNDING_MM = 1e-3


@dataclass(frozen=True)
class Heart:
    """Both ventricles in every frame."""

    left: BeatingLeftVentricle
    right: BeatingRightVentricle


@dataclass(frozen=True)
class SliceCoordinates:
    """Where the pixels of a slice are relative to the heart; all arrays are (T, Y, X) float32, lengths in mm.

    Attributes:
        u: To the right of the outer wall's centre.
        v: Below it.
        angle: Angle around it, from u towards v, in radians.
        cavity_radius: Radius of the circle with the area of the cavity-shaped ellipse through the pixel.
        outer_radius: The same for the ellipse around the outer wall's centre.
        crescent: How far the right ventricle reaches in the pixel's direction; see ``right_ventricle.spread``.
        right_valve: Height of the right valve plane there, relative to its middle.
    """

    u: np.ndarray
    v: np.ndarray
    angle: np.ndarray
    cavity_radius: np.ndarray
    outer_radius: np.ndarray
    crescent: np.ndarray
    right_valve: np.ndarray


@dataclass(frozen=True)
class CrossSection:
    """How deep each pixel is inside each structure at one height; (T, Y, X) float32 in mm, below 0 outside.

    Attributes:
        cavity: Inside the left ventricle's cavity, as if no valve plane cut it.
        wall: Inside the left ventricle's outer wall, as if no valve plane cut it.
        right: Inside the right ventricle's free wall, as if no valve plane cut it.
        below_valve: Below the left valve plane (towards the apex).
        right_below_valve: Below the right valve plane.
    """

    cavity: np.ndarray
    wall: np.ndarray
    right: np.ndarray
    below_valve: np.ndarray
    right_below_valve: np.ndarray

    def truth(self) -> np.ndarray:
        """Return the label of each pixel's centre: (T, Y, X) uint8."""
        labels = np.zeros(self.cavity.shape, np.uint8)
        labels[(self.right > _ROUNDING_MM) & (self.right_below_valve > 0)] = LABELS["RV"]
        in_left = self.wall > 0
        labels[in_left] = LABELS["background"]
        labels[in_left & (self.below_valve > 0)] = LABELS["MYO"]
        labels[(self.cavity > 0) & (self.below_valve > 0)] = LABELS["LV"]
        return labels


def slice_coordinates(x_mm: np.ndarray, y_mm: np.ndarray, centre_mm: np.ndarray, heart: Heart) -> SliceCoordinates:
    """Express pixels in the heart's own coordinates.

    Args:
        x_mm: (Y, X) positions to the right of where the heart's axis is at end diastole.
        y_mm: (Y, X) positions below it.
        centre_mm: (T, 2) where the axis is in each frame, x and y.
        heart: The heart.

    Returns:
        The coordinates in every frame.
    """
    u = x_mm.astype(np.float32) - per_frame(centre_mm[:, 0])
    v = y_mm.astype(np.float32) - per_frame(centre_mm[:, 1])
    left, right = heart.left.shape, heart.right.shape
    offset = per_frame(heart.left.cavity_offset_mm)
    cavity_u, cavity_v = u - offset * math.cos(left.offset_angle), v - offset * math.sin(left.offset_angle)
    angle = np.arctan2(v, u)
    return SliceCoordinates(
        u=u,
        v=v,
        angle=angle,
        cavity_radius=_ellipse_radius(cavity_u, cavity_v, left),
        outer_radius=_ellipse_radius(u, v, left),
        crescent=spread(right, angle),
        right_valve=valve_height_mm(right, angle),
    )


def cross_section(at: SliceCoordinates, z_mm: float, heart: Heart) -> CrossSection:
    """Cut the heart at a height.

    Args:
        at: Where the pixels are.
        z_mm: Height of the cut.
        heart: The heart.

    Returns:
        How deep each pixel is inside each structure.
    """
    cavity_mm, outer_mm = (per_frame(radius) for radius in radii_at(heart.left, z_mm))
    radius = np.hypot(at.u, at.v)
    # Along one direction, radius / outer_radius is the same on every ellipse, so this is the outer wall's radius there.
    wall_mm = outer_mm * radius / np.maximum(at.outer_radius, _MIN_RADIUS_MM)
    right_mm = np.sqrt(wall_mm**2 + per_frame(growth_at(heart.right, z_mm)) * at.crescent)
    tilt, deepest = heart.left.shape.tilt, heart.left.shape.tilt_angle
    plane_mm = at.u * (tilt * math.cos(deepest)) + at.v * (tilt * math.sin(deepest))
    return CrossSection(
        cavity=cavity_mm - at.cavity_radius,
        wall=outer_mm - at.outer_radius,
        right=right_mm - radius,
        below_valve=per_frame(z_mm - heart.left.base_mm) - plane_mm,
        right_below_valve=per_frame(z_mm - heart.right.base_mm) - at.right_valve,
    )


def per_frame(values: np.ndarray) -> np.ndarray:
    """Return (T,) as (T, 1, 1) float32, to be combined with (T, Y, X)."""
    return values.astype(np.float32)[:, None, None]


def _ellipse_radius(u: np.ndarray, v: np.ndarray, shape: LeftVentricle) -> np.ndarray:
    along, across = math.cos(shape.aspect_angle), math.sin(shape.aspect_angle)
    return np.hypot((u * along + v * across) / shape.aspect, (v * along - u * across) * shape.aspect)
