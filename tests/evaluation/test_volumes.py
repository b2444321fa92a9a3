"""Volumes of ventricles in stacks and in apical views."""

import math
from dataclasses import replace

import numpy as np
import pytest
from ellipsoid_views import Ellipsoid, draw_view
from mask_folders import IGNORE, LV, LV_ONLY, MYO, make_stack, square

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.evaluation.options import CAMUS_SCRIPT, Options
from nnunet_temporal.evaluation.phase_frames import find_phase_frames
from nnunet_temporal.evaluation.volumes import apical_volume_columns, slice_volume_rows, volume_method

RV = 3
HEART = LabelScheme(
    {"LV": LV, "MYO": MYO, "RV": RV, "LA": 4}, IGNORE, {name: name for name in ("LV", "MYO", "RV", "LA")}
)
STACK = {"ed": 0, "es": 1, "slice_spacing_mm": 10.0, "pixel_mm": (2.0, 1.0)}
DIASTOLE, SYSTOLE = Ellipsoid(57.0, 24.0), Ellipsoid(46.0, 18.0, cut=0.45)


def slices(*frames):
    """Labels (T, Z, Y, X) from the sides of a square in every slice of every frame."""
    return np.stack([np.stack([square(1, 1, side) for side in sides]) for sides in frames])


def method_of(*stacks):
    return volume_method(stacks, [find_phase_frames(stack, LV_ONLY) for stack in stacks])


def slice_rows(prediction, reference, labels=LV_ONLY):
    stack = make_stack(prediction, reference, **STACK)
    return slice_volume_rows(stack, find_phase_frames(stack, labels), labels)


def view_stack(name, *hearts, pixel_mm=0.5, atrium=True):
    """A view with ED and ES as its two frames, the prediction the same as the reference."""
    frames = []
    for heart in hearts:
        view = draw_view(heart, pixel_mm)
        frames.append(LV * view.ventricle + MYO * view.myocardium + (4 if atrium else 0) * view.atrium)
    masks = np.stack(frames).astype(np.uint8)
    return make_stack(masks, masks, view=name, ed=0, es=1, pixel_mm=(pixel_mm, pixel_mm))


def apical_columns(*stacks, options=None):
    phases = [find_phase_frames(stack, HEART) for stack in stacks]
    return apical_volume_columns(stacks, phases, HEART, options or Options())


def test_a_stack_is_summed_over_its_slices():
    assert method_of(make_stack(slices((4, 4), (2, 2)), slices((4, 4), (2, 2)), **STACK)) == ("slice_summation", [0])


@pytest.mark.parametrize(
    "lacking", [{"slice_spacing_mm": None}, {"pixel_mm": None}, {"ed": None, "es": None}], ids=lambda entry: str(entry)
)
def test_a_stack_without_distances_or_phases_has_no_volume(lacking):
    still = slices((4, 4), (4, 4))
    assert method_of(make_stack(still, still, **STACK | lacking)) == ("", [])


def test_a_single_short_axis_slice_has_no_volume():
    movie = slices((4,), (2,))[:, 0]
    assert method_of(make_stack(movie, movie, **STACK)) == ("", [])


def test_phases_that_nobody_labelled_have_no_volume():
    reference = slices((4, 4), (2, 2))
    reference[1] = IGNORE
    assert method_of(make_stack(slices((4, 4), (2, 2)), reference, **STACK)) == ("", [])


def test_two_views_are_biplane_in_the_order_two_and_four_chamber():
    four, two = view_stack("4CH", DIASTOLE, SYSTOLE), view_stack("2CH", DIASTOLE, SYSTOLE)
    assert method_of(four, two) == ("simpson_biplane", [1, 0])


def test_one_view_is_monoplane_and_says_which():
    assert method_of(view_stack("4CH", DIASTOLE, SYSTOLE)) == ("simpson_monoplane_4CH", [0])


def without_spacing(stack):
    return replace(stack, pixel_mm=None)


