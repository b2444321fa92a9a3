"""Figures of single frames."""

import math

import numpy as np
import pytest
from mask_folders import IGNORE, LV, LV_ONLY, MYO, SCHEME, make_stack, square

from nnunet_temporal.evaluation.frame_rows import measure_frames, structure_movies
from nnunet_temporal.evaluation.options import MEDPY_POOLED, ROWWISE_DICE, Options
from nnunet_temporal.evaluation.phase_frames import find_phase_frames
from nnunet_temporal.metrics.overlap import legacy_rowwise_dice


def rows_of(prediction, reference, label="LV", labels=LV_ONLY, options=None, **fields):
    stack = make_stack(prediction, reference, **fields)
    movie = next(movie for movie in structure_movies(stack, labels) if movie.name == label)
    return measure_frames(stack, movie, find_phase_frames(stack, labels), labels, options or Options())


def one_frame(prediction, reference, **fields):
    (row,) = rows_of(prediction[None], reference[None], **fields)
    return row


def ring(cavity=4):
    """A cavity of 4x4 pixels in a wall that is 2 pixels thick."""
    labels = square(2, 3, 8, MYO)
    labels[4 : 4 + cavity, 5 : 5 + cavity] = LV
    return labels


def test_a_perfect_prediction_has_no_error():
    row = one_frame(square(2, 3), square(2, 3))
    assert [row[name] for name in ("dice", "iou", "nsd_2mm")] == [1, 1, 1]
    assert [row[name] for name in ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")] == [0, 0, 0, 0]


def test_a_square_shifted_by_a_column_loses_a_column_of_overlap():
    row = one_frame(square(2, 4), square(2, 3), pixel_mm=(2.0, 1.5))
    # 4 x 4 pixels each, 4 x 3 shared: 2 * 12 / 32 and 12 / (32 - 12).
    assert row["dice"] == 0.75
    assert row["iou"] == 0.6
    # The outer column of each is one column, 1.5 mm, from the other square.
    assert row["hd_mm"] == row["hd95_mm"] == 1.5
    # Of 12 outline pixels the column of 4 is 1.5 mm off. The inner column (2 pixels of it inside) lies on the other's
    # outline but for its 2 inner pixels, which are 1.5 mm from the outline on either side: 6 of 12 are off.
    assert row["assd_mm"] == row["masd_mm"] == pytest.approx(6 * 1.5 / 12)
    assert row["area_predicted_mm2"] == row["area_reference_mm2"] == 16 * 3.0


@pytest.mark.parametrize(
    ("prediction", "reference"), [(square(0, 0, 0), square(2, 3)), (square(2, 3), square(0, 0, 0))]
)
def test_a_structure_that_one_side_misses_has_no_overlap_and_an_infinite_distance(prediction, reference):
    row = one_frame(prediction, reference)
    assert [row[name] for name in ("dice", "iou", "nsd_2mm")] == [0, 0, 0]
    assert [row[name] for name in ("hd_mm", "hd95_mm", "assd_mm", "masd_mm")] == [math.inf] * 4


def test_a_structure_that_neither_side_has_says_nothing():
    row = one_frame(square(0, 0, 0), square(0, 0, 0))
    assert all(math.isnan(row[name]) for name in ("dice", "iou", "hd_mm", "hd95_mm", "assd_mm", "nsd_2mm"))


def test_unlabelled_frames_have_areas_and_validity_of_the_prediction_only():
    reference = np.stack([square(2, 3), np.full((12, 14), IGNORE, np.uint8)])
    first, second = rows_of(np.stack([square(2, 3)] * 2), reference)
    assert (first["labelled"], second["labelled"]) == (1, 0)
    assert second["area_predicted_mm2"] == 16
    assert second["parts_predicted"] == 1
    assert not {"dice", "hd_mm", "area_reference_mm2", "parts_reference"} & set(second)


def test_pixels_that_nobody_labelled_are_not_scored():
    reference = square(2, 3)
    reference[:, 8:] = IGNORE
    prediction = square(2, 3) | square(2, 9)
    assert one_frame(prediction, reference)["dice"] == 1


def test_an_unknown_spacing_gives_pixels_and_says_so():
    row = one_frame(square(2, 5), square(2, 3), pixel_mm=None)
    assert row["hd_px"] == 2
    assert row["area_predicted_px2"] == 16
    assert "nsd_2px" in row
    assert not [name for name in row if "mm" in name]


def test_the_tolerance_of_the_surface_dice_stands_in_its_name():
    row = one_frame(square(2, 4), square(2, 3), options=Options(nsd_tolerance=0.5))
    # 6 of the 12 outline pixels of each side are one pixel off, see above.
    assert row["nsd_0.5mm"] == 0.5


def test_phases_are_named():
    rows = rows_of(np.stack([square(2, 3)] * 3), np.stack([square(2, 3)] * 3), ed=0, es=2)
    assert [row["phase"] for row in rows] == ["ED", "", "ES"]


def test_parts_and_holes_are_counted():
    prediction = ring() | square(0, 0, 1, MYO)
    prediction[prediction == LV] = 0
    row = one_frame(prediction, ring(), label="EPI", labels=SCHEME)
    assert (row["parts_predicted"], row["parts_reference"]) == (2, 1)
    assert (row["holes_predicted"], row["holes_reference"]) == (1, 0)


def test_the_cavity_is_not_called_a_hole_of_the_wall():
    assert not [name for name in one_frame(ring(), ring(), label="MYO", labels=SCHEME) if "holes" in name]


def test_a_gap_in_the_wall_opens_the_ring():
    prediction = ring()
    prediction[4:8, 3:5] = 0  # the wall on one of four sides is gone
    row = one_frame(prediction, ring(), labels=SCHEME)
    assert row["ring_opening_predicted_share"] == 4 / 16
    assert row["ring_opening_reference_share"] == 0


def test_the_pooled_percentile_of_medpy_is_added_on_request():
    row = one_frame(square(2, 3) | square(8, 10, 1), square(2, 3), options=Options(compat=(MEDPY_POOLED,)))
    # 13 outline pixels of the prediction and 12 of the reference; only the pixel at (8, 10) is off, by (3, 4): 5. The
    # 95th percentile of the 13 lies at place 0.95 * 12 = 11.4, between 0 and 5: 2. That of all 25 at 22.8: 0.
    assert row["hd95_mm"] == pytest.approx(0.4 * 5)
    assert row["hd95_medpy_pooled_mm"] == 0


def test_the_rowwise_dice_counts_the_rows_that_were_cut_away():
    prediction, reference = square(2, 4), square(2, 3)
    stack = make_stack(prediction[None, 2:6, 3:8], reference[None, 2:6, 3:8])
    object.__setattr__(stack, "image_rows", 12)
    movie = next(structure_movies(stack, LV_ONLY))
    (row,) = measure_frames(stack, movie, find_phase_frames(stack, LV_ONLY), LV_ONLY, Options(compat=(ROWWISE_DICE,)))
    assert row["dice_rowwise"] == pytest.approx(legacy_rowwise_dice(prediction == LV, reference == LV))
