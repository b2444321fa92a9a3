"""Attributes of drawn sequences against hand computation."""

import numpy as np
import pytest
from ellipsoid_views import Ellipsoid, draw_view

from nnunet_temporal.metrics.shape_curves import ATTRIBUTES, LONG_AXIS_ATTRIBUTES, measure_shape_curves


def test_areas_and_centre_are_counted_by_hand() -> None:
    ventricle, myocardium = np.zeros((2, 6, 8), bool), np.zeros((2, 6, 8), bool)
    ventricle[0, 2, 1:4] = True  # 3 pixels at x = 1, 2, 3
    myocardium[0, 5, 6] = True  # 1 pixel at x = 6
    myocardium[1, 0:2, 7] = True
    curves = measure_shape_curves(ventricle, (2.0, 0.5), myocardium=myocardium)
    np.testing.assert_allclose(curves.values["ventricle_area_mm2"], [3.0, 0.0])
    np.testing.assert_allclose(curves.values["myocardium_area_mm2"], [1.0, 2.0])
    np.testing.assert_allclose(curves.values["centre_x_mm"], [0.5 * (1 + 2 + 3 + 6) / 4, 0.5 * 7])
    np.testing.assert_allclose(curves.values["centre_y_mm"], [2.0 * (3 * 2 + 5) / 4, 2.0 * 0.5])


def test_long_axis_is_measured_in_every_frame() -> None:
    hearts = [Ellipsoid(57.0, 23.0), Ellipsoid(48.0, 18.0)]
    views = [draw_view(heart, 1.0, degrees) for heart, degrees in zip(hearts, (10, 20), strict=True)]
    ventricle, atrium = (np.stack([getattr(view, name) for view in views]) for name in ("ventricle", "atrium"))
    curves = measure_shape_curves(ventricle, (1.0, 1.0), atrium=atrium)
    np.testing.assert_allclose(curves.values["length_mm"], [heart.length_mm for heart in hearts], atol=1.0)
    np.testing.assert_allclose(curves.values["base_width_mm"], [heart.base_width_mm for heart in hearts], atol=1.5)
    np.testing.assert_allclose(curves.values["orientation_degrees"], [10, 20], atol=0.5)
    assert set(curves.values) == set(curves.reasons) == set(ATTRIBUTES)


def test_the_base_begins_where_the_atrium_of_the_same_frame_does() -> None:
    ventricle, atrium = np.zeros((2, 40, 40), bool), np.zeros((2, 40, 40), bool)
    ventricle[:, 5:25, 10:20] = True
    atrium[0, 25:35, 12:18] = atrium[1, 25:35, 10:20] = True
    curves = measure_shape_curves(ventricle, (1.0, 1.0), atrium=atrium)
    np.testing.assert_allclose(curves.values["base_width_mm"], [6.0, 10.0])


def test_frames_that_cannot_be_measured_are_nan_and_say_why() -> None:
    ventricle = np.stack((draw_view(Ellipsoid(40.0, 18.0), 1.4).ventricle, np.zeros((107, 107), bool)))
    curves = measure_shape_curves(ventricle, (1.4, 1.4))
    for attribute in (*LONG_AXIS_ATTRIBUTES, "centre_x_mm", "centre_y_mm"):
        assert np.isnan(curves.values[attribute]).tolist() == [False, True]
        assert curves.reasons[attribute][0] == ""
        assert curves.reasons[attribute][1] != ""
    assert curves.reasons["myocardium_area_mm2"] == ("there is no myocardium label",) * 2
    assert np.isnan(curves.values["myocardium_area_mm2"]).all()


def test_a_short_axis_slice_has_no_long_axis() -> None:
    curves = measure_shape_curves(np.ones((3, 9, 9), bool), (1.0, 1.0), apical=False)
    for attribute in LONG_AXIS_ATTRIBUTES:
        assert np.isnan(curves.values[attribute]).all()
        assert curves.reasons[attribute] == ("the view does not show the long axis",) * 3
    np.testing.assert_allclose(curves.values["ventricle_area_mm2"], 81.0)


@pytest.mark.parametrize(
    ("ventricle", "spacing_mm", "message"),
    [
        (np.ones((4, 4), bool), (1.0, 1.0), r"ventricle must have the axes \(T, Y, X\)"),
        (np.ones((2, 4, 4), np.uint8), (1.0, 1.0), "ventricle must be a boolean mask"),
        (np.ones((2, 4, 4), bool), (1.0, -1.0), "spacing_mm must be two positive numbers"),
    ],
)
@pytest.mark.parametrize("apical", [True, False])
def test_curves_refuse_unusable_input(ventricle, spacing_mm, message, apical) -> None:
    with pytest.raises(ValueError, match=message):
        measure_shape_curves(ventricle, spacing_mm, apical=apical)
