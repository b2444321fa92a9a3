"""Ultrasound speckle from point scatterers: what a sector scan makes of reflecting points that move.

Every scatterer returns a short pulse; pulses that overlap within the point-spread function add up with their phases,
and the size of the sum is speckle. Because it is made from the points, it moves, stretches and changes with the tissue
they are in. Everything happens in beam coordinates (range, angle), as in a scanner, so that speckle is as long as the
pulse and as wide as the beam, which widens with depth. Model: Wagner et al., IEEE Trans Sonics Ultrason 30(3), 1983.

The phase of a scatterer is drawn once and not followed along its path: the pulse of an image of a few hundred pixels is
several wavelengths longer than a real one, and would forget its pattern at strains that a real one keeps.

Points are (y, x) in mm: y the depth below the probe, x to the right of it.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d, map_coordinates

# Samples per pulse length and per beam width: enough for linear interpolation between them.
_SAMPLES_PER_WIDTH = 4.0
_SIGMA_SAMPLES = _SAMPLES_PER_WIDTH / math.sqrt(8 * math.log(2))
# Sharing a point linearly between neighbouring samples widens the spread by the variance of a triangle.
_SPREAD_VARIANCE = _SIGMA_SAMPLES**2 + 1 / 6
# Full speckle needs about ten scatterers per pulse length and beam width.
_SCATTERERS_PER_SAMPLE = 10 / _SAMPLES_PER_WIDTH**2
# Side lobes smear strong echoes across the beams, mostly seen as haze in blood: this many beam widths wide.
_SIDE_LOBE_WIDTH = 6.0
_SIDE_LOBE_AMPLITUDE = 0.15
# Scatterers reach beyond the sector, so that tissue moves in at its edges.
_MARGIN_MM = 20.0
_MARGIN_RAD = 0.15


@dataclass(frozen=True)
class BeamGrid:
    """The samples of a sector scan along its beams.

    Attributes:
        depth_mm: Largest range.
        half_angle_rad: Angle between the middle of the sector and its edge.
        pulse_mm: Length of the image of a point along the beam, full width at half maximum.
        beam_rad: Angle the image of a point fills across the beams, full width at half maximum.
    """

    depth_mm: float
    half_angle_rad: float
    pulse_mm: float
    beam_rad: float

    @property
    def ranges_mm(self) -> np.ndarray:
        """Range of every sample: (R,) mm, from the probe on."""
        return np.arange(math.ceil(self.depth_mm / self.range_step_mm) + 1) * self.range_step_mm

    @property
    def angles_rad(self) -> np.ndarray:
        """Angle of every beam: (A,), symmetric about 0; the outermost lie on the edges of the sector or beyond."""
        half = math.ceil(self.half_angle_rad / self.angle_step_rad)
        return np.arange(-half, half + 1) * self.angle_step_rad

    @property
    def range_step_mm(self) -> float:
        """Distance between the samples of a beam."""
        return self.pulse_mm / _SAMPLES_PER_WIDTH

    @property
    def angle_step_rad(self) -> float:
        """Angle between neighbouring beams."""
        return self.beam_rad / _SAMPLES_PER_WIDTH

    def sample_of(self, points_mm: np.ndarray) -> np.ndarray:
        """Return the fractional indices (range, angle) of points (..., 2), same shape."""
        ranges_mm, angles = range_and_angle(points_mm)
        return np.stack([ranges_mm / self.range_step_mm, angles / self.angle_step_rad + len(self.angles_rad) // 2], -1)

    def contains(self, points_mm: np.ndarray) -> np.ndarray:
        """Return for points (..., 2) whether they lie in the sector: (...), bool."""
        ranges_mm, angles = range_and_angle(points_mm)
        return (ranges_mm <= self.depth_mm) & (np.abs(angles) <= self.half_angle_rad)


def range_and_angle(points_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return range (mm) and angle (rad, positive to the right) of points (..., 2), each (...)."""
    y_mm, x_mm = points_mm[..., 0], points_mm[..., 1]
    return np.hypot(y_mm, x_mm), np.arctan2(x_mm, y_mm)