def test_views_of_unknown_scale_are_measured_alone_and_the_four_chamber_view_first():
    four, two = (without_spacing(view_stack(name, DIASTOLE, SYSTOLE)) for name in ("A4C", "2CH"))
    assert method_of(two, four) == ("simpson_monoplane_4CH", [1])
    assert method_of(two) == ("simpson_monoplane_2CH", [0])
    known = view_stack("2CH", DIASTOLE, SYSTOLE)
    assert method_of(four, known) == ("simpson_monoplane_2CH", [1])


def test_an_apical_view_is_measured_beside_views_of_another_kind_that_have_a_scale():
    four, other = without_spacing(view_stack("4CH", DIASTOLE, SYSTOLE)), view_stack("PSAX", DIASTOLE, SYSTOLE)
    assert method_of(four, other) == ("simpson_monoplane_4CH", [0])
    assert method_of(other, four) == ("simpson_monoplane_4CH", [1])


def test_several_slices_of_an_apical_view_are_not_measured_by_the_first():
    stack = make_stack(slices((4, 4), (2, 2)), slices((4, 4), (2, 2)), view="4CH", ed=0, es=1)
    assert method_of(without_spacing(stack)) == ("", [])


def test_the_ejection_fraction_needs_no_scale_and_is_all_there_is_without_one():
    stack = view_stack("4CH", DIASTOLE, SYSTOLE)
    in_mm, in_pixels = apical_columns(stack), apical_columns(without_spacing(stack))
    for name in ("ef_predicted_percent", "ef_reference_percent", "area_length_ef_predicted_percent"):
        assert in_pixels[name] == pytest.approx(in_mm[name])
    assert in_pixels["ef_predicted_percent"] == pytest.approx(100 * (1 - SYSTOLE.volume_ml / DIASTOLE.volume_ml), abs=2)
    assert not [name for name in in_pixels if name.endswith("_ml")]
    assert in_pixels["not_measurable"] == ""


def test_volumes_of_a_stack_are_area_times_slice_distance():
    row = slice_rows(slices((5, 4), (3, 2)), slices((4, 4), (2, 2)))["LV"]
    # Pixels of 2 x 1 mm, slices 10 mm apart: 20 mm3 or 0.02 ml per voxel.
    assert row["edv_reference_ml"] == pytest.approx((16 + 16) * 0.02)
    assert row["esv_reference_ml"] == pytest.approx((4 + 4) * 0.02)
    assert row["edv_predicted_ml"] == pytest.approx((25 + 16) * 0.02)
    assert row["esv_predicted_ml"] == pytest.approx((9 + 4) * 0.02)
    assert row["sv_reference_ml"] == pytest.approx(24 * 0.02)
    assert row["ef_reference_percent"] == pytest.approx(75)
    assert row["ef_difference_percent"] == pytest.approx(100 * (41 - 13) / 41 - 75)


def test_a_slice_labelled_in_one_phase_only_is_left_out_on_both_sides():
    reference = slices((4, 4, 6), (2, 2, 6))
    reference[1, 2] = IGNORE
    row = slice_rows(slices((4, 4, 6), (2, 2, 6)), reference)["LV"]
    for side in ("predicted", "reference"):
        assert row[f"edv_{side}_ml"] == pytest.approx(32 * 0.02)
        assert row[f"esv_{side}_ml"] == pytest.approx(8 * 0.02)


def test_an_empty_prediction_has_no_volume_and_no_ejection_fraction():
    row = slice_rows(slices((0, 0), (0, 0)), slices((4, 4), (2, 2)))["LV"]
    assert row["edv_predicted_ml"] == 0
    assert math.isnan(row["ef_predicted_percent"])
    assert row["ef_reference_percent"] == pytest.approx(75)


