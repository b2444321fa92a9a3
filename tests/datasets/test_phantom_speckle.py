import math

import numpy as np
import pytest

from nnunet_temporal.datasets.phantom.speckle import (
    BeamGrid,
    amplitude,
    draw_scatterers,
    echo_signal,
    log_compress,
    random_phases,
    range_and_angle,
    receiver_noise,
    scan_convert,
)

BEAMS = BeamGrid(depth_mm=120.0, half_angle_rad=0.6, pulse_mm=2.0, beam_rad=0.04)


def point_at(range_mm, angle_rad):
    return np.array([[range_mm * math.cos(angle_rad), range_mm * math.sin(angle_rad)]])


def uniform_signal(seed=0):
    return echo_signal(*draw_scatterers(BEAMS, np.random.default_rng(seed)), BEAMS)


def width_at_half_maximum(profile):
    # Linear interpolation between the samples on both sides of the half maximum.
    profile = profile / profile.max()
    above = np.flatnonzero(profile >= 0.5)
    first, last = above[0], above[-1]
    left = first - (profile[first] - 0.5) / (profile[first] - profile[first - 1])
    right = last + (profile[last] - 0.5) / (profile[last] - profile[last + 1])
    return right - left


def test_four_samples_make_a_pulse_and_four_beams_a_beam_width():
    assert BEAMS.range_step_mm == pytest.approx(0.5)
    assert BEAMS.angle_step_rad == pytest.approx(0.01)


def test_the_samples_cover_the_sector():
    # 120 / 0.5 = 240 steps; 0.6 / 0.01 = 60 steps to each side.
    assert BEAMS.ranges_mm[[0, -1]] == pytest.approx([0.0, 120.0])
    assert BEAMS.angles_rad[[0, 60, -1]] == pytest.approx([-0.6, 0.0, 0.6])
    assert len(BEAMS.ranges_mm) == 241
    assert len(BEAMS.angles_rad) == 121


def test_range_and_angle_of_a_point_to_the_lower_right():
    # A 3-4-5 triangle: 40 mm down, 30 mm to the right.
    ranges_mm, angles = range_and_angle(np.array([40.0, 30.0]))
    assert ranges_mm == pytest.approx(50.0)
    assert angles == pytest.approx(math.atan(0.75))


def test_a_point_has_the_sample_of_its_range_and_angle():
    # 50 / 0.5 = 100; 0.1 / 0.01 = 10 beams to the right of the middle one, 60.
    assert BEAMS.sample_of(point_at(50.0, 0.1))[0] == pytest.approx([100.0, 70.0])


@pytest.mark.parametrize(
    ("range_mm", "angle", "inside"), [(119, 0.59, True), (121, 0.0, False), (60, 0.61, False), (60, -0.61, False)]
)
def test_the_sector_ends_at_its_depth_and_at_its_edges(range_mm, angle, inside):
    assert BEAMS.contains(point_at(range_mm, angle))[0] == inside


@pytest.mark.parametrize("range_mm", [40.0, 100.0])
def test_the_image_of_a_point_is_as_long_as_the_pulse_and_as_wide_as_the_beam(range_mm):
    # The point lies on a sample, so linear sharing does not widen it.
    envelope = np.abs(echo_signal(point_at(range_mm, 0.1), np.ones(1), BEAMS))
    row, column = np.unravel_index(envelope.argmax(), envelope.shape)
    assert (row, column) == (range_mm / 0.5, 70)
    assert width_at_half_maximum(envelope[:, column]) * 0.5 == pytest.approx(2.0, rel=0.03)
    assert width_at_half_maximum(envelope[row]) * 0.01 == pytest.approx(0.04, rel=0.03)


def test_a_point_between_samples_is_seen_between_them():
    envelope = np.abs(echo_signal(point_at(50.2, 0.107), np.ones(1), BEAMS))
    rows, columns = np.indices(envelope.shape)
    # 50.2 / 0.5 = 100.4; 60 + 0.107 / 0.01 = 70.7.
    assert (rows * envelope).sum() / envelope.sum() == pytest.approx(100.4, abs=1e-6)
    assert (columns * envelope).sum() / envelope.sum() == pytest.approx(70.7, abs=0.01)


def test_side_lobes_smear_a_strong_echo_across_the_beams_only():
    envelope = np.abs(echo_signal(point_at(50.0, 0.0), np.ones(1), BEAMS))
    peak = envelope[100, 60]
    # Three beam or pulse widths away nothing is left of the main lobe: 0.5 ** 36 < 1e-10.
    assert 0.005 < envelope[100, 72] / peak < 0.05
    assert envelope[112, 60] / peak < 1e-6