def draw_scatterers(beams: BeamGrid, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw scatterers that fill the sector and a margin around it with speckle of a mean intensity of 1.

    They are equally many per sample, not per mm²: speckle is fully developed at every depth, and as bright.

    Args:
        beams: The scan.
        rng: Source of all random numbers.

    Returns:
        Their places (N, 2) in mm and their reflections (N,), complex, to multiply by the tissue's amplitude.
    """
    far_mm, wide = beams.depth_mm + _MARGIN_MM, beams.half_angle_rad + _MARGIN_RAD
    n_samples = far_mm / beams.range_step_mm * 2 * wide / beams.angle_step_rad
    n_points = round(n_samples * _SCATTERERS_PER_SAMPLE)
    ranges_mm, angles = rng.uniform(0, far_mm, n_points), rng.uniform(-wide, wide, n_points)
    points_mm = np.stack([ranges_mm * np.cos(angles), ranges_mm * np.sin(angles)], -1)
    # A point of reflection 1 adds 1 / (4 pi variance) to the sum of intensities over all samples.
    scale = math.sqrt(4 * math.pi * _SPREAD_VARIANCE / _SCATTERERS_PER_SAMPLE)
    return points_mm, scale * random_phases(n_points, rng)


def random_phases(n_points: int, rng: np.random.Generator) -> np.ndarray:
    """Draw reflections of strength 1 and any phase: (N,) complex."""
    return np.exp(2j * np.pi * rng.random(n_points))


def amplitude(level_db: np.ndarray | float) -> np.ndarray:
    """Return the amplitude of a level in dB, any shape; 0 dB is 1."""
    return 10 ** (np.asarray(level_db) / 20)


def echo_signal(points_mm: np.ndarray, reflections: np.ndarray, beams: BeamGrid) -> np.ndarray:
    """Compute what the beams receive from point scatterers.

    Args:
        points_mm: (N, 2) places; those outside the scan are left out.
        reflections: (N,) strength and phase, complex or real.
        beams: The scan.

    Returns:
        (R, A) complex128 signal before detection; its absolute value is the envelope.
    """
    shape = (len(beams.ranges_mm), len(beams.angles_rad))
    signal = _spread_linearly(beams.sample_of(points_mm), reflections, shape)
    signal = gaussian_filter(signal, _SIGMA_SAMPLES, mode="constant")
    side_lobes = gaussian_filter1d(signal, _SIDE_LOBE_WIDTH * _SIGMA_SAMPLES, axis=1, mode="constant")
    # A quarter of a wave off the main lobe, so that both add up by intensity.
    return signal + 1j * _SIDE_LOBE_AMPLITUDE * side_lobes


def receiver_noise(beams: BeamGrid, rng: np.random.Generator) -> np.ndarray:
    """Draw the noise of the receiver: (R, A) complex, mean intensity 1, as long as the pulse, new in every beam."""
    shape = (len(beams.ranges_mm), len(beams.angles_rad))
    white = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / math.sqrt(2)
    # Smoothing leaves 1 / (2 sqrt(pi) sigma) of the intensity.
    scale = math.sqrt(2 * math.sqrt(math.pi) * _SIGMA_SAMPLES)
    return scale * gaussian_filter1d(white, _SIGMA_SAMPLES, axis=0, mode="wrap")


def log_compress(envelope: np.ndarray, brightest_db: float, range_db: float) -> np.ndarray:
    """Turn an envelope into grey values that are linear in dB.

    Args:
        envelope: Amplitudes >= 0 of any shape; 1 is 0 dB.
        brightest_db: Level shown as white.
        range_db: Levels from black to white, > 0.

    Returns:
        Grey values of the same shape in [0, 255].
    """
    level_db = 20 * np.log10(np.maximum(envelope, 1e-12))
    return 255 * np.clip(1 + (level_db - brightest_db) / range_db, 0, 1)


def scan_convert(polar: np.ndarray, beams: BeamGrid, points_mm: np.ndarray) -> np.ndarray:
    """Sample an image in beam coordinates at places of the scan plane.

    Args:
        polar: (R, A) values along the beams.
        beams: The scan.
        points_mm: (..., 2) places.

    Returns:
        (...) values, linearly interpolated; 0 outside the sector.
    """
    samples = np.moveaxis(beams.sample_of(points_mm), -1, 0)
    return np.where(beams.contains(points_mm), map_coordinates(polar, samples, order=1, mode="nearest"), 0.0)


def _spread_linearly(samples: np.ndarray, values: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Add each value to the four samples around it, in shares that fall linearly with the distance."""
    n_rows, n_columns = shape
    corner = np.floor(samples).astype(int)
    inside = ((corner >= 0) & (corner < (n_rows - 1, n_columns - 1))).all(axis=-1)
    (row, column), values = corner[inside].T, values[inside]
    down, right = (samples[inside] - corner[inside]).T
    total = np.zeros(n_rows * n_columns, complex)
    for step_down, step_right in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = (down if step_down else 1 - down) * (right if step_right else 1 - right)
        index = (row + step_down) * n_columns + column + step_right
        weighted = share * values
        total += np.bincount(index, weighted.real, total.size) + 1j * np.bincount(index, weighted.imag, total.size)
    return total.reshape(shape)