def test_mass_is_that_of_the_wall_at_end_diastole():
    row = slice_rows(slices((4, 4), (3, 3)) * MYO, slices((4, 2), (3, 3)) * MYO, HEART)["MYO"]
    assert row["mass_predicted_g"] == pytest.approx(1.05 * 32 * 0.02)
    assert row["mass_reference_g"] == pytest.approx(1.05 * 20 * 0.02)
    # 32 and 18 voxels: the difference of 14 over the mean of 25.
    assert row["mass_mismatch_predicted_percent"] == pytest.approx(100 * 14 / 25)


def test_the_stroke_volumes_of_the_ventricles_are_compared():
    both = slices((4, 4), (2, 2))
    both[:, :, 6:8, 6:8] = RV
    both[1, :, 6:8, 6:7] = 0
    rows = slice_rows(both, both, HEART)
    # Left 32 - 8 = 24 voxels, right 8 - 4 = 4.
    assert rows["LV"]["sv_gap_to_rv_reference_percent"] == pytest.approx(100 * 20 / 24)
    assert rows["RV"]["edv_reference_ml"] == pytest.approx(8 * 0.02)


def test_biplane_volumes_of_an_ellipsoid_are_right():
    row = apical_columns(view_stack("2CH", DIASTOLE, SYSTOLE), view_stack("4CH", DIASTOLE, SYSTOLE))
    assert row["edv_reference_ml"] == pytest.approx(DIASTOLE.volume_ml, rel=0.02)
    assert row["ef_predicted_percent"] == pytest.approx(100 * (1 - SYSTOLE.volume_ml / DIASTOLE.volume_ml), abs=1)
    assert row["not_measurable"] == ""


def test_prediction_and_reference_of_a_view_are_measured_separately():
    small, large = view_stack("4CH", SYSTOLE, SYSTOLE), view_stack("4CH", DIASTOLE, SYSTOLE)
    row = apical_columns(replace(large, prediction=small.prediction))
    assert row["edv_predicted_ml"] == pytest.approx(SYSTOLE.volume_ml, rel=0.02)
    assert row["edv_reference_ml"] == pytest.approx(DIASTOLE.volume_ml, rel=0.02)


def test_one_view_is_enough():
    row = apical_columns(view_stack("4CH", DIASTOLE, SYSTOLE))
    assert row["edv_reference_ml"] == pytest.approx(DIASTOLE.volume_ml, rel=0.02)


def test_one_view_is_measured_by_area_and_length_as_well():
    row = apical_columns(view_stack("4CH", DIASTOLE, SYSTOLE))
    # Of half an ellipsoid, cut at its widest, the rule is exact.
    assert row["area_length_edv_reference_ml"] == pytest.approx(DIASTOLE.volume_ml, rel=0.03)
    assert row["area_length_ef_difference_percent"] == 0
    two_views = apical_columns(view_stack("2CH", DIASTOLE, SYSTOLE), view_stack("4CH", DIASTOLE, SYSTOLE))
    assert not [column for column in two_views if column.startswith("area_length")]


def test_a_ventricle_without_an_atrium_beside_it_is_not_measured_and_says_why():
    row = apical_columns(view_stack("4CH", DIASTOLE, SYSTOLE, atrium=False))
    assert math.isnan(row["edv_predicted_ml"])
    assert math.isnan(row["ef_predicted_percent"])
    assert "predicted 4CH ED: the ventricle does not touch the atrium" in row["not_measurable"]


def test_the_camus_script_is_added_on_request_and_inflates_the_end_systolic_volume():
    views = view_stack("2CH", DIASTOLE, SYSTOLE), view_stack("4CH", DIASTOLE, SYSTOLE)
    assert "camus_script_edv_reference_ml" not in apical_columns(*views)
    row = apical_columns(*views, options=Options(compat=(CAMUS_SCRIPT,)))
    # The height of the discs is that of end diastole: 85.5 mm where end systole has 66.7 mm.
    assert row["camus_script_esv_reference_ml"] > 1.2 * row["esv_reference_ml"]
