"""The left ventricle of the cine phantom as formulas, with its volume exact in every frame.

The z axis is the ventricle's long axis, 0 where the valve plane crosses it at end diastole (ED), rising towards the
apex; short-axis slices are planes of constant z. In a slice, u runs to the right and v down from the outer wall's
centre; angles run from u towards v. Cavity and outer wall are stacks of ellipses of area pi r(z)^2: r is constant near
the base and falls to 0 at the apex. Both are cut off by one valve plane, which is tilted to the slices.
"""

import math
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat

MM3_PER_ML = 1000.0

# Share of a ventricle's length, from the base, in which it does not narrow. A tilted valve plane must lie within it:
# then it takes as much away from one side as it leaves on the other, and volumes have closed forms.
STRAIGHT_SHARE = 0.18
_POWER = 2.5


@dataclass(frozen=True)
class LeftVentricle:
    """A left ventricle at ED, and how far its parts move until end systole (ES).

    Attributes:
        edv_ml: End-diastolic volume.
        wall_ml: Volume of the muscle; it stays the same all through the beat.
        length_mm: Length of the cavity at ED.
        apex_wall_mm: Thickness of the wall at the apex.
        descent_mm: Way of the valve plane towards the apex.
        tilt: Slope of the valve plane, mm of z per mm in the slice.
        tilt_angle: Direction in the slice in which the valve plane lies deepest, in radians.
        aspect: An axis of the cross-sections over that of a circle of the same area.
        aspect_angle: Direction of that axis.
        offset_mm: How far the cavity's centre is off the outer wall's, at ED and at ES.
        offset_angle: Direction of that offset: there the wall is thinner and moves least.
    """

    edv_ml: float
    wall_ml: float
    length_mm: float
    apex_wall_mm: float
    descent_mm: float
    tilt: float
    tilt_angle: float
    aspect: float
    aspect_angle: float
    offset_mm: tuple[float, float]
    offset_angle: float


@dataclass(frozen=True)
class BeatingLeftVentricle:
    """A left ventricle in every frame; all arrays are (T,) float64.

    Attributes:
        shape: The ventricle at ED.
        volume_ml: Volume of the cavity.
        contraction: 0 at ED, 1 at ES.
        base_mm: z where the valve plane crosses the axis.
        cavity_offset_mm: How far the cavity's centre is off the outer wall's.
        cavity_length_mm: Length of the cavity below ``base_mm``.
        cavity_radius_mm: Radius of the cavity near the base.
        outer_length_mm: Length of the outer wall below ``base_mm``.
        outer_radius_mm: Radius of the outer wall near the base.
    """

    shape: LeftVentricle
    volume_ml: np.ndarray
    contraction: np.ndarray
    base_mm: np.ndarray
    cavity_offset_mm: np.ndarray
    cavity_length_mm: np.ndarray
    cavity_radius_mm: np.ndarray
    outer_length_mm: np.ndarray
    outer_radius_mm: np.ndarray


def draw_left_ventricle(ef_percent: float, rng: np.random.Generator) -> LeftVentricle:
    """Draw a left ventricle; a weak one tends to be large and round, and its base moves less.

    Args:
        ef_percent: Ejection fraction that it will have.
        rng: Source of all random numbers.

    Returns:
        The ventricle at ED.
    """
    ef = ef_percent / 100
    weakness = max(0.0, 0.5 - ef) / 0.3  # 0 from 50 percent on, 1 at 20 percent
    edv_ml = rng.uniform(75, 165) * (1 + rng.uniform(0.0, 0.5) * weakness)
    slimness = 1 / (rng.uniform(0.27, 0.32) + 0.03 * weakness)  # length over radius
    radius_mm = (edv_ml * MM3_PER_ML / (math.pi * mean_narrowing(_POWER) * slimness)) ** (1 / 3)
    length_mm, wall_mm = slimness * radius_mm, rng.uniform(7.0, 11.0)
    apex_wall_mm = wall_mm * rng.uniform(0.6, 0.9)
    outer_mm3 = math.pi * mean_narrowing(_POWER) * (radius_mm + wall_mm) ** 2 * (length_mm + apex_wall_mm)
    return LeftVentricle(
        edv_ml=edv_ml,
        wall_ml=outer_mm3 / MM3_PER_ML - edv_ml,
        length_mm=length_mm,
        apex_wall_mm=apex_wall_mm,
        descent_mm=length_mm * (0.03 + 0.18 * ef) * rng.uniform(0.85, 1.15),
        tilt=rng.uniform(5.0, 6.0) / (radius_mm * (1 - 0.4 * ef)),
        tilt_angle=rng.uniform(0, 2 * math.pi),
        aspect=rng.uniform(0.94, 1.06),
        aspect_angle=rng.uniform(0, math.pi),
        offset_mm=(rng.uniform(0.0, 1.2), rng.uniform(1.2, 3.0)),
        offset_angle=rng.uniform(0, 2 * math.pi),
    )


