"""End diastole and end systole of drawn volume curves."""

import math

import numpy as np
import pytest

from nnunet_temporal.metrics.phases import (
    PeakRule,
    Phases,
    find_ed_es,
    frame_distance,
    frame_distance_ms,
    match_frames,
)


def cosine_ml(n_frames: int, frames_per_cycle: float, start: float = 0.0) -> np.ndarray:
    """A curve between 60 and 120 ml; ED at phase 0, ES at phase 0.5."""
    return 90 + 30 * np.cos(2 * np.pi * (start + np.arange(n_frames) / frames_per_cycle))


def test_every_beat_of_a_clip_is_found() -> None:
    phases = find_ed_es(cosine_ml(46, 20), frame_interval_s=0.05)
    assert phases == Phases(ed=(0, 20, 40), es=(10, 30))


def test_frames_per_cycle_serve_where_the_time_is_unknown() -> None:
    assert find_ed_es(cosine_ml(46, 20), frames_per_cycle=20) == Phases(ed=(0, 20, 40), es=(10, 30))


def test_a_cyclic_sequence_needs_no_rate_and_finds_a_peak_in_its_first_frame() -> None:
    assert find_ed_es(cosine_ml(24, 24), cyclic=True) == Phases(ed=(0,), es=(12,))
    assert find_ed_es(cosine_ml(24, 24, start=0.5), cyclic=True) == Phases(ed=(12,), es=(0,))


def test_a_cyclic_sequence_has_no_ends() -> None:
    # two bumps, the one in frame 0 only 70 % high: at the end of a clip it would not count
    curve = np.array([70, 35, 0, 0, 50, 100, 50, 0, 0, 35], float)
    assert find_ed_es(curve, cyclic=True, rule=PeakRule(shortest_beat_share=0.2)).ed == (0, 5)
    assert find_ed_es(curve, frames_per_cycle=10, rule=PeakRule(shortest_beat_share=0.2)).ed == (5,)


def test_a_clip_that_starts_within_systole_has_no_end_diastole_there() -> None:
    # phase 0.2: the first frame is the largest of its surroundings, yet 34 % of the range below the true peak
    assert find_ed_es(cosine_ml(40, 20, start=0.2), frames_per_cycle=20) == Phases(ed=(16, 36), es=(6, 26))


def test_half_a_cycle_has_its_phases_at_both_ends() -> None:
    assert find_ed_es(cosine_ml(11, 20), frames_per_cycle=20) == Phases(ed=(0,), es=(10,))


def test_the_atrial_kick_is_no_second_end_diastole() -> None:
    curve = np.array([120, 100, 80, 62, 60, 75, 95, 104, 103, 101, 100, 108, 116], float)
    twice = np.concatenate((curve, curve))
    assert find_ed_es(twice, frame_interval_s=0.06).ed == (0, 13, 25)
    assert 7 in find_ed_es(twice, frame_interval_s=0.06, rule=PeakRule(0.1, 0.1, prominence_share=0.05)).ed


def test_two_dips_of_one_systole_count_once() -> None:
    curve = cosine_ml(41, 40)
    curve[18] -= 3.0
    curve[22] -= 2.0
    assert find_ed_es(curve, frame_interval_s=0.02).es == (18,)


def test_the_shortest_beat_is_given_in_seconds() -> None:
    alternating = np.array([1, 0, 1, 0, 1, 0, 1], float)
    assert find_ed_es(alternating, frame_interval_s=0.15).es == (1, 3, 5)  # 0.3 s are 2 frames
    assert find_ed_es(alternating, frame_interval_s=0.1).es in ((1, 5), (3,))  # 0.3 s are 3 frames


def test_a_flat_curve_has_no_phases() -> None:
    assert find_ed_es(np.full(20, 80.0), frames_per_cycle=10) == Phases(ed=(), es=())


def test_a_beat_is_an_end_diastole_and_the_end_systole_that_follows_it() -> None:
    assert Phases(ed=(5, 25, 45, 65), es=(2, 15, 55, 75)).beats() == [(5, 15), (45, 55), (65, 75)]
    assert Phases(ed=(5,), es=(15, 25)).beats() == [(5, 15)]
    assert Phases(ed=(), es=(3,)).beats() == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "give frame_interval_s or frames_per_cycle"),
        ({"frame_interval_s": 0.0}, "frame_interval_s must be a positive number"),
        ({"frames_per_cycle": -3}, "frames_per_cycle must be a positive number"),
    ],
)
def test_phases_refuse_curves_without_a_usable_rate(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        find_ed_es(cosine_ml(20, 20), **arguments)


@pytest.mark.parametrize("curve", [np.array([]), np.ones((2, 3)), np.array([1.0, np.nan, 1.0])])
def test_phases_refuse_what_is_no_finite_curve(curve) -> None:
    with pytest.raises(ValueError, match="non-empty finite curve"):
        find_ed_es(curve, frames_per_cycle=10)


def test_distance_goes_the_short_way_round_in_a_cyclic_sequence() -> None:
    assert frame_distance(1, 28, frames_per_cycle=30) == 3  # min(27, 30 - 27)
    assert frame_distance(1, 28) == 27
    assert frame_distance(7, 4, frames_per_cycle=30) == 3


def test_distance_refuses_frames_outside_the_cycle() -> None:
    with pytest.raises(ValueError, match=r"frames must lie in 0\.\.29"):
        frame_distance(30, 4, frames_per_cycle=30)


def test_distance_in_ms_uses_the_true_interval() -> None:
    assert frame_distance_ms(3, 0.04) == pytest.approx(120.0)


def test_frames_of_several_beats_are_matched_to_the_nearest() -> None:
    errors = match_frames([3, 22, 48], [2, 21, 40])
    assert errors.frames == (1, 1, 8)
    assert (errors.missed, errors.extra) == (0, 0)


def test_beats_out_of_reach_are_missed_or_extra() -> None:
    errors = match_frames([3, 30], [2, 60], tolerance=10)
    assert errors.frames == (1,)
    assert (errors.missed, errors.extra) == (1, 1)


def test_one_predicted_frame_serves_one_reference_frame() -> None:
    errors = match_frames([10], [9, 12])
    assert errors.frames == (1,)
    assert (errors.missed, errors.extra) == (1, 0)


def test_one_reference_frame_takes_the_nearest_predicted_frame() -> None:
    errors = match_frames([12, 9], [10])
    assert errors.frames == (1,)
    assert (errors.missed, errors.extra) == (0, 1)


def test_matching_is_cyclic_where_the_sequence_is() -> None:
    assert match_frames([29], [1], frames_per_cycle=30).frames == (2,)


def test_nothing_predicted_is_all_missed() -> None:
    errors = match_frames([], [4, 9], tolerance=math.inf)
    assert (errors.frames, errors.missed, errors.extra) == ((), 2, 0)
