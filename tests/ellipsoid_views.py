"""Apical views of an ellipsoid cut off at its base, whose volume is known exactly, shared by tests. Not a test."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ellipsoid:
    """A ventricle: semi-axes in mm, cut off at ``cut`` times the long semi-axis below its centre."""

    long_mm: float
    short_mm: float
    cut: float = 0.5

    @property
    def length_mm(self) -> float:
        """Length from the base to the apex."""
        return self.long_mm * (1 + self.cut)

    @property
    def base_width_mm(self) -> float:
        """Diameter of the base."""
        return 2 * self.short_mm * math.sqrt(1 - self.cut**2)

    @property
    def volume_ml(self) -> float:
        """Integral of pi b^2 (1 - s^2 / a^2) from s = -cut a to s = a."""
        return math.pi * self.short_mm**2 * self.long_mm * (2 / 3 + self.cut - self.cut**3 / 3) / 1000


@dataclass(frozen=True)
class View:
    """The masks (Y, X) of one frame."""

    ventricle: np.ndarray
    myocardium: np.ndarray
    atrium: np.ndarray


def draw_view(
    heart: Ellipsoid, pixel_mm: float, degrees: float = 0.0, shift_mm: tuple[float, float] = (0.0, 0.0), side_mm=150.0
) -> View:
    """Draw a heart whose apex points up when ``degrees`` is 0 and to the right when it is 90."""
    places = np.arange(round(side_mm / pixel_mm)) * pixel_mm - side_mm / 2
    y, x = np.meshgrid(places - shift_mm[0], places - shift_mm[1], indexing="ij")
    angle = math.radians(degrees)
    along = -y * math.cos(angle) + x * math.sin(angle)  # towards the apex
    across = y * math.sin(angle) + x * math.cos(angle)
    above_base = along >= -heart.cut * heart.long_mm
    inside = (along / heart.long_mm) ** 2 + (across / heart.short_mm) ** 2 <= 1
    within_wall = (along / (heart.long_mm + 8)) ** 2 + (across / (heart.short_mm + 8)) ** 2 <= 1
    below_mm = -heart.cut * heart.long_mm - along
    atrium = (below_mm > 0) & (below_mm < 30) & (2 * np.abs(across) < heart.base_width_mm)
    return View(inside & above_base, within_wall & above_base & ~inside, atrium)