def beat_left_ventricle(shape: LeftVentricle, heartbeat: Heartbeat) -> BeatingLeftVentricle:
    """Move a left ventricle through its frames.

    Lengths follow the base, offsets the contraction; the radii are solved from the volumes. Because the valve plane
    crosses the straight part, the volume below it is pi r^2 (length * mean narrowing - slope * offset along it).

    Args:
        shape: The ventricle at ED.
        heartbeat: Its volume curve and frames.

    Returns:
        The ventricle in every frame.
    """
    share = heartbeat.volume_share(heartbeat.phases())
    contraction = (1 - share) / (heartbeat.ef_percent / 100)
    volume_ml = shape.edv_ml * share
    base_mm = shape.descent_mm * contraction
    at_ed, at_es = shape.offset_mm
    offset_mm = at_ed + (at_es - at_ed) * contraction
    cavity_length_mm = shape.length_mm - base_mm
    outer_length_mm = cavity_length_mm + shape.apex_wall_mm
    plane_at_offset_mm = shape.tilt * offset_mm * math.cos(shape.offset_angle - shape.tilt_angle)
    mean_cavity_mm = cavity_length_mm * mean_narrowing(_POWER) - plane_at_offset_mm
    mean_outer_mm = outer_length_mm * mean_narrowing(_POWER)
    return BeatingLeftVentricle(
        shape=shape,
        volume_ml=volume_ml,
        contraction=contraction,
        base_mm=base_mm,
        cavity_offset_mm=offset_mm,
        cavity_length_mm=cavity_length_mm,
        cavity_radius_mm=np.sqrt(volume_ml * MM3_PER_ML / (math.pi * mean_cavity_mm)),
        outer_length_mm=outer_length_mm,
        outer_radius_mm=np.sqrt((volume_ml + shape.wall_ml) * MM3_PER_ML / (math.pi * mean_outer_mm)),
    )


def radii_at(left: BeatingLeftVentricle, z_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the radii (T,) of cavity and outer wall at a height, as if no valve plane cut them; 0 below the apex."""
    depth_mm = z_mm - left.base_mm
    return (
        left.cavity_radius_mm * np.sqrt(narrowing(depth_mm / left.cavity_length_mm, _POWER)),
        left.outer_radius_mm * np.sqrt(narrowing(depth_mm / left.outer_length_mm, _POWER)),
    )


def narrowing(depth_share: np.ndarray, power: float) -> np.ndarray:
    """Compute the cross-sectional area over that at the base: 1 in the straight part, 0 from the apex on.

    Args:
        depth_share: Depth below the base over the length, any shape and value.
        power: How long the ventricle stays wide; 2 for an ellipsoid.

    Returns:
        Shares in 0..1, same shape.
    """
    beyond = np.clip((depth_share - STRAIGHT_SHARE) / (1 - STRAIGHT_SHARE), 0.0, 1.0)
    return 1 - beyond**power


def mean_narrowing(power: float) -> float:
    """Return the mean of :func:`narrowing` from base to apex, in closed form."""
    return STRAIGHT_SHARE + (1 - STRAIGHT_SHARE) * power / (power + 1)
