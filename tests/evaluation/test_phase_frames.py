"""End diastole and end systole of a stack."""

import math

import numpy as np
import pytest
from mask_folders import IGNORE, LV_ONLY, make_stack, square

from nnunet_temporal.evaluation.phase_frames import find_phase_frames, frames_per_cycle, phase_errors

# Sides of the square in eight frames: largest in frame 1, smallest in frame 5.
SIDES = (6, 7, 6, 5, 4, 3, 4, 5)
BEAT = np.stack([square(1, 1, side) for side in SIDES])


def sparse(movie, frames):
    labels = np.full_like(movie, IGNORE)
    labels[frames] = movie[frames]
    return labels


def test_the_manifest_names_the_phases():
    phases = find_phase_frames(make_stack(BEAT, BEAT, ed=2, es=6), LV_ONLY)
    assert (phases.pair, phases.source) == ((2, 6), "manifest")


def test_without_a_manifest_the_dense_reference_shows_the_phases():
    phases = find_phase_frames(make_stack(BEAT * 0, BEAT), LV_ONLY)
    assert (phases.pair, phases.source) == ((1, 5), "reference_curve")


def test_without_a_manifest_the_larger_labelled_frame_is_end_diastole():
    phases = find_phase_frames(make_stack(BEAT, sparse(BEAT, [0, 4])), LV_ONLY)
    assert (phases.pair, phases.source) == ((0, 4), "labelled_frames")


def test_one_labelled_frame_shows_no_phases():
    phases = find_phase_frames(make_stack(BEAT, sparse(BEAT, [3])), LV_ONLY)
    assert (phases.pair, phases.source) == (None, "unknown")


def test_a_reference_that_does_not_move_shows_no_phases():
    still = np.stack([square(1, 1)] * 4)
    assert find_phase_frames(make_stack(still, still), LV_ONLY).source == "unknown"


def test_slices_are_compared_that_are_labelled_at_both_phases():
    reference = np.stack([sparse(BEAT, [1, 5]), sparse(BEAT, [1])], axis=1)
    stack = make_stack(np.stack([BEAT, BEAT], axis=1), reference, ed=1, es=5)
    assert find_phase_frames(stack, LV_ONLY).slices.tolist() == [True, False]


def test_a_slice_labelled_in_one_phase_only_does_not_choose_the_phases():
    # In slice 1 only frame 5 is labelled and large: summed up, frame 5 would look like end diastole.
    large = np.stack([square(0, 0, 11)] * 8)
    reference = np.stack([sparse(BEAT, [1, 5]), sparse(large, [5])], axis=1)
    assert find_phase_frames(make_stack(reference * 0, reference), LV_ONLY).pair == (1, 5)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [({"cyclic": True}, 8), ({"ed": 0, "es": 3}, 8), ({"ed": 5, "es": 0}, 8), ({}, math.nan)],
    ids=["cyclic", "systole is 3/8 of a beat", "diastole is 5/8", "unknown"],
)
def test_the_length_of_a_beat(fields, expected):
    still = np.stack([square(1, 1)] * 8)
    stack = make_stack(still, still, **fields)
    np.testing.assert_equal(frames_per_cycle(stack, find_phase_frames(stack, LV_ONLY)), expected)


def errors_of(prediction, **fields):
    stack = make_stack(prediction, BEAT, ed=1, es=5, **fields)
    return phase_errors(stack, find_phase_frames(stack, LV_ONLY), LV_ONLY)


def test_a_prediction_that_lags_misses_the_phases_by_frames_and_milliseconds():
    late = np.roll(BEAT, 2, axis=0)  # ED in frame 3, ES in frame 7
    errors = errors_of(late, cyclic=True, frame_interval_s=0.05)
    assert errors == {"ed_error_frames": 2, "ed_error_ms": 100, "es_error_frames": 2, "es_error_ms": 100}


def test_the_shorter_way_round_counts_in_cyclic_sequences():
    early = np.roll(BEAT, -2, axis=0)  # ED in frame 7, two frames before frame 1 of the next beat
    assert errors_of(early, cyclic=True)["ed_error_frames"] == 2


def test_milliseconds_need_a_frame_interval():
    assert set(errors_of(BEAT, cyclic=True)) == {"ed_error_frames", "es_error_frames"}


def test_the_predicted_phases_are_those_of_the_compared_slices():
    # Slice 0 is not labelled at ES; there the prediction beats the other way round, and larger.
    reference = np.stack([sparse(BEAT, [1]), BEAT], axis=1)
    prediction = np.stack([np.stack([square(0, 0, 12 - side) for side in SIDES]), BEAT], axis=1)
    stack = make_stack(prediction, reference, ed=1, es=5, cyclic=True)
    errors = phase_errors(stack, find_phase_frames(stack, LV_ONLY), LV_ONLY)
    assert errors == {"ed_error_frames": 0, "es_error_frames": 0}


def test_a_frozen_prediction_shows_no_phases():
    frozen = np.stack([BEAT[0]] * 8)
    assert errors_of(frozen, cyclic=True) == {"ed_error_frames": math.inf, "es_error_frames": math.inf}
