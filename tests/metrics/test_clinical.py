"""Volumes and ejection fractions against hand computation."""

import math

import numpy as np
import pytest

from nnunet_temporal.metrics.clinical import ed_es_frames, ejection_fraction_percent, volume_curve_ml, volume_ml


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
