"""Volumes and ejection fractions against hand computation."""

import math

import numpy as np
import pytest

from nnunet_temporal.metrics.clinical import (
    compared_slices,
    compared_volumes_ml,
    ed_es_frames,
    ejection_fraction_percent,
    myocardial_mass_g,
    slice_heights_mm,
    stack_volumes_ml,
    stroke_volume_ml,
    volume_curve_ml,
    volume_ml,
)


def test_volume_of_ten_voxels_of_two_by_five_by_ten_mm_is_one_ml() -> None:
    mask = np.zeros((2, 3, 5), bool)
    mask[0, 0, :] = mask[1, 2, :] = True
    assert volume_ml(mask, (10.0, 5.0, 2.0)) == pytest.approx(1.0)


def test_volume_of_an_empty_mask_is_zero() -> None:
    assert volume_ml(np.zeros((2, 3, 5), bool), (10.0, 1.0, 1.0)) == 0.0


def test_volume_of_a_sampled_ball_is_near_four_thirds_pi_r_cubed() -> None:
    z, y, x = np.meshgrid(*(np.arange(-30, 31, step) for step in (2.0, 1.0, 1.0)), indexing="ij")
    expected_ml = 4 / 3 * math.pi * 25**3 / 1000
    assert volume_ml(z**2 + y**2 + x**2 <= 25**2, (2.0, 1.0, 1.0)) == pytest.approx(expected_ml, rel=0.01)


def test_volume_curve_has_one_volume_per_frame() -> None:
    masks = np.zeros((3, 1, 10, 10), bool)
    masks[1, 0, :, :] = True
    masks[2, 0, :5, :] = True
    np.testing.assert_allclose(volume_curve_ml(masks, (10.0, 1.0, 1.0)), [0.0, 1.0, 0.5])


