"""Figures of a study at a glance, with and without an expert."""

import math

import numpy as np
import pytest
from ellipsoid_views import Ellipsoid, draw_view
from mask_folders import IGNORE, LV_ONLY, MYO, SCHEME
from segmented_hearts import beating, drawn_at, segmented

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.report.curves import measure_curves
from nnunet_temporal.report.segmented_study import SegmentedStudy
from nnunet_temporal.report.study_figures import measure_study_figures

HEART = beating()
STACK = {"slice_spacing_mm": 10.0, "cyclic": True}


def figures(*stacks, labels=SCHEME):
    curves = [measure_curves(stack, labels) for stack in stacks]
    return measure_study_figures(SegmentedStudy("s", stacks), curves, labels)


def both(compared):
    return (compared.predicted, compared.truth)


def test_volumes_and_ejection_fraction_of_prediction_and_expert():
    truth = drawn_at(beating((5, 4, 4, 4)), 0, 2)
    found = figures(segmented(HEART, truth, ed=0, es=2, **STACK))
    # 100 and 36 pixels predicted, 100 and 64 drawn; two slices of 1 x 1 x 10 mm.
    assert both(found.edv_ml) == pytest.approx((2.0, 2.0))
    assert both(found.esv_ml) == pytest.approx((0.72, 1.28))
    assert both(found.ef_percent) == pytest.approx((64, 36))
    assert (found.method, found.phase_source) == ("slice_summation", "manifest")
    # The predicted cavity lies in the drawn one at ES; the rings of 6 to 10 and 8 to 12 share the frame of 8 to 10.
    assert found.dice["LV"] == pytest.approx((1 + 2 * 36 / 100) / 2)
    assert found.dice["MYO"] == pytest.approx((1 + 2 * 36 / (64 + 80)) / 2)
    assert found.mean_dice == pytest.approx((found.dice["LV"] + found.dice["MYO"]) / 2)


def test_without_an_expert_phases_are_those_of_the_predicted_curve():
    found = figures(segmented(HEART, **STACK))
    assert found.phase_source == "predicted_curve"
    assert found.ef_percent.predicted == pytest.approx(64)
    assert all(math.isnan(each.truth) for each in (found.edv_ml, found.esv_ml, found.ef_percent))
    assert found.dice == {} and math.isnan(found.mean_dice)


def test_roughness_is_that_of_the_ventricle():
    # Areas 100, 64, 36, 64 around the beat: second differences 72, 8, 56, 8 over a mean of 66.
    assert figures(segmented(HEART, **STACK)).roughness_percent == pytest.approx(100 * (72 + 8 + 56 + 8) / 4 / 66)


@pytest.mark.parametrize("pixel_mm", [(1.0, 1.0), None])
def test_without_volumes_the_area_changes_and_there_is_no_ejection_fraction(pixel_mm):
    found = figures(segmented(HEART[:, 0], drawn_at(HEART[:, 0], 0, 2), ed=0, es=2, pixel_mm=pixel_mm))
    assert both(found.area_change_percent) == pytest.approx((64, 64))
    assert math.isnan(found.ef_percent.predicted) and math.isnan(found.edv_ml.predicted)
    assert found.method == "area"


def test_an_area_that_only_one_phase_was_drawn_of_is_not_compared():
    found = figures(segmented(HEART[:, 0], drawn_at(HEART[:, 0], 0), ed=0, es=2))
    assert found.area_change_percent.predicted == pytest.approx(64)
    assert math.isnan(found.area_change_percent.truth)
    assert found.dice == {"LV": 1.0, "MYO": 1.0}


def test_slices_that_nobody_drew_enter_neither_side():
    truth = drawn_at(HEART, 0, 2)
    truth[:, 1] = IGNORE
    shrunk = HEART.copy()
    shrunk[0, 1] = 0
    found = figures(segmented(shrunk, truth, ed=0, es=2, **STACK))
    assert both(found.edv_ml) == pytest.approx((1.0, 1.0))
    assert found.dice["LV"] == 1.0


def view(name, *hearts, **fields):
    """A view of a ventricle in frames of these sizes."""
    movie = np.stack([draw_view(heart, 1.0).ventricle for heart in hearts]).astype(np.uint8)
    return segmented(movie, drawn_at(movie, *range(len(movie))), labels=LV_ONLY, view=name, **fields)


def test_phases_are_those_of_what_was_measured():
    large, small = Ellipsoid(57.0, 24.0), Ellipsoid(46.0, 18.0, cut=0.45)
    late, early = view("2CH", small, large, ed=1, es=0), view("4CH", large, small, ed=0, es=1)
    assert figures(late, early, labels=LV_ONLY).phases is None
    unknown = [
        view("2CH", small, large, ed=1, es=0, pixel_mm=None),
        view("4CH", large, small, ed=0, es=1, pixel_mm=None),
    ]
    found = figures(*unknown, labels=LV_ONLY)
    assert (found.method, found.phases) == ("simpson_monoplane_4CH", (0, 1))
    short_axis = segmented(HEART, drawn_at(HEART, 0, 2), ed=0, es=2, **STACK)
    beside = segmented(HEART[:, 0], drawn_at(HEART[:, 0], 1, 3), view="3CH", ed=1, es=3)
    assert figures(beside, short_axis).phases == (0, 2)
    assert figures(beside).phases == (1, 3)


def test_labels_without_a_ventricle_have_overlap_only():
    wall = LabelScheme({"MYO": MYO}, IGNORE, {"MYO": "MYO"})
    masks = np.where(HEART == MYO, MYO, 0).astype(np.uint8)
    found = figures(segmented(masks, drawn_at(masks, 0, 2), labels=wall, ed=0, es=2, **STACK), labels=wall)
    assert found.method == ""
    assert math.isnan(found.ef_percent.predicted) and math.isnan(found.area_change_percent.predicted)
    assert found.dice == {"MYO": 1.0}


def test_a_prediction_of_nothing_has_no_ejection_fraction():
    found = figures(segmented(np.zeros_like(HEART), drawn_at(HEART, 0, 2), ed=0, es=2, **STACK))
    assert both(found.edv_ml) == (0, 2.0)
    assert math.isnan(found.ef_percent.predicted)
    assert found.dice == {"LV": 0.0, "MYO": 0.0}


def test_one_frame_has_neither_phases_nor_roughness():
    found = figures(segmented(HEART[:1], **STACK))
    assert found.phase_source == "unknown"
    assert math.isnan(found.ef_percent.predicted) and math.isnan(found.roughness_percent)


def test_an_expert_in_one_of_two_views_compares_no_volumes():
    drawn = segmented(HEART[:, 0], drawn_at(HEART[:, 0], 0, 2), view="2CH", ed=0, es=2)
    other = segmented(HEART[:, 0], view="4CH", ed=0, es=2)
    found = figures(drawn, other)
    assert found.method == "simpson_biplane"
    assert math.isnan(found.edv_ml.truth)
    assert found.dice == {"LV": 1.0, "MYO": 1.0}
