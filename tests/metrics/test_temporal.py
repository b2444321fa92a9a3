"""Flicker measures against hand computation."""

import math

import numpy as np
import pytest

from nnunet_temporal.metrics.temporal import area_roughness_percent, pixel_flicker_percent


def test_a_straight_area_curve_is_not_rough() -> None:
    assert area_roughness_percent(np.array([10, 20, 30, 40])) == 0.0


def test_roughness_of_one_bump_is_counted_by_hand() -> None:
    # second differences |10 - 24 + 10| = 4 and |12 - 20 + 10| = 2; mean 3; mean area 10.5
    assert area_roughness_percent(np.array([10, 12, 10, 10])) == pytest.approx(100 * 3 / 10.5)


def test_cyclic_roughness_joins_the_last_frame_to_the_first() -> None:
    # the jump from 30 back to 10 adds 30 + 20 - 20 = 30 in the first frame and 20 + 10 - 60 = -30 in the last one
    assert area_roughness_percent(np.array([10, 20, 30]), cyclic=True) == pytest.approx(100 * (30 + 0 + 30) / 3 / 20)


def test_cyclic_roughness_of_an_alternating_mask_is_at_its_limit() -> None:
    assert area_roughness_percent(np.array([0, 7, 0, 7]), cyclic=True) == pytest.approx(400.0)


def test_roughness_pools_the_slices() -> None:
    areas = np.array([[100, 0], [100, 2], [100, 0]])
    assert area_roughness_percent(areas) == pytest.approx(100 * (0 + 4) / (100 + 2 / 3))


@pytest.mark.parametrize("areas", [np.array([5, 6]), np.zeros(5)])
def test_roughness_is_nan_without_three_frames_or_without_area(areas: np.ndarray) -> None:
    assert math.isnan(area_roughness_percent(areas))


def test_roughness_refuses_negative_areas() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        area_roughness_percent(np.array([1, -1, 1]))


def test_one_pixel_that_blinks_once_is_counted_against_the_mask() -> None:
    masks = np.zeros((4, 1, 5), bool)
    masks[:, 0, :3] = True
    masks[1, 0, 4] = True
    # one flickering pixel in two inner frames; 13 mask pixels in four frames
    assert pixel_flicker_percent(masks) == pytest.approx(100 * (1 / 2) / (13 / 4))


def test_a_pixel_that_changes_for_good_does_not_flicker() -> None:
    masks = np.zeros((4, 1, 5), bool)
    masks[2:, 0, :3] = True
    assert pixel_flicker_percent(masks) == 0.0


def test_cyclic_flicker_sees_a_blink_in_the_first_frame() -> None:
    masks = np.zeros((4, 1, 5), bool)
    masks[:, 0, 0] = True
    masks[0, 0, 1] = True
    assert pixel_flicker_percent(masks) == 0.0
    assert pixel_flicker_percent(masks, cyclic=True) == pytest.approx(100 * (1 / 4) / (5 / 4))


@pytest.mark.parametrize("masks", [np.ones((2, 3, 3), bool), np.zeros((5, 3, 3), bool)])
def test_flicker_is_nan_without_three_frames_or_without_a_mask(masks: np.ndarray) -> None:
    assert math.isnan(pixel_flicker_percent(masks))


def test_flicker_refuses_label_maps() -> None:
    with pytest.raises(ValueError, match="masks must be boolean"):
        pixel_flicker_percent(np.ones((3, 2, 2), np.uint8))