@pytest.mark.parametrize("spacing_mm", [(0.0, 1.0, 1.0), (1.0, -1.0, 1.0), (float("nan"), 1.0, 1.0), (1.0, 1.0)])
def test_volume_refuses_a_spacing_that_is_not_three_positive_numbers(spacing_mm: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spacing_mm must be three positive numbers"):
        volume_ml(np.zeros((2, 3, 5), bool), spacing_mm)  # type: ignore[arg-type]


def test_volume_refuses_a_mask_with_a_frame_axis() -> None:
    with pytest.raises(ValueError, match=r"mask must have the axes \(Z, Y, X\)"):
        volume_ml(np.zeros((1, 2, 3, 5), bool), (1.0, 1.0, 1.0))


def test_ejection_fraction_of_120_to_48_ml_is_60_percent() -> None:
    assert ejection_fraction_percent(120.0, 48.0) == pytest.approx(60.0)


def test_ejection_fraction_is_negative_when_the_ventricle_grows() -> None:
    assert ejection_fraction_percent(50.0, 60.0) == pytest.approx(-20.0)


def test_ejection_fraction_of_an_empty_ventricle_is_nan() -> None:
    assert math.isnan(ejection_fraction_percent(0.0, 0.0))


def test_ejection_fraction_refuses_a_negative_volume() -> None:
    with pytest.raises(ValueError, match="esv_ml = -1"):
        ejection_fraction_percent(100.0, -1.0)


def test_ed_is_the_largest_and_es_the_smallest_volume() -> None:
    assert ed_es_frames(np.array([80.0, 120.0, 60.0, 40.0, 120.0])) == (1, 3)


def test_ed_and_es_of_a_curve_with_nan_are_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        ed_es_frames(np.array([80.0, np.nan]))


def test_a_slice_reaches_half_way_to_its_neighbours() -> None:
    # steps 8 and 12: the outer slices stand for a whole step, the middle one for half of both
    np.testing.assert_allclose(slice_heights_mm(np.array([0.0, 8.0, 20.0])), [8.0, 10.0, 12.0])


def test_heights_keep_the_order_of_the_slices() -> None:
    np.testing.assert_allclose(slice_heights_mm(np.array([20.0, 0.0, 8.0])), [12.0, 8.0, 10.0])


def test_heights_include_the_gap_between_the_slices() -> None:
    # slices 8 mm thick with gaps of 4 mm lie 12 mm apart
    np.testing.assert_allclose(slice_heights_mm(np.arange(5) * 12.0), np.full(5, 12.0))


@pytest.mark.parametrize("positions_mm", [[3.0], [0.0, 8.0, 8.0], [0.0, np.nan, 8.0]])
def test_heights_refuse_positions_without_steps(positions_mm: list[float]) -> None:
    with pytest.raises(ValueError, match="positions_mm must be"):
        slice_heights_mm(np.array(positions_mm))


def test_stack_volume_weights_each_slice_with_its_height() -> None:
    masks = np.zeros((2, 3, 10, 10), bool)
    masks[0, 0, 0, :5] = masks[0, 2, 0, :4] = True
    masks[1, 1] = True
    # pixels of 2 x 5 mm: (5 * 8 + 4 * 12) * 10 = 880 mm3 and 100 * 10 * 10 = 10000 mm3
    np.testing.assert_allclose(stack_volumes_ml(masks, (2.0, 5.0), np.array([8.0, 10.0, 12.0])), [0.88, 10.0])


def test_stack_volume_with_equal_heights_is_the_volume_curve() -> None:
    masks = np.random.default_rng(0).random((3, 4, 5, 6)) < 0.5
    np.testing.assert_allclose(
        stack_volumes_ml(masks, (1.5, 1.2), np.full(4, 9.0)), volume_curve_ml(masks, (9.0, 1.5, 1.2))
    )


@pytest.mark.parametrize(
    ("pixel_spacing_mm", "heights_mm", "message"),
    [
        ((1.0, 1.0), [8.0], "masks must be boolean"),
        ((1.0, 0.0), [8.0, 8.0], "pixel_spacing_mm must be two positive numbers"),
        ((1.0, 1.0), [8.0, -8.0], "heights_mm must be positive"),
    ],
)
def test_stack_volume_refuses_what_does_not_fit(pixel_spacing_mm, heights_mm, message) -> None:
    with pytest.raises(ValueError, match=message):
        stack_volumes_ml(np.zeros((1, 2, 3, 3), bool), pixel_spacing_mm, np.array(heights_mm))


def test_only_slices_labelled_in_all_frames_are_compared() -> None:
    labelled = np.array([[1, 1, 1, 0], [0, 0, 0, 0], [0, 1, 1, 1]], bool)
    assert compared_slices(labelled, (0, 2)).tolist() == [False, True, True, False]
    assert compared_slices(labelled, (0,)).tolist() == [True, True, True, False]


@pytest.mark.parametrize(("frames", "message"), [((0, 1), "no slice is labelled in all"), ((), "at least one frame")])
def test_comparison_refuses_frames_without_a_common_slice(frames, message) -> None:
    with pytest.raises(ValueError, match=message):
        compared_slices(np.array([[1, 0], [0, 1]], bool), frames)


def test_prediction_and_reference_are_summed_over_the_same_slices_and_frames() -> None:
    prediction, reference = np.ones((3, 3, 10, 10), bool), np.zeros((3, 3, 10, 10), bool)
    reference[0, :2] = True  # ED: slices 0 and 1
    reference[2, 1, :5] = True  # ES: half of slice 1
    labelled = np.array([[1, 1, 0], [0, 0, 0], [0, 1, 1]], bool)
    predicted_ml, reference_ml = compared_volumes_ml(
        prediction, reference, labelled, (0, 2), (1.0, 1.0), np.array([8.0, 10.0, 12.0])
    )
    # only slice 1 counts: 100 pixels of 1 mm2 and a height of 10 mm are 1 ml
    np.testing.assert_allclose(predicted_ml, [1.0, 1.0])
    np.testing.assert_allclose(reference_ml, [1.0, 0.5])


@pytest.mark.parametrize(("labelled_shape", "n_heights"), [((2, 2), 3), ((2, 3), 2)])
def test_compared_volumes_refuse_labels_and_heights_of_another_stack(labelled_shape, n_heights) -> None:
    masks = np.ones((2, 3, 4, 4), bool)
    with pytest.raises(ValueError, match="must have"):
        compared_volumes_ml(masks, masks, np.ones(labelled_shape, bool), (0,), (1.0, 1.0), np.full(n_heights, 8.0))


def test_stroke_volume_is_what_is_pumped_out() -> None:
    assert stroke_volume_ml(120.0, 48.0) == pytest.approx(72.0)
    assert stroke_volume_ml(50.0, 60.0) == pytest.approx(-10.0)


def test_myocardial_mass_is_105_g_per_100_ml() -> None:
    assert myocardial_mass_g(100.0) == pytest.approx(105.0)
    with pytest.raises(ValueError, match="must not be negative"):
        myocardial_mass_g(-1.0)
