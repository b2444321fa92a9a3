"""Figures of whole studies."""

import math

import numpy as np
import pytest
from mask_folders import IGNORE, LV_ONLY, SCHEME, make_stack, square

from nnunet_temporal.evaluation.options import Options
from nnunet_temporal.evaluation.phase_frames import find_phase_frames
from nnunet_temporal.evaluation.study_rows import measure_study_rows


def rows_of(*stacks, labels=LV_ONLY):
    phases = [find_phase_frames(stack, labels) for stack in stacks]
    return measure_study_rows("s", stacks, phases, labels, Options())


def slices(*frames, left=1):
    return np.stack([np.stack([square(1, left, side) for side in sides]) for sides in frames])


def stack_of(prediction, reference, **fields):
    return make_stack(prediction, reference, **{"ed": 0, "es": 1, "slice_spacing_mm": 10.0} | fields)


def test_dice_of_a_phase_is_that_of_all_its_slices_together():
    (row,) = rows_of(stack_of(slices((4, 0), (2, 2)), slices((4, 2), (2, 2))))
    # Shared 16 voxels of 16 and 20, where the mean over the slices would be 0.5.
    assert row["dice_ed"] == pytest.approx(2 * 16 / 36)
    assert row["dice_es"] == 1


def test_distances_of_a_phase_run_across_slices():
    (row,) = rows_of(stack_of(slices((4, 0), (2, 2)), slices((4, 4), (2, 2))))
    # The second slice has no prediction: its pixels are 10 mm from those of the first.
    assert row["hd_ed_mm"] == 10
    assert row["hd_es_mm"] == 0


def test_slices_that_nobody_labelled_are_not_scored():
    reference = slices((4, 4), (2, 2))
    reference[0, 1] = IGNORE
    (row,) = rows_of(stack_of(slices((4, 5), (2, 2)), reference))
    assert row["dice_ed"] == 1
    assert row["compared_slices"] == 1


def test_a_gap_between_slices_leaves_dice_only():
    stack = stack_of(slices((4, 4), (2, 2)), slices((4, 4), (2, 2)))
    object.__setattr__(stack.sequences[1], "slice", 2)
    (row,) = rows_of(stack)
    assert row["dice_ed"] == 1
    assert not [name for name in row if name.startswith("hd")]


def test_a_missing_structure_is_infinite():
    (row,) = rows_of(stack_of(slices((0, 0), (2, 2)), slices((4, 4), (2, 2))))
    assert (row["dice_ed"], row["hd95_ed_mm"]) == (0, math.inf)


def test_scores_of_a_phase_are_averaged_over_views():
    good, shifted = square(2, 3), square(2, 4)
    movie = np.stack([good, square(2, 3, 2)])
    first = make_stack(movie, movie, view="2CH", ed=0, es=1)
    second = make_stack(np.stack([shifted, square(2, 3, 2)]), movie, view="4CH", ed=0, es=1)
    (row,) = rows_of(first, second)
    assert row["dice_ed"] == (1 + 0.75) / 2
    assert row["hd_ed_mm"] == (0 + 1) / 2


def test_long_axis_views_beside_a_stack_do_not_enter_its_figures():
    movie = np.stack([square(2, 3), square(2, 3, 2)])
    view = make_stack(movie * 0, movie, view="4CH", ed=0, es=1)
    (row,) = rows_of(view, stack_of(slices((4, 4), (2, 2)), slices((4, 4), (2, 2))))
    assert row["volume_method"] == "slice_summation"
    assert (row["dice_ed"], row["slices"]) == (1, 2)


def test_flicker_is_pooled_over_the_compared_slices():
    prediction = slices((2, 2), (4, 4), (2, 2))
    reference = slices((4, 4), (2, 2), (4, 4))
    reference[0, 1] = IGNORE
    (row,) = rows_of(stack_of(prediction, reference))
    # Slice 0 alone: areas 4, 16, 4, so 24 over a mean of 8; 12 pixels flicker in one frame.
    assert row["area_roughness_predicted_percent"] == pytest.approx(100 * 24 / 8)
    assert row["pixel_flicker_predicted_percent"] == pytest.approx(100 * 12 / 8)


def test_the_reference_has_temporal_figures_when_it_is_dense_only():
    dense = slices((4, 4), (2, 2), (4, 4))
    sparse = dense.copy()
    sparse[2] = IGNORE
    assert "temporal_dice_gain" in rows_of(stack_of(dense, dense))[0]
    assert "temporal_dice_gain" not in rows_of(stack_of(dense, sparse))[0]


def test_phase_errors_stand_with_the_ventricle():
    movie = slices((4, 4), (2, 2), (3, 3), (3, 3))
    rows = {row["label"]: row for row in rows_of(stack_of(movie, movie, cyclic=True), labels=SCHEME)}
    assert rows["LV"]["ed_error_frames"] == rows["LV"]["es_error_frames"] == 0
    assert "ed_error_frames" not in rows["EPI"]


def test_the_variation_of_the_wall_needs_no_truth():
    wall = slices((2, 2), (4, 4)) * 2
    rows = {row["label"]: row for row in rows_of(stack_of(wall, np.where(wall > 9, 9, wall)), labels=SCHEME)}
    # Volumes 8 and 32 voxels: standard deviation 12 over the mean of 20.
    assert rows["MYO"]["mass_variation_predicted_percent"] == pytest.approx(60)
    assert "mass_variation_predicted_percent" not in rows["LV"]
