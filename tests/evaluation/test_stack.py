"""Reading and checking the masks of a stack."""

import numpy as np
import pytest
from mask_folders import IGNORE, LV, SCHEME, make_stack, square, write_masks

from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.pairs import StackFiles, StudyFiles
from nnunet_temporal.evaluation.stack import check_study, read_stack
from nnunet_temporal.sequences import Sequence

MOVIE = np.stack([square(2, 3), square(3, 3), square(2, 3)])


def files_of(tmp_path, prediction, reference=MOVIE, pixel_mm=(2.0, 1.0), **fields):
    write_masks(tmp_path / "ref", {"a": reference})
    write_masks(tmp_path / "pred", {"a": prediction}, pixel_mm)
    sequence = Sequence("a", "a", **{"n_frames": 3, "labelled_frames": ()} | fields)
    return StackFiles((sequence,), (tmp_path / "ref" / "a.nii.gz",), (tmp_path / "pred" / "a.nii.gz",))


def test_the_masks_are_cut_to_the_box_of_all_labels(tmp_path):
    stack = read_stack(files_of(tmp_path, np.stack([square(2, 5)] * 3)), SCHEME)
    # Rows 2..6 and columns 3..8 hold labels of the reference or of the prediction.
    assert stack.prediction.shape == stack.reference.shape == (3, 1, 5, 6)
    assert (stack.prediction == LV).sum() == (stack.reference == LV).sum() == 3 * 16
    assert stack.image_rows == 12


def test_masks_without_any_label_keep_one_pixel(tmp_path):
    empty = np.zeros_like(MOVIE)
    assert read_stack(files_of(tmp_path, empty, empty), SCHEME).prediction.shape == (3, 1, 1, 1)


def test_frames_that_are_all_ignored_are_unlabelled_and_hold_no_structure(tmp_path):
    reference = MOVIE.copy()
    reference[1] = IGNORE
    stack = read_stack(files_of(tmp_path, MOVIE, reference), SCHEME)
    assert stack.labelled.ravel().tolist() == [True, False, True]
    assert not stack.reference[1].any()
    assert not stack.scored_prediction[1].any()
    assert stack.prediction[1].any()


def test_a_frame_that_is_labelled_in_part_is_labelled_there(tmp_path):
    reference = MOVIE.copy()
    reference[1, :, 5:] = IGNORE
    stack = read_stack(files_of(tmp_path, MOVIE, reference), SCHEME)
    assert stack.labelled.all()
    # Of the square in rows 3..6 and columns 3..6 two columns are left.
    assert (stack.scored_prediction[1] == LV).sum() == 8


def test_a_frame_with_background_only_is_labelled(tmp_path):
    reference = MOVIE.copy()
    reference[1] = 0
    assert read_stack(files_of(tmp_path, MOVIE, reference), SCHEME).labelled.all()


def test_the_spacing_is_that_of_the_file(tmp_path):
    stack = read_stack(files_of(tmp_path, MOVIE), SCHEME)
    assert stack.pixel_mm == (2.0, 1.0)
    assert stack.unit == "mm"


def test_an_unknown_spacing_makes_pixels(tmp_path):
    stack = read_stack(files_of(tmp_path, MOVIE, pixel_spacing_known=False), SCHEME)
    assert stack.pixel_mm is None
    assert (stack.unit, stack.pixel_spacing) == ("px", (1.0, 1.0))


@pytest.mark.parametrize(
    ("prediction", "pixel_mm", "complaint"),
    [
        (MOVIE[:2], (2.0, 1.0), r"found 2 frames of 1 slices, expected 3"),
        (MOVIE[:, 1:], (2.0, 1.0), r"found the shape .*11, 14.*expected .*12, 14"),
        (MOVIE, (2.0, 1.5), r"found pixel spacing \(2.0, 1.5\)"),
        (MOVIE * 7, (2.0, 1.0), r"found label values \[7\]"),
        (MOVIE * IGNORE, (2.0, 1.0), r"found label values \[9\], expected only \[0, 1, 2\]"),
    ],
    ids=["frames", "pixels", "spacing", "value", "ignore"],
)
def test_a_prediction_that_does_not_fit_is_refused(tmp_path, prediction, pixel_mm, complaint):
    files = files_of(tmp_path, prediction, pixel_mm=pixel_mm)
    with pytest.raises(InputError, match=complaint):
        read_stack(files, SCHEME)


def test_both_files_are_reported_when_both_are_bad(tmp_path):
    files = files_of(tmp_path, MOVIE * 7, MOVIE * 5)
    first, second = check_study(StudyFiles("a", (files,)), SCHEME)
    assert "ref/a.nii.gz: found label values [5]" in first
    assert "pred/a.nii.gz: found label values [7]" in second


def test_a_good_study_has_no_problem(tmp_path):
    assert check_study(StudyFiles("a", (files_of(tmp_path, MOVIE),)), SCHEME) == []


@pytest.mark.parametrize(
    ("view", "apical"),
    [("2CH", "2CH"), ("A2C", "2CH"), ("4ch", "4CH"), ("A4C", "4CH"), ("ap4", "4CH"), ("SAX", None), (None, None)],
)
def test_two_and_four_chamber_views_are_apical_by_all_their_names(view, apical):
    stack = make_stack(MOVIE, MOVIE, view=view)
    assert stack.apical_view == apical
    assert stack.is_apical is (apical is not None)


def test_slices_at_known_distances_have_positions():
    stack = make_stack(np.stack([MOVIE] * 3, axis=1), np.stack([MOVIE] * 3, axis=1), slice_spacing_mm=8.0)
    assert stack.positions_mm.tolist() == [0.0, 8.0, 16.0]


def test_a_single_slice_has_no_position_in_a_stack():
    assert make_stack(MOVIE, MOVIE, slice_spacing_mm=8.0).positions_mm is None
