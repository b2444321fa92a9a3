"""Overlap against hand-counted pixels."""

import math

import numpy as np
import pytest

from nnunet_temporal.metrics.overlap import (
    OverlapCounts,
    dice,
    iou,
    legacy_rowwise_dice,
    legacy_rowwise_iou,
    overlap_counts,
    pooled_dice,
)

# Two of the three pixels of the prediction are among the four of the reference; five are in either.
PREDICTION = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
REFERENCE = np.array([0, 1, 1, 1, 1, 0], dtype=bool)


def test_dice_of_two_of_three_and_two_of_four_pixels() -> None:
    assert dice(PREDICTION, REFERENCE) == pytest.approx(2 * 2 / (3 + 4))


def test_iou_of_two_shared_pixels_in_five() -> None:
    assert iou(PREDICTION, REFERENCE) == pytest.approx(2 / 5)


@pytest.mark.parametrize("metric", [dice, iou])
def test_overlap_of_a_mask_with_itself_is_one(metric) -> None:
    assert metric(PREDICTION, PREDICTION) == 1.0


@pytest.mark.parametrize("metric", [dice, iou])
def test_overlap_of_two_empty_masks_is_nan(metric) -> None:
    assert math.isnan(metric(np.zeros((2, 3), bool), np.zeros((2, 3), bool)))


@pytest.mark.parametrize("metric", [dice, iou])
@pytest.mark.parametrize("swap", [False, True])
def test_overlap_is_zero_when_one_mask_is_empty(metric, swap: bool) -> None:
    masks = [np.zeros(4, bool), np.ones(4, bool)]
    assert metric(*(masks[::-1] if swap else masks)) == 0.0


def test_overlap_counts_valid_voxels_only() -> None:
    prediction = np.array([1, 1, 1], dtype=bool)
    reference = np.array([1, 0, 0], dtype=bool)
    valid = np.array([True, True, False])
    assert dice(prediction, reference, valid) == pytest.approx(2 / 3)
    assert iou(prediction, reference, valid) == pytest.approx(1 / 2)


def test_overlap_is_nan_when_nothing_is_valid() -> None:
    assert math.isnan(dice(PREDICTION, REFERENCE, valid=np.zeros(6, bool)))


def test_dice_refuses_masks_of_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"reference must have the shape of prediction, \(2,\), got \(3,\)"):
        dice(np.zeros(2, bool), np.zeros(3, bool))


def test_dice_refuses_label_maps() -> None:
    with pytest.raises(ValueError, match="prediction must be a boolean mask, got dtype uint8"):
        dice(np.zeros(2, np.uint8), np.zeros(2, bool))


def test_the_counts_of_a_pair_are_its_pixels() -> None:
    assert overlap_counts(PREDICTION, REFERENCE) == OverlapCounts(intersection=2, prediction=3, reference=4)


def test_pooled_dice_weighs_large_masks_more_than_small_ones() -> None:
    large, small = OverlapCounts(90, 100, 100), OverlapCounts(0, 10, 10)
    assert pooled_dice([large, small]) == pytest.approx(2 * (90 + 0) / (200 + 20))  # the mean is (0.9 + 0) / 2


def test_pooled_dice_takes_the_counts_one_by_one_and_ignores_empty_pairs() -> None:
    assert pooled_dice(OverlapCounts(shared, 4, 4) for shared in (4, 2)) == pytest.approx(2 * 6 / 16)
    assert pooled_dice([OverlapCounts(2, 4, 4), OverlapCounts(0, 0, 0)]) == pytest.approx(0.5)


@pytest.mark.parametrize("counts", [[], [OverlapCounts(0, 0, 0)]])
def test_pooled_dice_of_nothing_is_nan(counts) -> None:
    assert math.isnan(pooled_dice(counts))


def test_each_label_is_counted_by_itself() -> None:
    prediction, reference = np.array([1, 1, 2, 0]), np.array([1, 2, 2, 2])
    counts = {label: overlap_counts(prediction == label, reference == label) for label in (1, 2)}
    assert counts == {1: OverlapCounts(1, 2, 1), 2: OverlapCounts(1, 1, 3)}


def test_the_legacy_rowwise_metrics_average_rows_and_score_empty_rows_as_one() -> None:
    prediction = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=bool)
    reference = np.array([[0, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=bool)
    # Rows: 2 shared of 3 + 2; none in either; 1 + 1 without a shared one. The smoothing of 1e-5 moves little.
    assert legacy_rowwise_dice(prediction, reference) == pytest.approx((4 / 5 + 1 + 0) / 3, abs=1e-5)
    assert legacy_rowwise_iou(prediction, reference) == pytest.approx((2 / 3 + 1 + 0) / 3, abs=1e-5)


def test_the_legacy_smoothing_is_a_hundred_thousandth() -> None:
    prediction, reference = np.array([[True, False]]), np.array([[False, True]])
    assert legacy_rowwise_dice(prediction, reference) == pytest.approx(1e-5 / (2 + 1e-5))
    assert legacy_rowwise_iou(prediction, reference) == pytest.approx(1e-5 / (2 + 1e-5))


def test_the_legacy_rowwise_metrics_refuse_volumes() -> None:
    with pytest.raises(ValueError, match=r"prediction must have the axes \(Y, X\), got shape \(1, 2, 2\)"):
        legacy_rowwise_dice(np.zeros((1, 2, 2), bool), np.zeros((1, 2, 2), bool))
