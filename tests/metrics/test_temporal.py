"""Flicker measures against hand computation."""

import math

import numpy as np
import pytest

from nnunet_temporal.metrics.temporal import (
    area_change_against_truth,
    area_roughness_percent,
    boundary_jitter,
    cyclicity_error_percent,
    dice_to_next_frame,
    mass_mismatch_percent,
    mass_variation_percent,
    pixel_flicker_percent,
    stroke_volume_gap_percent,
    temporal_dice_gain,
)


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


def movie(*columns: slice | None, width: int = 12) -> np.ndarray:
    """One row of pixels per frame, set in these columns."""
    masks = np.zeros((len(columns), 1, width), bool)
    for mask, columns_of_frame in zip(masks, columns, strict=True):
        if columns_of_frame is not None:
            mask[0, columns_of_frame] = True
    return masks


def test_dice_to_the_next_frame_is_counted_by_hand() -> None:
    masks = movie(slice(0, 4), slice(2, 6), slice(2, 4))
    # 2 * 2 / (4 + 4) and 2 * 2 / (4 + 2); round the end 2 * 2 / (2 + 4)
    np.testing.assert_allclose(dice_to_next_frame(masks), [1 / 2, 2 / 3])
    np.testing.assert_allclose(dice_to_next_frame(masks, cyclic=True), [1 / 2, 2 / 3, 2 / 3])


def test_dice_to_the_next_frame_is_0_when_the_mask_vanishes_and_nan_while_it_is_gone() -> None:
    np.testing.assert_allclose(dice_to_next_frame(movie(slice(0, 4), None, None)), [0.0, np.nan])


def test_temporal_dice_is_measured_against_the_truth() -> None:
    truth = movie(slice(0, 4), slice(1, 5), slice(2, 6))  # 2 * 3 / 8 both times
    flickering = movie(slice(0, 4), slice(3, 7), slice(2, 6))  # 2 * 1 / 8 and 2 * 3 / 8
    assert temporal_dice_gain(truth, truth) == 0.0
    assert temporal_dice_gain(flickering, truth) == pytest.approx((1 / 4 - 3 / 4 + 0) / 2)
    assert temporal_dice_gain(movie(*[slice(0, 4)] * 3), truth) == pytest.approx(1 / 4)


def test_temporal_dice_leaves_out_empty_pairs_and_is_nan_when_none_remains() -> None:
    truth = movie(slice(0, 4), slice(0, 4), slice(0, 4))
    assert temporal_dice_gain(movie(None, None, slice(0, 4)), truth) == pytest.approx(0 - 1)
    assert math.isnan(temporal_dice_gain(movie(None, None, None), truth))


def test_temporal_dice_refuses_movies_of_different_shapes() -> None:
    with pytest.raises(ValueError, match="must have the shape"):
        temporal_dice_gain(np.ones((3, 2, 2), bool), np.ones((4, 2, 2), bool))


def test_jitter_is_the_mean_distance_to_both_neighbours() -> None:
    masks = movie(slice(0, 3), slice(1, 4), slice(4, 7), slice(4, 7))
    # Hausdorff distances 1, 3 and 0 pixels of 0.5 mm; round the end 4 pixels
    np.testing.assert_allclose(boundary_jitter(masks, (1.0, 0.5)), [0.5, 1.0, 0.75, 0.0])
    np.testing.assert_allclose(boundary_jitter(masks, (1.0, 0.5), cyclic=True), [1.25, 1.0, 0.75, 1.0])


def test_jitter_is_infinite_beside_a_missing_mask_and_leaves_out_empty_pairs() -> None:
    masks = movie(slice(0, 3), slice(0, 3), None, None, None)
    np.testing.assert_array_equal(boundary_jitter(masks, (1.0, 1.0)), [0.0, np.inf, np.inf, np.nan, np.nan])


def test_jitter_of_a_single_frame_is_nan() -> None:
    assert np.isnan(boundary_jitter(movie(slice(0, 3)), (1.0, 1.0), cyclic=True)).tolist() == [True]


@pytest.mark.parametrize("masks", [np.ones((3, 2, 2), np.uint8), np.ones(3, bool), np.ones((0, 2, 2), bool)])
def test_measures_refuse_what_is_no_boolean_movie(masks) -> None:
    with pytest.raises(ValueError, match="masks must be boolean"):
        dice_to_next_frame(masks)
    with pytest.raises(ValueError, match="masks must be boolean"):
        boundary_jitter(masks, (1.0, 1.0))


def test_a_frozen_mask_changes_by_nothing_and_a_faithful_one_by_all() -> None:
    truth = np.array([30.0, 20.0, 10.0, 25.0])
    assert area_change_against_truth(np.full(4, 20.0), truth) == 0.0
    assert area_change_against_truth(truth, truth) == pytest.approx(1.0)
    assert area_change_against_truth(np.array([22, 20, 17, 19]), truth) == pytest.approx(5 / 20)


def test_change_against_a_truth_that_stands_still_is_nan() -> None:
    assert math.isnan(area_change_against_truth(np.array([1.0, 2.0]), np.array([3.0, 3.0])))


@pytest.mark.parametrize(
    ("predicted", "message"), [([1.0], "length of reference"), ([1.0, np.nan], "predicted must be"), ([], "predicted")]
)
def test_change_refuses_curves_that_do_not_match(predicted, message) -> None:
    with pytest.raises(ValueError, match=message):
        area_change_against_truth(np.array(predicted), np.array([1.0, 2.0]))


def test_cyclicity_is_the_gap_between_both_ends_over_the_largest_volume() -> None:
    assert cyclicity_error_percent(np.array([118.0, 60.0, 125.0, 112.0])) == pytest.approx(100 * 6 / 125)
    assert math.isnan(cyclicity_error_percent(np.zeros(3)))


def test_mass_variation_is_the_coefficient_of_variation() -> None:
    # mean 100, deviations -10, 10, 0, 0
    assert mass_variation_percent(np.array([90.0, 110.0, 100.0, 100.0])) == pytest.approx(math.sqrt(200 / 4))
    assert math.isnan(mass_variation_percent(np.zeros(3)))


@pytest.mark.parametrize("measure", [cyclicity_error_percent, mass_variation_percent])
@pytest.mark.parametrize("volumes_ml", [[1.0], [1.0, -1.0], [1.0, np.nan], [[1.0, 2.0]]])
def test_volume_curves_must_be_finite_and_not_negative(measure, volumes_ml) -> None:
    with pytest.raises(ValueError, match="at least two finite volumes"):
        measure(np.array(volumes_ml))


def test_mass_mismatch_is_relative_to_the_mean_of_both_phases() -> None:
    assert mass_mismatch_percent(90.0, 110.0) == pytest.approx(20.0)
    assert mass_mismatch_percent(110.0, 90.0) == pytest.approx(20.0)
    assert math.isnan(mass_mismatch_percent(0.0, 0.0))
    with pytest.raises(ValueError, match="must not be negative"):
        mass_mismatch_percent(-1.0, 2.0)


def test_stroke_volume_gap_is_relative_to_the_left_ventricle() -> None:
    assert stroke_volume_gap_percent(80.0, 72.0) == pytest.approx(10.0)
    assert stroke_volume_gap_percent(80.0, 100.0) == pytest.approx(-25.0)


@pytest.mark.parametrize("left_ml", [0.0, -5.0])
def test_a_left_ventricle_that_does_not_eject_is_no_yardstick(left_ml) -> None:
    assert math.isnan(stroke_volume_gap_percent(left_ml, 70.0))
