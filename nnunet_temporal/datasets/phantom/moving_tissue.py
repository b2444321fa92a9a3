"""The scatterers of an apical view: drawn once, then carried along with the heart, frame by frame."""

import math
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.datasets.phantom.apical_heart import ApicalOutline
from nnunet_temporal.datasets.phantom.apical_view import ApicalView
from nnunet_temporal.datasets.phantom.lost_segment import LostSegment
from nnunet_temporal.datasets.phantom.speckle import (
    BeamGrid,
    amplitude,
    draw_scatterers,
    echo_signal,
    random_phases,
)
from nnunet_temporal.datasets.phantom.tissue_levels import BLOOD_DB, tissue_db

_LEAFLET_POINTS = 400
_LEAFLET_REFLECTION = 2.0
# Length over the half width of the annulus; together a little more than its width, so that closed leaflets meet.
_LEFT_LEAFLET, _RIGHT_LEAFLET = 1.15, 0.9
_LEAFLET_BULGE_MM = 2.0
_CLOSED_RAD, _OPEN_RAD = 0.12, 1.32


@dataclass(frozen=True)
class Dropout:
    """A segment of the wall that fades from the image for part of every beat.

    Attributes:
        right: Whether it is in the wall to the right of the axis.
        level_share: Where it is, as a share of the long axis.
        length_share: How long it is, as a share of the long axis.
        phase: Phase of the beat at which it is weakest.
        loss_db: Loss in its middle at that phase.
    """

    right: bool
    level_share: float
    length_share: float
    phase: float
    loss_db: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Dropout":
        """Draw one; lateral and anterior walls, to the right, fade more often than the others."""
        return cls(
            right=bool(rng.random() < 0.65),
            level_share=rng.uniform(0.15, 0.85),
            length_share=rng.uniform(0.25, 0.5),
            phase=rng.uniform(0, 1),
            loss_db=rng.uniform(10.0, 20.0),
        )

    def largest_loss_db(self, places_mm: np.ndarray, outline: ApicalOutline) -> np.ndarray:
        """Return the loss (N,) in dB at its phase, at places (N, 2) within the outlines of end diastole."""
        level_mm, lateral_mm = places_mm.T
        distance = (level_mm / outline.length_mm - self.level_share) / (0.5 * self.length_share)
        in_wall = (np.abs(lateral_mm) > outline.cavity_mm(level_mm)) & ((lateral_mm > 0) == self.right)
        return self.loss_db * np.exp(-(distance**2)) * in_wall

    def strength(self, phase: float) -> float:
        """Return the share of the largest loss at a phase, in [0, 1]."""
        return 0.5 + 0.5 * math.cos(2 * math.pi * (phase - self.phase))


class MovingTissue:
    """Everything that reflects in a view.

    Args:
        view: The view.
        beams: The scan that looks at it.
        rng: Source of all random numbers.
        lost: The segment of the wall that is lost in part of the beat. No other segment drops out then, so that the
            wall is seen wherever it is not lost.
    """

    def __init__(
        self, view: ApicalView, beams: BeamGrid, rng: np.random.Generator, lost: LostSegment | None = None
    ) -> None:
        self.view, self.beams = view, beams
        points_mm, self.reflections = draw_scatterers(beams, rng)
        self.places_mm = view.to_heart(points_mm, 0.0)
        self.level_db = tissue_db(self.places_mm, view, rng)
        self.blood = np.flatnonzero(self.level_db == BLOOD_DB)
        self.dropouts = [Dropout.draw(rng) for _ in range(rng.integers(1, 3))]
        self.losses_db = [dropout.largest_loss_db(self.places_mm, view.outline(0.0)) for dropout in self.dropouts]
        self.leaflet_reflections = _LEAFLET_REFLECTION * random_phases(2 * _LEAFLET_POINTS, rng)
        self.lost = lost
        if lost is not None:
            self.dropouts, self.losses_db = [], []
            self.lost_weight = lost.weight(self.places_mm, view.outline(0.0))
            # Its own stream: all else is drawn as it would be without the segment.
            self.lost_rng = rng.spawn(1)[0]

    def signal(self, phase: float, rng: np.random.Generator) -> np.ndarray:
        """Return what the beams receive at a phase: (R, A) complex.

        Tissue keeps its scatterers from frame to frame; blood flows, so its speckle differs every time.
        """
        losses = zip(self.dropouts, self.losses_db, strict=True)
        level_db = self.level_db - sum(dropout.strength(phase) * loss_db for dropout, loss_db in losses)
        reflections = self.reflections * amplitude(level_db)
        if self.lost is not None:
            reflections = self._without_lost_segment(self.lost, reflections, level_db, phase)
        reflections[self.blood] *= random_phases(len(self.blood), rng)
        valve_mm = leaflets(self.view.outline(phase), valve_opening(self.view, phase), _LEAFLET_POINTS)
        points_mm = [self.view.follow(self.places_mm, phase), self.view.to_scan(valve_mm, phase)]
        strengths = [reflections, self.leaflet_reflections]
        return echo_signal(np.concatenate(points_mm), np.concatenate(strengths), self.beams)

    def _without_lost_segment(
        self, lost: LostSegment, reflections: np.ndarray, level_db: np.ndarray, phase: float
    ) -> np.ndarray:
        """Turn the reflections (N,) of the segment's tissue into those of blood, as far as it is lost."""
        share = self.lost_weight * lost.loss(phase)
        fading = amplitude(-share * np.maximum(level_db - BLOOD_DB, 0.0))
        # Where blood has taken over, speckle changes from frame to frame as in the cavity.
        flowing = random_phases(len(share), self.lost_rng)
        return reflections * fading * np.where(share > 0.5, flowing, 1.0)


def leaflets(outline: ApicalOutline, opening: float, n_points: int) -> np.ndarray:
    """Return places on the two leaflets of the mitral valve.

    Args:
        outline: Outlines of the view.
        opening: 0 closed, leaflets from both sides meet in the annulus, to 1 open, they point at the apex.
        n_points: Places on each leaflet, from the annulus to its free edge.

    Returns:
        (2 * n_points, 2) places.
    """
    along = np.linspace(0.0, 1.0, n_points)
    bulge_mm = _LEAFLET_BULGE_MM * np.sin(np.pi * along)
    angle = _CLOSED_RAD + (_OPEN_RAD - _CLOSED_RAD) * opening
    places = []
    for side, length_share in ((-1, _LEFT_LEAFLET), (1, _RIGHT_LEAFLET)):
        length_mm = length_share * outline.annulus_mm * along
        level_mm = outline.length_mm - length_mm * math.sin(angle) + bulge_mm * math.cos(angle)
        from_axis_mm = outline.annulus_mm - length_mm * math.cos(angle) - bulge_mm * math.sin(angle)
        places.append(np.stack([level_mm, side * from_axis_mm], -1))
    return np.concatenate(places)


def valve_opening(view: ApicalView, phase: float) -> float:
    """Return how far the mitral valve is open at a phase, in [0, 1]: wide in fast filling, shut in systole."""
    heartbeat, step = view.heartbeat, 0.01
    filling = float(heartbeat.volume_share(phase + step) - heartbeat.volume_share(phase - step)) / (2 * step)
    # Early filling reaches about 4 ejection fractions per beat; from 3 on the valve is fully open.
    return math.sqrt(min(max(filling / (3 * heartbeat.ef_percent / 100), 0.0), 1.0))
