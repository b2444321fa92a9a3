"""A left heart in the two apical views: its shape, its volumes, and where its tissue goes when it beats.

Every cross-section along the long axis is an ellipse whose two diameters are what the views 2CH and 4CH show, so the
biplane method of discs gives the exact volume. Within a view a place is (level, lateral) in mm: the level along the
long axis from the tip of the cavity towards the base, the lateral distance from the axis.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

VIEWS = ("2CH", "4CH")
LABELS = {"background": 0, "LV": 1, "MYO": 2, "LA": 3}

_MM3_PER_ML = 1000.0
# The ventricle is half an ellipse down to its widest level, and narrows a little from there to the base.
_WIDEST = 0.6
_NARROWING = 0.14
# Integral of the squared profile over the long axis.
_VENTRICLE_INTEGRAL = 2 * _WIDEST / 3 + (1 - _WIDEST) * (1 - 2 * _NARROWING / 3 + _NARROWING**2 / 5)
# The wall is thinner at the apex than at the sides.
_APICAL_WALL_SHARE = 0.7
_ATRIAL_WALL_MM = 2.5
# How far the groove between ventricle and atrium reaches along the atrium.
_GROOVE = 0.3
# How the heart follows its ventricle's emptying: shortening of the long axis, widening of the atrium.
_SHORTENING = 0.22
_ATRIAL_WIDENING = 0.2
_REST_MM = 30.0
_QUADRATURE = (np.arange(400) + 0.5) / 400


@dataclass(frozen=True)
class ApicalOutline:
    """The outlines of ventricle, wall and atrium in one view at one moment; all lengths in mm.

    Attributes:
        length_mm: Long axis of the ventricle, from the tip of the cavity to the mitral annulus.
        half_width_mm: Largest distance of its inner border from the axis.
        wall_mm: Thickness of its wall at the widest level.
        atrium_length_mm: Distance from the annulus to the roof of the atrium.
        atrium_half_width_mm: Largest distance of the atrium's border from the axis, at least that of the annulus.
    """

    length_mm: float
    half_width_mm: float
    wall_mm: float
    atrium_length_mm: float
    atrium_half_width_mm: float

    @property
    def tip_mm(self) -> float:
        """Level of the outer border at the apex, negative."""
        return -_APICAL_WALL_SHARE * self.wall_mm

    @property
    def roof_mm(self) -> float:
        """Level of the roof of the atrium."""
        return self.length_mm + self.atrium_length_mm

    @property
    def annulus_mm(self) -> float:
        """Half width of the ventricle at the annulus."""
        return self.half_width_mm * float(_ventricle_profile(1.0))

    def cavity_mm(self, level_mm: np.ndarray) -> np.ndarray:
        """Return the half width of ventricle or atrium at levels of any shape; 0 above and below them."""
        ventricle = self.half_width_mm * _ventricle_profile(level_mm / self.length_mm)
        along = (level_mm - self.length_mm) / self.atrium_length_mm
        atrium = _atrium_half_width(along, self.annulus_mm, self.atrium_half_width_mm)
        return np.where(level_mm <= self.length_mm, ventricle, atrium)

    def border_mm(self, level_mm: np.ndarray) -> np.ndarray:
        """Return the half width of the outer border at levels of any shape; 0 above and below the heart."""
        in_ventricle = (level_mm - self.tip_mm) / (self.length_mm - self.tip_mm)
        ventricle = (self.half_width_mm + self.wall_mm) * _ventricle_profile(in_ventricle)
        in_atrium = (level_mm - self.length_mm) / (self.atrium_length_mm + _ATRIAL_WALL_MM)
        annulus, widest = self.annulus_mm + _ATRIAL_WALL_MM, self.atrium_half_width_mm + _ATRIAL_WALL_MM
        atrium = _atrium_half_width(in_atrium, annulus, widest)
        # The groove between both is filled, so that the outer border has no step at the annulus.
        foot = (self.half_width_mm + self.wall_mm) * float(_ventricle_profile(1.0)) - annulus
        groove = foot * (1 - _smooth_step(in_atrium / _GROOVE))
        return np.where(level_mm <= self.length_mm, ventricle, atrium + groove)

    def labels(self, places_mm: np.ndarray) -> np.ndarray:
        """Return the label values of places (..., 2): (...), uint8, those of :data:`LABELS`."""
        level_mm, from_axis_mm = places_mm[..., 0], np.abs(places_mm[..., 1])
        above_annulus = level_mm <= self.length_mm
        labels = np.where(above_annulus & (from_axis_mm < self.border_mm(level_mm)), LABELS["MYO"], 0)
        cavity = np.where(above_annulus, LABELS["LV"], LABELS["LA"])
        return np.where(from_axis_mm < self.cavity_mm(level_mm), cavity, labels).astype(np.uint8)


@dataclass(frozen=True)
class ApicalHeart:
    """A left heart at end diastole, and how it empties.

    Attributes:
        length_mm: Long axis of the ventricle.
        half_width_mm: Largest half width of the ventricle in each view.
        wall_mm: Thickness of its wall.
        atrium_length_mm: Length of the atrium.
        atrium_half_width_mm: Largest half width of the atrium in each view.
    """

    length_mm: float
    half_width_mm: dict[str, float]
    wall_mm: float
    atrium_length_mm: float
    atrium_half_width_mm: dict[str, float]

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "ApicalHeart":
        """Draw a heart of an adult."""
        half_width_mm = rng.uniform(20.0, 29.0)
        atrium_half_width_mm = rng.uniform(0.9, 1.05) * half_width_mm
        return cls(
            length_mm=rng.uniform(74.0, 94.0),
            half_width_mm={"2CH": rng.uniform(0.92, 1.06) * half_width_mm, "4CH": half_width_mm},
            wall_mm=rng.uniform(8.0, 11.5),
            atrium_length_mm=rng.uniform(30.0, 42.0),
            atrium_half_width_mm={"2CH": rng.uniform(0.95, 1.1) * atrium_half_width_mm, "4CH": atrium_half_width_mm},
        )

    def outline(self, view: str, volume_share: float) -> ApicalOutline:
        """Return the outlines of a view when the ventricle holds ``volume_share`` of its end-diastolic volume.

        The annulus moves towards the apex, the atrium's roof stays, and the volume of the wall stays, so that it
        thickens.
        """
        length_share = 1 - _SHORTENING * (1 - volume_share)
        width_share = math.sqrt(volume_share / length_share)
        length_mm = length_share * self.length_mm
        widening = 1 + _ATRIAL_WIDENING * (1 - volume_share)
        return ApicalOutline(
            length_mm=length_mm,
            half_width_mm=width_share * self.half_width_mm[view],
            wall_mm=self._wall_mm(length_mm, width_share),
            atrium_length_mm=self.atrium_length_mm + self.length_mm - length_mm,
            atrium_half_width_mm=widening * self.atrium_half_width_mm[view],
        )

    def volumes_ml(self, volume_share: np.ndarray) -> dict[str, np.ndarray]:
        """Compute the volumes of ventricle, wall and atrium for shares (T,) of the ventricle's largest volume.

        Returns:
            Per name of a label (T,) float64 in ml.
        """
        ventricle_mm3 = self._ventricle_mm3(self.length_mm, 1.0) * volume_share
        atrium_mm3 = np.array([self._atrium_mm3(float(share)) for share in volume_share])
        return {
            "LV": ventricle_mm3 / _MM3_PER_ML,
            "MYO": np.full(len(volume_share), self._wall_mm3() / _MM3_PER_ML),
            "LA": atrium_mm3 / _MM3_PER_ML,
        }

    def _ventricle_mm3(self, length_mm: float, width_share: float, wall_mm: float = 0.0) -> float:
        """Volume inside the inner border, or inside the outer one of a wall of ``wall_mm``."""
        half_2ch, half_4ch = (width_share * self.half_width_mm[view] + wall_mm for view in VIEWS)
        return math.pi * half_2ch * half_4ch * (length_mm + _APICAL_WALL_SHARE * wall_mm) * _VENTRICLE_INTEGRAL

    def _wall_mm3(self) -> float:
        return self._ventricle_mm3(self.length_mm, 1.0, self.wall_mm) - self._ventricle_mm3(self.length_mm, 1.0)

    def _wall_mm(self, length_mm: float, width_share: float) -> float:
        """Thickness that gives the wall the volume it has at end diastole."""
        outer_mm3 = self._wall_mm3() + self._ventricle_mm3(length_mm, width_share)
        return brentq(lambda wall: self._ventricle_mm3(length_mm, width_share, wall) - outer_mm3, 0.0, 200.0)

    def _atrium_mm3(self, volume_share: float) -> float:
        outlines = [self.outline(view, volume_share) for view in VIEWS]
        half_2ch, half_4ch = (
            _atrium_half_width(_QUADRATURE, outline.annulus_mm, outline.atrium_half_width_mm) for outline in outlines
        )
        return math.pi * float(np.mean(half_2ch * half_4ch)) * outlines[0].atrium_length_mm


def move(
    places_mm: np.ndarray, before: ApicalOutline, after: ApicalOutline, reach_mm: np.ndarray | float
) -> np.ndarray:
    """Follow tissue of one view from one moment to another.

    Inside the heart levels stretch between tip, annulus and roof, and distances from the axis between axis, inner and
    outer border; the way back is the way there with the moments swapped. Outside the motion fades.

    Args:
        places_mm: (N, 2) places at the moment ``before``.
        before: The outlines there.
        after: The outlines to go to.
        reach_mm: Distance from the outer border in which the motion fades to a third, a number or (N,).

    Returns:
        (N, 2) places at the moment ``after``.
    """
    level_mm, lateral_mm = places_mm.T
    from_axis_mm = np.abs(lateral_mm)
    cavity_before, border_before = before.cavity_mm(level_mm), before.border_mm(level_mm)
    fading = np.exp(-np.maximum(from_axis_mm - border_before, 0) / reach_mm)
    knots_before, knots_after = _level_knots(before), _level_knots(after)
    new_level_mm = level_mm + fading * np.interp(level_mm, knots_before, knots_after - knots_before)
    cavity_after, border_after = after.cavity_mm(new_level_mm), after.border_mm(new_level_mm)
    in_cavity = from_axis_mm * cavity_after / np.maximum(cavity_before, 1e-9)
    through_wall = (from_axis_mm - cavity_before) / np.maximum(border_before - cavity_before, 1e-9)
    in_wall = cavity_after + through_wall * (border_after - cavity_after)
    outside = from_axis_mm + fading * (border_after - border_before)
    new_from_axis_mm = np.where(
        from_axis_mm <= cavity_before, in_cavity, np.where(from_axis_mm <= border_before, in_wall, outside)
    )
    return np.stack([new_level_mm, np.copysign(new_from_axis_mm, lateral_mm)], -1)


def _level_knots(outline: ApicalOutline) -> np.ndarray:
    """Levels between which tissue stretches evenly; beyond them it rests."""
    # The resting ends are the same at all times: the tip moves by millimetres, the roof not at all.
    return np.array([-_REST_MM, outline.tip_mm, 0.0, outline.length_mm, outline.roof_mm])


def _ventricle_profile(along: np.ndarray | float) -> np.ndarray:
    """Half width of the ventricle over its largest, from the tip (0) to the annulus (1); 0 above the tip."""
    from_widest = np.asarray(along) - _WIDEST
    squared = from_widest * from_widest
    above = np.sqrt(np.maximum(1 - squared / _WIDEST**2, 0))
    return np.where(from_widest <= 0, above, 1 - squared * (_NARROWING / (1 - _WIDEST) ** 2))


def _atrium_half_width(along: np.ndarray, annulus_mm: float, widest_mm: float) -> np.ndarray:
    """Half width of the atrium in mm, from the annulus (0) to its round roof (1); 0 below the roof."""
    widened = annulus_mm + (widest_mm - annulus_mm) * _smooth_step(along / 0.5)
    return widened * np.sqrt(np.maximum(1 - along * along * along, 0))


def _smooth_step(share: np.ndarray) -> np.ndarray:
    """Rise from 0 (share 0 and below) to 1 (share 1 and above) with slope 0 at both ends."""
    share = np.clip(share, 0, 1)
    return share * share * (3 - 2 * share)