def test_echoes_add_up_with_their_phases():
    place = point_at(50.0, 0.0)
    both = echo_signal(np.concatenate([place, place]), np.array([1.0, -1.0]), BEAMS)
    assert np.abs(both).max() < 1e-12


def test_a_point_outside_the_scan_is_left_out():
    outside = np.concatenate([point_at(140.0, 0.0), point_at(50.0, 0.9), point_at(50.0, -0.9)])
    assert not echo_signal(outside, np.ones(3), BEAMS).any()


def test_uniform_tissue_is_equally_bright_at_every_depth():
    intensity = np.mean([np.abs(uniform_signal(seed)) ** 2 for seed in range(4)], axis=0)[8:-8, 12:-12]
    near, middle, far = (part.mean() for part in np.array_split(intensity, 3))
    assert [near, middle, far] == pytest.approx([1.0, 1.0, 1.0], abs=0.08)


def test_uniform_tissue_has_the_contrast_of_fully_developed_speckle():
    # The envelope is Rayleigh distributed: mean over standard deviation is sqrt(pi / (4 - pi)) = 1.913.
    envelope = np.abs(uniform_signal())[8:-8, 12:-12]
    assert envelope.mean() / envelope.std() == pytest.approx(1.913, abs=0.1)


def test_speckle_moves_with_its_scatterers():
    points_mm, reflections = draw_scatterers(BEAMS, np.random.default_rng(1))
    ranges_mm, angles = range_and_angle(points_mm)
    # Six samples, 3 mm, away from the probe and three beams to the right.
    moved_mm = np.concatenate([point_at(r + 3.0, a + 0.03) for r, a in zip(ranges_mm, angles, strict=True)])
    before = np.abs(echo_signal(points_mm, reflections, BEAMS))
    after = np.abs(echo_signal(moved_mm, reflections, BEAMS))
    # Away from the edges, past which scatterers come and go: 45 beams hold all but the ends of the side lobes.
    assert np.allclose(after[16:-10, 48:-45], before[10:-16, 45:-48], rtol=1e-2, atol=1e-2)


def test_receiver_noise_has_unit_intensity_and_differs_from_beam_to_beam():
    noise = receiver_noise(BEAMS, np.random.default_rng(0))
    assert (np.abs(noise) ** 2).mean() == pytest.approx(1.0, abs=0.05)
    along = (noise[1:] * noise[:-1].conj()).mean().real
    across = (noise[:, 1:] * noise[:, :-1].conj()).mean().real
    # Neighbours along a beam: exp(-1 / (4 sigma ** 2)) with sigma = 4 / 2.355 samples, 0.917.
    assert along == pytest.approx(0.917, abs=0.05)
    assert across == pytest.approx(0.0, abs=0.05)


def test_random_phases_have_strength_one_and_point_everywhere():
    reflections = random_phases(20000, np.random.default_rng(0))
    assert np.abs(reflections) == pytest.approx(1.0)
    assert abs(reflections.mean()) < 0.02


def test_twenty_db_are_an_amplitude_of_ten():
    assert amplitude(np.array([0.0, 20.0, -40.0])) == pytest.approx([1.0, 10.0, 0.01])


def test_grey_values_are_linear_in_db():
    # White at 20 dB, black at -30 dB: 0 dB is 255 * 30 / 50 = 153, 10 dB is 255 * 40 / 50 = 204.
    envelope = np.array([0.0, 0.001, 1.0, math.sqrt(10.0), 10.0, 100.0])
    assert log_compress(envelope, 20.0, 50.0) == pytest.approx([0.0, 0.0, 153.0, 204.0, 255.0, 255.0])


def test_scan_conversion_keeps_what_is_linear_in_beam_coordinates():
    polar = BEAMS.ranges_mm[:, None] + 100 * BEAMS.angles_rad
    points_mm = np.array([[44.0, 30.0], [77.7, -12.3]])
    ranges_mm, angles = range_and_angle(points_mm)
    assert scan_convert(polar, BEAMS, points_mm) == pytest.approx(ranges_mm + 100 * angles)


def test_scan_conversion_is_zero_outside_the_sector():
    points_mm = np.array([[130.0, 0.0], [20.0, 50.0], [-5.0, 0.0]])
    assert scan_convert(np.ones((241, 121)), BEAMS, points_mm).tolist() == [0.0, 0.0, 0.0]


def test_one_seed_repeats_and_two_differ():
    assert np.array_equal(uniform_signal(3), uniform_signal(3))
    assert not np.allclose(uniform_signal(3), uniform_signal(4))
