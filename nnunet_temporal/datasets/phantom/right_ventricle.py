"""The right ventricle of the cine phantom: a crescent on the wall of the left one, its volume exact in every frame.

Seen from the left ventricle's centre, with v in -1..1 across the opening angle, the crescent reaches from the outer
wall's radius a to the root of a^2 + size^2 * spread(v) * narrowing(z). So its area does not depend on a.
"""

import math
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.datasets.phantom.left_ventricle import (
    MM3_PER_ML,
    BeatingLeftVentricle,
    mean_narrowing,
    narrowing,
)

_POWER = 2.0


@dataclass(frozen=True)
class RightVentricle:
    """A right ventricle at ED, and how far its base moves until ES. Axes and angles are those of the left ventricle.

    Attributes:
        edv_ml: End-diastolic volume.
        angle: Direction of its middle, in radians.
        opening: Half the angle that it embraces.
        skew: In (-1, 1): how much more of it lies on the side of larger angles.
        base_mm: z of the middle of its valve plane.
        descent_mm: Way of that plane towards the apex.
        tilt_mm: Height of that plane above and below its middle.
        end_mm: z where it ends.
    """

    edv_ml: float
    angle: float
    opening: float
    skew: float
    base_mm: float
    descent_mm: float
    tilt_mm: float
    end_mm: float


@dataclass(frozen=True)
class BeatingRightVentricle:
    """A right ventricle in every frame; all arrays are (T,) float64.

    Attributes:
        shape: The ventricle at ED.
        volume_ml: Volume of the cavity.
        base_mm: z of the middle of its valve plane.
        size_mm: Size of the crescent near the base; see the head of this file.
    """

    shape: RightVentricle
    volume_ml: np.ndarray
    base_mm: np.ndarray
    size_mm: np.ndarray


def draw_right_ventricle(left: BeatingLeftVentricle, ef_percent: float, rng: np.random.Generator) -> RightVentricle:
    """Draw a right ventricle that ejects as much as the left one.

    Args:
        left: The left ventricle.
        ef_percent: Ejection fraction of the left ventricle.
        rng: Source of all random numbers.

    Returns:
        The ventricle at ED.
    """
    ef = ef_percent / 100
    right_ef = min(max(ef, 0.35), 0.6) * rng.uniform(0.85, 1.1)
    return RightVentricle(
        edv_ml=left.shape.edv_ml * ef / right_ef,
        angle=math.pi + rng.uniform(-0.25, 0.35),
        opening=rng.uniform(1.2, 1.55),
        skew=rng.uniform(-0.35, 0.35),
        base_mm=rng.uniform(-3.0, 3.0),
        descent_mm=1.2 * left.shape.descent_mm,
        tilt_mm=rng.uniform(4.0, 7.0),
        end_mm=left.shape.length_mm * rng.uniform(0.78, 0.9),
    )


def beat_right_ventricle(shape: RightVentricle, left: BeatingLeftVentricle) -> BeatingRightVentricle:
    """Move a right ventricle through the frames of the left one.

    With spread(v) = cos(pi v / 2) (1 + skew sin(pi v / 2)) and the valve plane at base + tilt sin(pi v / 2), the volume
    is 2 / pi * opening * size^2 (length * mean narrowing - tilt * skew / 3).

    Args:
        shape: The ventricle at ED.
        left: The left ventricle; both lose the same volume.

    Returns:
        The ventricle in every frame.
    """
    volume_ml = shape.edv_ml - (left.shape.edv_ml - left.volume_ml)
    base_mm = shape.base_mm + shape.descent_mm * left.contraction
    mean_length_mm = (shape.end_mm - base_mm) * mean_narrowing(_POWER) - shape.tilt_mm * shape.skew / 3
    size_mm = np.sqrt(volume_ml * MM3_PER_ML * math.pi / (2 * shape.opening * mean_length_mm))
    return BeatingRightVentricle(shape, volume_ml, base_mm, size_mm)


def growth_at(right: BeatingRightVentricle, z_mm: float) -> np.ndarray:
    """Return size^2 * narrowing(z) (T,) in mm^2 at a height, as if no valve plane cut the crescent; 0 below it."""
    depth_mm = z_mm - right.base_mm
    return right.size_mm**2 * narrowing(depth_mm / (right.shape.end_mm - right.base_mm), _POWER)


def spread(shape: RightVentricle, angle: np.ndarray) -> np.ndarray:
    """Compute how far the crescent reaches in a direction, 0 outside its opening; same shape as ``angle``."""
    across = _across(shape, angle)
    return np.cos(across) * (1 + shape.skew * np.sin(across))


def valve_height_mm(shape: RightVentricle, angle: np.ndarray) -> np.ndarray:
    """Compute z of the valve plane relative to its middle in a direction; same shape as ``angle``."""
    return shape.tilt_mm * np.sin(_across(shape, angle))


def _across(shape: RightVentricle, angle: np.ndarray) -> np.ndarray:
    turned = np.mod(angle - shape.angle + math.pi, 2 * math.pi) - math.pi
    return np.clip(turned / shape.opening, -1.0, 1.0) * (math.pi / 2)
