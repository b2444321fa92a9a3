"""Sizes over time: volumes of discs, areas, and what an expert drew of them."""

import numpy as np
import pytest
from ellipsoid_views import Ellipsoid, draw_view
from mask_folders import LV_ONLY, SCHEME
from segmented_hearts import beating, drawn_at, segmented

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.report.curves import APICAL_VOLUME, AREA, VOLUME, measure_curves

# Cavities of 100, 64, 36 and 64 pixels, walls of 96, 80, 64 and 80.
HEART = beating()


def test_volumes_of_a_stack_are_pixels_times_their_size_times_the_distance_of_slices():
    stack = segmented(HEART, slice_spacing_mm=8.0, pixel_mm=(2.0, 1.5))
    ventricle, wall = measure_curves(stack, SCHEME)
    # Voxels of 2 x 1.5 x 8 mm are 0.024 ml; two slices.
    np.testing.assert_allclose(ventricle.values, 2 * 0.024 * np.array([100, 64, 36, 64]))
    np.testing.assert_allclose(wall.values, 2 * 0.024 * np.array([96, 80, 64, 80]))
    assert (ventricle.structure, ventricle.quantity, ventricle.unit, ventricle.truth) == ("LV", VOLUME, "ml", {})


def test_a_single_slice_has_areas_in_square_centimetres():
    (curve, _) = measure_curves(segmented(HEART[:, 0], pixel_mm=(2.0, 1.5)), SCHEME)
    np.testing.assert_allclose(curve.values, 0.03 * np.array([100, 64, 36, 64]))
    assert (curve.quantity, curve.unit) == (AREA, "cm²")


def test_without_a_pixel_spacing_areas_are_counted_in_pixels_whatever_is_known_of_the_slices():
    (curve, _) = measure_curves(segmented(HEART, slice_spacing_mm=8.0, pixel_mm=None), SCHEME)
    assert curve.values.tolist() == [200, 128, 72, 128]
    assert (curve.quantity, curve.unit) == (AREA, "px")


def test_slices_at_unknown_distances_have_areas():
    (curve, _) = measure_curves(segmented(HEART), SCHEME)
    assert curve.quantity == AREA
    np.testing.assert_allclose(curve.values, [2.0, 1.28, 0.72, 1.28])


def test_an_experts_frames_count_where_all_measured_slices_are_drawn():
    truth = drawn_at(HEART, 0, 2, 3)
    truth[3, 1] = 9
    stack = segmented(HEART, truth, slice_spacing_mm=10.0, ed=0, es=2)
    (curve, _) = measure_curves(stack, SCHEME)
    assert curve.truth == pytest.approx({0: 2.0, 2: 0.72})


def test_prediction_and_expert_are_measured_over_the_slices_drawn_at_both_phases():
    truth = drawn_at(HEART, 0, 2)
    truth[:, 1] = 9
    stack = segmented(HEART, truth, slice_spacing_mm=10.0, ed=0, es=2)
    (curve, _) = measure_curves(stack, SCHEME)
    np.testing.assert_allclose(curve.values, [1.0, 0.64, 0.36, 0.64])
    assert curve.truth == pytest.approx({0: 1.0, 2: 0.36})


def test_an_apical_view_has_the_volume_of_the_ventricle_and_the_area_of_the_rest():
    heart = Ellipsoid(45.0, 20.0)
    view = draw_view(heart, 1.0)
    labels = np.zeros(view.ventricle.shape, np.uint8)
    labels[view.myocardium], labels[view.atrium], labels[view.ventricle] = 2, 3, 1
    nothing = np.zeros_like(labels)
    scheme = LabelScheme({"LV": 1, "MYO": 2, "LA": 3}, 9, {"LV": "LV", "MYO": "MYO", "LA": "LA"})
    curves = measure_curves(segmented(np.stack([labels, nothing]), labels=scheme, view="4CH"), scheme)
    assert [curve.quantity for curve in curves] == [APICAL_VOLUME, AREA, AREA]
    assert curves[0].values[0] == pytest.approx(heart.volume_ml, rel=0.03)
    assert np.isnan(curves[0].values[1])
    assert curves[2].values.tolist() == [view.atrium.sum() / 100, 0]


def test_an_apical_view_of_unknown_scale_has_volumes_in_thousands_of_cubic_pixels():
    views = [draw_view(Ellipsoid(45.0, 20.0, cut=cut), 1.0).ventricle.astype(np.uint8) for cut in (0.5, 0.3)]
    known, unknown = (
        measure_curves(segmented(np.stack(views), labels=LV_ONLY, view="A4C", pixel_mm=pixel_mm), LV_ONLY)[0]
        for pixel_mm in ((1.0, 1.0), None)
    )
    assert (unknown.quantity, unknown.unit) == (APICAL_VOLUME, "10³ px³")
    np.testing.assert_allclose(unknown.values, known.values)


def test_a_frame_without_prediction_has_no_volume():
    (curve,) = measure_curves(segmented(np.zeros_like(HEART), labels=LV_ONLY, slice_spacing_mm=8.0), LV_ONLY)
    assert curve.values.tolist() == [0, 0, 0, 0]
