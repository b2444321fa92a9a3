"""A sector scanner with its faults: uneven gain, shadows, reverberations, noise and a limited range of grey values."""

from dataclasses import dataclass

import numpy as np

from nnunet_temporal.datasets.phantom.speckle import (
    BeamGrid,
    amplitude,
    draw_scatterers,
    echo_signal,
    log_compress,
    range_and_angle,
    receiver_noise,
)

# The receiver amplifies with depth, noise included.
_NOISE_RISE_DB = 12.0
_CLUTTER_FADING_DB_PER_MM = 0.4
_EDGE_LOSS_DB = 5.0
_SHADOW_PROBABILITY = 0.7
_SHADOW_ONSET = 0.04


@dataclass(frozen=True)
class Scanner:
    """The settings of a scan; levels in dB, 0 being the wall of the ventricle where it faces the probe.

    Attributes:
        beams: The samples of the scan.
        brightest_db: Level shown as white.
        range_db: Levels between black and white.
        depth_gain_db: How far the gain is off, at most, at a depth.
        depth_gain_waves: How often that error swings over the depth.
        depth_gain_shift: Where it starts to swing, in rad.
        noise_db: Level of the receiver's noise at the largest depth.
        clutter_db: Level of the reverberations at the probe.
    """

    beams: BeamGrid
    brightest_db: float
    range_db: float
    depth_gain_db: float
    depth_gain_waves: float
    depth_gain_shift: float
    noise_db: float
    clutter_db: float

    @classmethod
    def draw(cls, beams: BeamGrid, rng: np.random.Generator) -> "Scanner":
        """Draw the settings of a scan."""
        return cls(
            beams=beams,
            brightest_db=rng.uniform(13.0, 20.0),
            range_db=rng.uniform(44.0, 56.0),
            depth_gain_db=rng.uniform(0.0, 4.0),
            depth_gain_waves=rng.uniform(0.5, 1.5),
            depth_gain_shift=rng.uniform(0, 2 * np.pi),
            noise_db=rng.uniform(-36.0, -26.0),
            clutter_db=rng.uniform(-12.0, 0.0),
        )

    def draw_gain_db(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the gain of one view, (R, A) in dB: error along the depth, weak edges, often an acoustic shadow."""
        depth = self.beams.ranges_mm[:, None] / self.beams.depth_mm
        angle = self.beams.angles_rad / self.beams.half_angle_rad
        swing = np.sin(2 * np.pi * self.depth_gain_waves * depth + self.depth_gain_shift)
        gain_db = self.depth_gain_db * swing - _EDGE_LOSS_DB * np.abs(angle) ** 3
        if rng.random() < _SHADOW_PROBABILITY:
            gain_db = gain_db - _draw_shadow_db(depth, angle, rng)
        return gain_db

    def draw_clutter(self, rng: np.random.Generator) -> np.ndarray:
        """Draw the reverberations between probe and chest wall, which stand still: (R, A) complex signal."""
        points_mm, reflections = draw_scatterers(self.beams, rng)
        level_db = self.clutter_db - _CLUTTER_FADING_DB_PER_MM * range_and_angle(points_mm)[0]
        return echo_signal(points_mm, reflections * amplitude(level_db), self.beams)

    def grey_values(self, signal: np.ndarray, gain_db: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Amplify a signal (R, A), add the receiver's noise and compress: (R, A) grey values in [0, 255]."""
        depth = self.beams.ranges_mm[:, None] / self.beams.depth_mm
        noise = amplitude(self.noise_db - _NOISE_RISE_DB * (1 - depth)) * receiver_noise(self.beams, rng)
        return log_compress(np.abs(signal * amplitude(gain_db) + noise), self.brightest_db, self.range_db)


def _draw_shadow_db(depth: np.ndarray, angle: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the loss (R, A) in dB behind a rib or lung; depth (R, 1) and angle (A,) are shares of the sector's."""
    middle, width, start = rng.uniform(-1, 1), rng.uniform(0.1, 0.22), rng.uniform(0.05, 0.5)
    behind = 1 / (1 + np.exp(-(depth - start) / _SHADOW_ONSET))
    return rng.uniform(8.0, 20.0) * behind * np.exp(-(((angle - middle) / width) ** 2))
