"""Scores of a study against hand-counted voxels."""

from dataclasses import replace

import numpy as np
import pytest

from nnunet_temporal.report.study_result import StudyResult
from nnunet_temporal.report.study_score import MeanMask, mean_mask, mean_mask_dice, score_study


def make_result() -> StudyResult:
    """Return 4 frames of 2 slices; slice 0 is labelled at ED (frame 0, 20 pixels) and ES (frame 2, 10 pixels)."""
    reference = np.zeros((4, 2, 10, 10), bool)
    reference[0, 0, :2] = reference[2, 0, :1] = True
    labelled = np.zeros((4, 2), bool)
    labelled[[0, 2], 0] = True
    image = np.zeros(reference.shape, np.float32)
    return StudyResult("s", image, reference.copy(), reference, labelled, ed=0, es=2, spacing_mm=(10.0, 2.0, 1.0))


def test_a_perfect_prediction_has_dice_one_and_the_experts_volumes():
    score = score_study(make_result())
    assert (score.dice_ed, score.dice_es, score.mean_dice) == (1.0, 1.0, 1.0)
    assert (score.edv_ml, score.esv_ml) == pytest.approx((0.4, 0.2))
    assert (score.edv_ml_reference, score.esv_ml_reference) == pytest.approx((0.4, 0.2))
    assert score.ef_percent == pytest.approx(50.0)


def test_pixels_in_slices_the_expert_did_not_draw_do_not_count():
    result = make_result()
    result.prediction[:, 1] = True
    score = score_study(result)
    assert score.mean_dice == 1.0
    assert score.edv_ml == pytest.approx(0.4)


def test_dice_is_averaged_over_ed_and_es():
    result = make_result()
    result.prediction[2] = False
    score = score_study(result)
    assert (score.dice_ed, score.dice_es, score.mean_dice) == (1.0, 0.0, 0.5)


def test_a_study_without_a_slice_labelled_in_both_phases_is_refused():
    result = make_result()
    result.labelled[2] = False
    with pytest.raises(ValueError, match=r"s: no slice is labelled at both ED \(frame 0\) and ES \(2\)"):
        score_study(result)


def test_the_mean_mask_keeps_pixels_set_in_half_of_all_labelled_slices():
    left, right, none = (np.array([[row]], bool) for row in ([1, 1, 0], [0, 1, 0], [0, 0, 0]))
    # ED: the pixels are set in 1, 2 and 0 of 3 slices; ES: in 1, 1 and 0 of 2
    trivial = mean_mask([(np.concatenate([left, right]), left), (none, none)])
    np.testing.assert_array_equal(trivial.ed, [[False, True, False]])
    np.testing.assert_array_equal(trivial.es, [[True, True, False]])


def test_the_mean_mask_of_no_study_is_refused():
    with pytest.raises(ValueError, match="at least one training study"):
        mean_mask([])


def test_the_mean_mask_of_studies_on_different_grids_is_refused():
    small, large = np.zeros((1, 2, 2), bool), np.zeros((1, 3, 3), bool)
    with pytest.raises(ValueError, match=r"one common \(Y, X\) grid"):
        mean_mask([(small, small), (large, large)])


def test_the_mean_mask_is_scored_over_the_labelled_slices():
    result = make_result()
    trivial = MeanMask(ed=result.reference[0, 0], es=np.zeros((10, 10), bool))
    assert mean_mask_dice(result, trivial) == pytest.approx(0.5)


def test_a_prediction_on_another_grid_is_refused():
    with pytest.raises(ValueError, match=r"s: prediction must be boolean of shape \(4, 2, 10, 10\), got bool of shape"):
        replace(make_result(), prediction=np.zeros((4, 2, 10, 9), bool))


def test_an_ed_frame_outside_the_study_is_refused():
    with pytest.raises(ValueError, match=r"s: ed must be a frame in 0\.\.3, got 4"):
        replace(make_result(), ed=4)
