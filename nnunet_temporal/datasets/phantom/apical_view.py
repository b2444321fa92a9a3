"""A beating left heart under the probe: one apical view and its place in the scan plane, at every phase."""

import math
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.datasets.phantom.apical_heart import ApicalHeart, ApicalOutline, move
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat

# In 4CH the right heart lies to the left of the left one and moves with it; elsewhere the motion fades quickly.
_REACH_MM = 20.0
_RIGHT_HEART_REACH_MM = 80.0


@dataclass(frozen=True)
class ApicalView:
    """One view of a heart and its clock.

    Places are (level, lateral) in mm in the heart, points (y, x) in mm below and to the right of the probe.

    Attributes:
        name: One of "2CH" and "4CH".
        heart: The heart.
        heartbeat: Its clock.
        apex_mm: Point (y, x) of the tip of the cavity.
        tilt_rad: Angle of the long axis to the vertical, positive when the base lies to the right.
        bend_mm: How far the long axis bends to the right: once (a bow) and twice (an S) along the ventricle.
        sway: Sideways motion of the heart per mm of narrowing: one wall moves more than the other.
        breath_mm: Displacement (y, x) at full inspiration.
        beats_per_breath: Beats from one inspiration to the next.
    """

    name: str
    heart: ApicalHeart
    heartbeat: Heartbeat
    apex_mm: tuple[float, float]
    tilt_rad: float
    bend_mm: tuple[float, float]
    sway: float
    breath_mm: tuple[float, float]
    beats_per_breath: float

    @classmethod
    def draw(cls, name: str, heart: ApicalHeart, heartbeat: Heartbeat, rng: np.random.Generator) -> "ApicalView":
        """Draw how the probe was held and how the patient breathes."""
        apex_range_mm, apex_angle = rng.uniform(24.0, 36.0), rng.normal(0, 0.06)
        return cls(
            name=name,
            heart=heart,
            heartbeat=heartbeat,
            apex_mm=(apex_range_mm * math.cos(apex_angle), apex_range_mm * math.sin(apex_angle)),
            # The axis points away from the probe; in 4CH it leans so that the right heart fits in.
            tilt_rad=float(np.clip(apex_angle + rng.normal(0.1 if name == "4CH" else 0.0, 0.08), -0.3, 0.3)),
            bend_mm=(rng.normal(0, 1.8), rng.normal(0, 0.9)),
            sway=rng.uniform(-0.35, 0.35),
            breath_mm=(rng.uniform(0, 1.5), rng.normal(0, 1.0)),
            beats_per_breath=rng.uniform(3.0, 5.0),
        )

    def outline(self, phase: float) -> ApicalOutline:
        """Return the outlines at a phase."""
        return self.heart.outline(self.name, float(self.heartbeat.volume_share(phase)))

    def labels(self, points_mm: np.ndarray, phase: float) -> np.ndarray:
        """Return the label values of points (..., 2) at a phase: (...), uint8."""
        return self.outline(phase).labels(self.to_heart(points_mm, phase))

    def follow(self, places_mm: np.ndarray, phase: float) -> np.ndarray:
        """Return the points (N, 2) at a phase of tissue that is at places (N, 2) of the heart at end diastole."""
        right_heart = (self.name == "4CH") & (places_mm[:, 1] < 0)
        reach_mm = np.where(right_heart, _RIGHT_HEART_REACH_MM, _REACH_MM)
        return self.to_scan(move(places_mm, self.outline(0.0), self.outline(phase), reach_mm), phase)

    def to_scan(self, places_mm: np.ndarray, phase: float) -> np.ndarray:
        """Return the points (..., 2) of places (..., 2) of the heart at a phase."""
        level_mm = places_mm[..., 0]
        lateral_mm = places_mm[..., 1] + self._axis_mm(level_mm, phase)
        cosine, sine = math.cos(self.tilt_rad), math.sin(self.tilt_rad)
        y_mm, x_mm = level_mm * cosine - lateral_mm * sine, level_mm * sine + lateral_mm * cosine
        return np.stack([y_mm, x_mm], -1) + self._apex_mm(phase)

    def to_heart(self, points_mm: np.ndarray, phase: float) -> np.ndarray:
        """Return the places (..., 2) in the heart of points (..., 2) at a phase; the inverse of :meth:`to_scan`."""
        y_mm, x_mm = np.moveaxis(points_mm - self._apex_mm(phase), -1, 0)
        cosine, sine = math.cos(self.tilt_rad), math.sin(self.tilt_rad)
        level_mm, lateral_mm = y_mm * cosine + x_mm * sine, x_mm * cosine - y_mm * sine
        return np.stack([level_mm, lateral_mm - self._axis_mm(level_mm, phase)], -1)

    def _apex_mm(self, phase: float) -> np.ndarray:
        inspired = 0.5 - 0.5 * math.cos(2 * math.pi * phase / self.beats_per_breath)
        return np.array(self.apex_mm) + inspired * np.array(self.breath_mm)

    def _axis_mm(self, level_mm: np.ndarray, phase: float) -> np.ndarray:
        """How far the long axis lies to the right of the straight line at levels of any shape."""
        along = np.clip(level_mm / self.heart.length_mm, -0.5, 2.0)
        bend_mm = self.bend_mm[0] * np.sin(np.pi * along) + self.bend_mm[1] * np.sin(2 * np.pi * along)
        narrowing_mm = self.heart.half_width_mm[self.name] - self.outline(phase).half_width_mm
        return bend_mm + self.sway * narrowing_mm * np.clip(along, 0, 1)
