from dataclasses import replace

import numpy as np
import pytest

from nnunet_temporal.datasets.phantom.scanner import Scanner
from nnunet_temporal.datasets.phantom.speckle import BeamGrid

BEAMS = BeamGrid(depth_mm=150.0, half_angle_rad=0.6, pulse_mm=3.0, beam_rad=0.04)
PLAIN = Scanner(
    beams=BEAMS,
    brightest_db=20.0,
    range_db=50.0,
    depth_gain_db=0.0,
    depth_gain_waves=1.0,
    depth_gain_shift=0.0,
    noise_db=-30.0,
    clutter_db=-10.0,
)


def with_settings(**settings):
    return replace(PLAIN, **settings)


def test_gain_is_weaker_at_the_edges_and_swings_with_depth():
    scanner = with_settings(depth_gain_db=3.0)
    # The largest of many views has no shadow anywhere.
    gain_db = np.max([scanner.draw_gain_db(np.random.default_rng(seed)) for seed in range(20)], axis=0)
    middle = len(BEAMS.angles_rad) // 2
    depth = BEAMS.ranges_mm / BEAMS.depth_mm
    assert gain_db[:, middle] == pytest.approx(3.0 * np.sin(2 * np.pi * depth), abs=1e-6)
    assert gain_db[:, 0] - gain_db[:, middle] == pytest.approx(
        -5.0 * (-BEAMS.angles_rad[0] / BEAMS.half_angle_rad) ** 3, abs=1e-6
    )


def test_a_shadow_darkens_everything_behind_its_start():
    scanner = with_settings()
    edges_db = -5.0 * np.abs(BEAMS.angles_rad / BEAMS.half_angle_rad) ** 3
    losses_db = [edges_db - scanner.draw_gain_db(np.random.default_rng(seed)) for seed in range(20)]
    shadows = [loss_db for loss_db in losses_db if loss_db.max() > 1]
    assert 8 <= len(shadows) < 20
    assert all((np.diff(loss_db, axis=0) >= -1e-9).all() for loss_db in shadows)
    assert all(loss_db[0].max() < 0.35 * loss_db[-1].max() for loss_db in shadows)


def test_clutter_is_strongest_at_the_probe():
    scanner = with_settings()
    clutter = np.abs(scanner.draw_clutter(np.random.default_rng(0)))
    rows = np.searchsorted(BEAMS.ranges_mm, [10.0, 60.0])
    near_db, far_db = (20 * np.log10(np.sqrt((clutter[row - 3 : row + 3] ** 2).mean())) for row in rows)
    # 50 mm deeper, 0.4 dB per mm.
    assert near_db - far_db == pytest.approx(20.0, abs=3.0)


def test_noise_rises_with_depth():
    shape = (len(BEAMS.ranges_mm), len(BEAMS.angles_rad))
    scanner = with_settings(noise_db=0.0)
    # White at 20 dB and black at -30 dB: 5.1 grey values per dB; the noise rises by 12 dB from the probe to the end.
    grey = scanner.grey_values(np.zeros(shape), np.zeros(shape), np.random.default_rng(0)).mean(axis=1)
    eighth = len(grey) // 8
    assert (grey[-eighth:].mean() - grey[:eighth].mean()) / 5.1 == pytest.approx(12.0 * 7 / 8, abs=1.0)


def test_gain_lifts_the_signal():
    shape = (len(BEAMS.ranges_mm), len(BEAMS.angles_rad))
    scanner = with_settings(noise_db=-200.0)
    # 0 dB is 153; 10 dB more is 204.
    for gain_db, expected in ((0.0, 153.0), (10.0, 204.0)):
        grey = scanner.grey_values(np.ones(shape), np.full(shape, gain_db), np.random.default_rng(0))
        assert grey == pytest.approx(expected)


def test_gain_leaves_the_noise():
    silence = np.zeros((len(BEAMS.ranges_mm), len(BEAMS.angles_rad)))
    quiet, loud = (PLAIN.grey_values(silence, silence + gain, np.random.default_rng(0)) for gain in (0.0, 40.0))
    assert quiet.max() > 0
    assert np.array_equal(quiet, loud)
