"""How the heart of a cine phantom looks: drawn per study, painted by ``cine_image``."""

import math
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.datasets.phantom.short_axis import Heart


@dataclass(frozen=True)
class Waves:
    """A wavy function of the angle around the heart, with mean 0 and standard deviation 1.

    Attributes:
        numbers: Number of ripples of each wave.
        phases: Their phases at height 0, in radians.
        twists: By how much the phases change per mm of height.
    """

    numbers: tuple[int, ...]
    phases: tuple[float, ...]
    twists: tuple[float, ...]

    def at(self, angle: np.ndarray, z_mm: float) -> np.ndarray:
        """Return the function's values at angles of any shape and float type, at a height."""
        waves = zip(self.numbers, self.phases, self.twists, strict=True)
        ripples = [np.sin(number * angle + (phase + twist * z_mm)) for number, phase, twist in waves]
        return np.sum(ripples, axis=0) * math.sqrt(2 / len(self.numbers))


@dataclass(frozen=True)
class CineLook:
    """How one study looks; grey values are relative to blood.

    Attributes:
        muscle: Grey value of the left ventricle's wall.
        fat_mm: Mean thickness of the fat around the heart.
        fat_waves: How it varies.
        trabeculae_mm: How deep they reach into the left cavity, and into the right one.
        trabeculae_waves: Where they are.
        papillary_angles: Directions of the two papillary muscles, in radians.
        papillary_mm: Their radius.
        outflow: Direction, distance and radius (rad, mm, mm) of the right ventricle's outflow tract above the base.
        flow: Strength of the mottles that flowing blood shows.
        noise: Standard deviation of the noise in each of the two channels of the receiver.
        blur_pixels: Width of the point-spread function.
        coil: Four coefficients of the receiver's sensitivity: x, y, x^2 + y^2, x y, with x and y in -1..1.
        gain: Grey value that blood is stored with.
    """

    muscle: float
    fat_mm: float
    fat_waves: Waves
    trabeculae_mm: tuple[float, float]
    trabeculae_waves: Waves
    papillary_angles: tuple[float, float]
    papillary_mm: float
    outflow: tuple[float, float, float]
    flow: float
    noise: float
    blur_pixels: float
    coil: np.ndarray
    gain: float


def draw_cine_look(heart: Heart, rng: np.random.Generator) -> CineLook:
    """Draw the look of a study; the papillary muscles stand away from the septum."""
    rv_angle, radius_mm = heart.right.shape.angle, float(heart.left.outer_radius_mm.max())
    return CineLook(
        muscle=rng.uniform(0.2, 0.32),
        fat_mm=rng.uniform(4.0, 9.0),
        fat_waves=_draw_waves((1, 2), rng),
        trabeculae_mm=(rng.uniform(0.8, 1.8), rng.uniform(1.5, 3.0)),
        trabeculae_waves=_draw_waves((5, 8, 11, 13, 17), rng),
        papillary_angles=(rv_angle + rng.uniform(1.9, 2.4), rv_angle - rng.uniform(1.9, 2.4)),
        papillary_mm=rng.uniform(3.0, 5.0),
        outflow=(rv_angle + rng.uniform(0.9, 1.3), radius_mm + rng.uniform(8, 14), rng.uniform(10, 14)),
        flow=rng.uniform(0.02, 0.08),
        noise=rng.uniform(0.015, 0.05),
        blur_pixels=rng.uniform(0.45, 0.65),
        coil=rng.normal((-0.1, -0.35, 0.0, 0.0), (0.2, 0.2, 0.15, 0.1)),
        gain=rng.uniform(250, 900),
    )


def _draw_waves(numbers: tuple[int, ...], rng: np.random.Generator) -> Waves:
    n_waves = len(numbers)
    phases, twists = rng.uniform(0, 2 * math.pi, n_waves), rng.uniform(-0.1, 0.1, n_waves)
    return Waves(numbers, tuple(phases.tolist()), tuple(twists.tolist()))
