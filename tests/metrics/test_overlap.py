"""Dice against hand-counted pixels."""

import math

import numpy as np
import pytest

from nnunet_temporal.metrics.overlap import dice, dice_per_label


def test_dice_of_two_of_three_and_two_of_four_pixels() -> None:
    prediction = np.array([1, 1, 1, 0, 0, 0], dtype=bool)
    reference = np.array([0, 1, 1, 1, 1, 0], dtype=bool)
    assert dice(prediction, reference) == pytest.approx(2 * 2 / (3 + 4))


def test_dice_of_two_empty_masks_is_nan() -> None:
    assert math.isnan(dice(np.zeros((2, 3), bool), np.zeros((2, 3), bool)))


@pytest.mark.parametrize("swap", [False, True])
def test_dice_is_zero_when_one_mask_is_empty(swap: bool) -> None:
    masks = [np.zeros(4, bool), np.ones(4, bool)]
    assert dice(*(masks[::-1] if swap else masks)) == 0.0


def test_dice_counts_valid_voxels_only() -> None:
    prediction = np.array([1, 1, 1], dtype=bool)
    reference = np.array([1, 0, 0], dtype=bool)
    assert dice(prediction, reference, valid=np.array([True, True, False])) == pytest.approx(2 / 3)


def test_dice_refuses_masks_of_other_shapes() -> None:
    with pytest.raises(ValueError, match=r"reference must have the shape of prediction, \(2,\), got \(3,\)"):
        dice(np.zeros(2, bool), np.zeros(3, bool))


def test_dice_refuses_label_maps() -> None:
    with pytest.raises(ValueError, match="prediction must be a boolean mask, got dtype uint8"):
        dice(np.zeros(2, np.uint8), np.zeros(2, bool))


def test_dice_per_label_leaves_out_ignored_voxels() -> None:
    prediction = np.array([1, 1, 2, 2])
    reference = np.array([1, 3, 2, 1])
    assert dice_per_label(prediction, reference, (1, 2), ignore_label=3) == pytest.approx({1: 2 / 3, 2: 2 / 3})
