"""Base, apex and discs of drawn ventricles."""

import math

import numpy as np
import pytest
from ellipsoid_views import Ellipsoid, draw_view

from nnunet_temporal.metrics.long_axis import measure_apical_shape

HEART = Ellipsoid(long_mm=57.0, short_mm=23.0)


def box(rows: slice, columns: slice, shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[rows, columns] = True
    return mask


def test_base_lies_on_the_edges_between_ventricle_and_atrium() -> None:
    shape = measure_apical_shape(box(slice(5, 25), slice(10, 20)), (1.0, 1.0), atrium=box(slice(25, 35), slice(12, 18)))
    # the edge between rows 24 and 25; columns 12 to 17 reach from 11.5 to 17.5
    np.testing.assert_allclose(sorted(shape.hinges_mm.tolist()), [[24.5, 11.5], [24.5, 17.5]])
    np.testing.assert_allclose(shape.base_mm, [24.5, 14.5])
    assert shape.base_width_mm == pytest.approx(6.0)


def test_an_upright_base_is_as_wide_as_a_level_one() -> None:
    shape = measure_apical_shape(box(slice(10, 20), slice(5, 25)), (1.0, 1.0), atrium=box(slice(12, 18), slice(25, 35)))
    np.testing.assert_allclose(sorted(shape.hinges_mm.tolist()), [[11.5, 24.5], [17.5, 24.5]])


def test_spacing_stretches_rows_and_columns_differently() -> None:
    shape = measure_apical_shape(box(slice(5, 25), slice(10, 20)), (2.0, 0.5), atrium=box(slice(25, 35), slice(12, 18)))
    np.testing.assert_allclose(shape.base_mm, [2.0 * 24.5, 0.5 * 14.5])
    assert shape.base_width_mm == pytest.approx(6 * 0.5)
    assert shape.area_mm2 == pytest.approx(20 * 10 * 2.0 * 0.5)
    # the farthest edges are those above the outer pixels of the top row: 20 rows up, 4.5 columns aside
    assert shape.length_mm == pytest.approx(math.hypot(20 * 2.0, 4.5 * 0.5))


def test_length_reaches_the_outline_of_the_farthest_pixel() -> None:
    ventricle = box(slice(5, 25), slice(10, 20)) | box(slice(2, 5), slice(14, 15))
    shape = measure_apical_shape(ventricle, (1.0, 1.0), atrium=box(slice(25, 35), slice(12, 17)))
    np.testing.assert_allclose(shape.apex_mm, [1.5, 14.0])
    assert shape.length_mm == pytest.approx(24.5 - 1.5)


@pytest.mark.parametrize("degrees", range(-180, 180, 23))
@pytest.mark.parametrize("with_atrium", [True, False])
def test_landmarks_turn_with_the_image(degrees: float, with_atrium: bool) -> None:
    view = draw_view(HEART, 1.0, degrees, shift_mm=(0.3, -0.4))
    shape = measure_apical_shape(view.ventricle, (1.0, 1.0), view.atrium if with_atrium else None)
    assert shape.length_mm == pytest.approx(HEART.length_mm, abs=1.0)
    assert shape.base_width_mm == pytest.approx(HEART.base_width_mm, abs=1.5)
    assert (shape.orientation_degrees - degrees + 180) % 360 - 180 == pytest.approx(0.0, abs=0.5)


@pytest.mark.parametrize(("degrees", "expected"), [(0, 0), (90, 90), (-90, -90)])
def test_orientation_is_0_for_an_apex_at_the_top_and_90_for_one_at_the_right(degrees: float, expected: float) -> None:
    view = draw_view(HEART, 1.0, degrees)
    assert measure_apical_shape(view.ventricle, (1.0, 1.0)).orientation_degrees == pytest.approx(expected, abs=0.2)


def test_orientation_is_measured_in_mm() -> None:
    view = draw_view(HEART, 1.0, 30)
    every_second_row = measure_apical_shape(view.ventricle[::2], (2.0, 1.0), view.atrium[::2])
    assert every_second_row.orientation_degrees == pytest.approx(30, abs=0.5)
    assert every_second_row.length_mm == pytest.approx(HEART.length_mm, abs=1.5)


def test_diameters_of_a_triangle_fall_linearly_from_base_to_apex() -> None:
    y, x = np.indices((820, 420))
    triangle = (np.abs(x - 209.5) < 200 * (y - 9.5) / 800) & (y < 810)  # 800 high, 400 wide at the base
    diameters = measure_apical_shape(triangle, (0.125, 0.125)).disc_diameters_mm()
    # in mm: 100 high and 50 wide at the base, so the middle of disc i is 50 * (1 - (i + 0.5) / 20) wide
    np.testing.assert_allclose(diameters, 50 * (1 - (np.arange(20) + 0.5) / 20), atol=0.3)


def test_discs_share_out_the_whole_area_when_the_base_is_level() -> None:
    shape = measure_apical_shape(draw_view(HEART, 1.4).ventricle, (1.4, 1.4))
    for n_discs in (1, 20, 77):
        discs_mm2 = shape.disc_diameters_mm(n_discs).sum() * shape.length_mm / n_discs
        assert discs_mm2 == pytest.approx(shape.area_mm2, rel=0.01)


def test_a_speck_does_not_displace_the_apex() -> None:
    view = draw_view(HEART, 1.0)
    with_speck = view.ventricle.copy()
    with_speck[1:4, 1:4] = True
    clean, spotted = (measure_apical_shape(mask, (1.0, 1.0)) for mask in (view.ventricle, with_speck))
    np.testing.assert_array_equal(spotted.apex_mm, clean.apex_mm)
    assert spotted.area_mm2 == clean.area_mm2


def test_pixels_that_touch_at_a_corner_belong_together() -> None:
    ventricle = box(slice(5, 25), slice(10, 20)) | box(slice(2, 5), slice(20, 21))
    shape = measure_apical_shape(ventricle, (1.0, 1.0), atrium=box(slice(25, 35), slice(10, 20)))
    assert shape.area_mm2 == 203.0
    np.testing.assert_allclose(shape.apex_mm, [1.5, 20.0])


def test_a_seam_of_three_pixels_between_ventricle_and_atrium_is_bridged() -> None:
    shape = measure_apical_shape(box(slice(5, 25), slice(10, 20)), (1.0, 1.0), atrium=box(slice(28, 35), slice(10, 20)))
    assert shape.reason == ""
    assert shape.base_mm[0] == pytest.approx(24.5)


@pytest.mark.parametrize(
    ("ventricle", "atrium", "reason"),
    [
        (np.zeros((40, 40), bool), None, "has 0 pixels"),
        (box(slice(5, 8), slice(5, 8)), None, "has 9 pixels, fewer than 10"),
        (box(slice(5, 25), slice(10, 20)), np.zeros((40, 40), bool), "does not touch the atrium"),
        (box(slice(5, 25), slice(10, 20)), box(slice(29, 35), slice(10, 20)), "does not touch the atrium"),
    ],
)
def test_what_cannot_be_measured_is_nan_and_says_why(ventricle, atrium, reason) -> None:
    shape = measure_apical_shape(ventricle, (1.0, 1.0), atrium)
    assert reason in shape.reason
    figures = [shape.length_mm, shape.base_width_mm, shape.orientation_degrees, *shape.disc_diameters_mm()]
    assert len(figures) == 23
    assert np.isnan(figures).all()


@pytest.mark.parametrize(
    ("ventricle", "spacing_mm", "message"),
    [
        (np.zeros((4, 4), np.uint8), (1.0, 1.0), "ventricle must be a boolean mask"),
        (np.zeros((2, 4, 4), bool), (1.0, 1.0), r"ventricle must have the axes \(Y, X\)"),
        (np.zeros((4, 4), bool), (1.0, 0.0), "spacing_mm must be two positive numbers"),
        (np.zeros((4, 4), bool), (1.0, 1.0, 1.0), "spacing_mm must be two positive numbers"),
    ],
)
def test_shapes_refuse_unusable_input(ventricle, spacing_mm, message) -> None:
    with pytest.raises(ValueError, match=message):
        measure_apical_shape(ventricle, spacing_mm)


def test_discs_refuse_a_number_below_one() -> None:
    with pytest.raises(ValueError, match="n_discs must be at least 1"):
        measure_apical_shape(box(slice(5, 25), slice(10, 20)), (1.0, 1.0)).disc_diameters_mm(0)
