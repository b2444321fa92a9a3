"""Figures of single sequences."""

import math

import numpy as np
import pytest
from mask_folders import IGNORE, LV_ONLY, make_stack, square

from nnunet_temporal.evaluation.frame_rows import measure_frames, structure_movies
from nnunet_temporal.evaluation.options import POOLED_DICE, Options
from nnunet_temporal.evaluation.phase_frames import find_phase_frames
from nnunet_temporal.evaluation.sequence_rows import measure_sequence

BEAT = np.stack([square(1, 1, side) for side in (6, 7, 6, 5, 4, 3, 4, 5)])


def row_of(prediction, reference, options=None, **fields):
    stack, options = make_stack(prediction, reference, **fields), options or Options()
    movie, phases = next(structure_movies(stack, LV_ONLY)), find_phase_frames(stack, LV_ONLY)
    frames = measure_frames(stack, movie, phases, LV_ONLY, options)
    return measure_sequence(stack, movie, frames, phases, LV_ONLY, options)


def sparse(movie, frames):
    labels = np.full_like(movie, IGNORE)
    labels[frames] = movie[frames]
    return labels


def test_means_run_over_the_frames():
    reference = np.stack([square(2, 3)] * 2)
    row = row_of(np.stack([square(2, 3), square(2, 4)]), reference)
    assert row["dice"] == (1 + 0.75) / 2
    assert row["hd_mm"] == (0 + 1) / 2


def test_a_missing_structure_counts_as_no_overlap_and_is_named_beside_the_distance():
    reference = np.stack([square(2, 3)] * 3)
    row = row_of(np.stack([square(2, 3), square(0, 0, 0), square(2, 4)]), reference)
    assert row["dice"] == pytest.approx((1 + 0 + 0.75) / 3)
    assert row["hd_mm"] == (0 + 1) / 2
    assert row["missing_frames"] == 1


def test_a_frozen_mask_does_not_flicker_but_shows_none_of_the_change():
    row = row_of(np.stack([BEAT[0]] * 8), BEAT, cyclic=True)
    assert row["pixel_flicker_predicted_percent"] == row["area_roughness_predicted_percent"] == 0
    assert row["boundary_jitter_predicted_mm"] == row["cyclicity_error_predicted_percent"] == 0
    assert row["area_change_against_truth"] == 0
    assert row["temporal_dice_gain"] > 0


def test_the_change_is_judged_between_the_labelled_frames():
    prediction = BEAT.copy()
    prediction[5] = square(1, 1, 5)
    row = row_of(prediction, sparse(BEAT, [1, 5]))
    # 7 x 7 to 5 x 5 pixels, where the reference goes from 7 x 7 to 3 x 3.
    assert row["area_change_against_truth"] == (49 - 25) / (49 - 9)


def test_roughness_is_that_of_the_areas():
    prediction = np.stack([square(1, 1, side) for side in (2, 4, 2)])
    row = row_of(prediction, np.stack([square(1, 1)] * 3))
    # Areas 4, 16, 4: the second difference |4 - 32 + 4| = 24 over the mean of 8.
    assert row["area_roughness_predicted_percent"] == 100 * 24 / 8
    assert row["area_roughness_reference_percent"] == 0


def test_temporal_figures_of_a_sparse_reference_do_not_exist():
    row = row_of(BEAT, sparse(BEAT, [1, 5]))
    assert row["labelled_frames"] == 2
    assert not [name for name in row if "reference" in name]
    assert "temporal_dice_gain" not in row


def test_one_wrong_frame_of_a_smooth_beat_is_inconsistent_with_its_neighbours():
    sides = np.rint(40 + 10 * np.cos(2 * np.pi * np.arange(25) / 25)).astype(int)
    beat = np.stack([square(5, 5, side, shape=(70, 70)) for side in sides])
    broken = beat.copy()
    broken[7] = square(5, 5, 60, shape=(70, 70))
    row = row_of(broken, beat, cyclic=True)
    assert row["inconsistent_ventricle_area_reference_share"] == 0
    # The wrong frame and its two neighbours.
    assert row["inconsistent_ventricle_area_predicted_share"] == 3 / 25


@pytest.mark.parametrize("fields", [{"cyclic": False}, {"cyclic": True, "pixel_mm": None}])
def test_consistency_needs_millimetres_and_the_length_of_a_beat(fields):
    still = np.stack([square(1, 1)] * 4)
    assert not [name for name in row_of(still, still, **fields) if "inconsistent" in name]


def test_frames_where_the_structure_vanishes_are_counted_in_the_jitter():
    prediction = np.stack([square(2, 3), square(0, 0, 0), square(2, 3), square(2, 4)])
    row = row_of(prediction, np.stack([square(2, 3)] * 4))
    # Frames 0, 1 and 2 have a neighbour without a counterpart; frame 3 moved by one pixel.
    assert row["boundary_jitter_missing_predicted_frames"] == 3
    assert row["boundary_jitter_predicted_mm"] == 1


def test_dice_is_pooled_over_the_frames_on_request():
    reference = np.stack([square(2, 3), square(2, 3, 2)])
    prediction = np.stack([square(2, 3), square(0, 0, 0)])
    # Shared 16 + 0, sizes 32 + 4; the mean over the frames would be 0.5.
    assert row_of(prediction, reference, Options(compat=(POOLED_DICE,)))["dice_pooled"] == 2 * 16 / 36


def test_a_sequence_without_any_label_has_no_scores():
    row = row_of(BEAT, np.full_like(BEAT, IGNORE))
    assert "dice" not in row
    assert row["labelled_frames"] == 0
    assert math.isfinite(row["area_roughness_predicted_percent"])
