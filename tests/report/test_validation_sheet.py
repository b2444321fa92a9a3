"""The sheet of a validated fold: its size, what is drawn where, and that every kind of fold can be drawn."""

import numpy as np
import pytest
from mask_folders import IGNORE, LV, MYO
from PIL import Image
from validated_fold import ED, ES, FRAMES, only_labelled, squares, write_fold

from nnunet_temporal.errors import InputError
from nnunet_temporal.report.colours import EXPERT_COLOUR, LABEL_COLOURS
from nnunet_temporal.report.validation_sheet import structure_colours, write_validation_sheet

LV_ONLY = {"background": 0, "LV": LV, "ignore": IGNORE}
HEADER_PX, ROW_PX = 76, 316
# Panels of the first row: left end of the first, way to the next, upper end, size.
PANEL_LEFT_PX, PANEL_STEP_PX, PANEL_TOP_PX, PANEL_PX = 24, 222, 120, 216
BLUE = LABEL_COLOURS[0]
INSIDE_AND_BESIDE = (
    (42, 16, True), (46, 16, True), (44, 13.8, True), (44, 18.2, True),
    (41, 16, False), (47, 16, False), (44, 13.2, False), (44, 18.8, False),
)  # fmt: skip


def draw(tmp_path, validation):
    """Draw the sheet; return its pixels (Y, X, 3) and the sequences left out."""
    left_out = write_validation_sheet(validation, tmp_path / "sheet.png", "a title")
    with Image.open(tmp_path / "sheet.png") as picture:
        return np.asarray(picture.convert("RGB")).astype(int), left_out


def is_near(pixels, place, colour, tolerance=40):
    """Return whether a pixel no further than 2 from a place (y, x) is nearly of a colour."""
    y, x = (round(value) for value in place)
    return bool((np.abs(pixels[y - 2 : y + 3, x - 2 : x + 3] - colour).max(axis=-1) < tolerance).any())


def place_in_panel(panel, y_mm, x_mm, view_mm):
    """Return the pixel (y, x) of a point in mm, in a panel that shows the square (left, upper, size) in mm."""
    left, upper, size = view_mm
    scale = PANEL_PX / size
    return PANEL_TOP_PX + (y_mm - upper) * scale, PANEL_LEFT_PX + panel * PANEL_STEP_PX + (x_mm - left) * scale


@pytest.mark.parametrize("pixel_mm", [(1.0, 1.0), (0.5, 1.5)])
def test_outlines_and_image_stand_where_they_belong(tmp_path, pixel_mm):
    # What the file of the expert holds in other frames than the labelled ones is not drawn.
    reference = {"case": squares([0] * FRAMES)}
    pixels, _ = draw(tmp_path, write_fold(tmp_path, {"case": squares([4] * FRAMES)}, reference, LV_ONLY, pixel_mm))
    y_mm, x_mm = pixel_mm
    # Rows 20 to 39 and, with both squares, columns 20 to 43; 70 % more on the longer side.
    size = 1.7 * max(20 * y_mm, 24 * x_mm)
    size = min(size, 60 * max(pixel_mm))
    view = (31.5 * x_mm - size / 2, 29.5 * y_mm - size / 2, size)
    middle = 29.5 * y_mm
    for panel in range(5):  # frames 1 to 5, of which the first and the last are labelled
        expert = place_in_panel(panel, middle, 19.5 * x_mm, view)
        assert is_near(pixels, expert, EXPERT_COLOUR) == (panel in (0, 4))
        assert is_near(pixels, place_in_panel(panel, middle, 23.5 * x_mm, view), BLUE)
        assert is_near(pixels, place_in_panel(panel, middle, 43.5 * x_mm, view), BLUE)
        # Neither has an edge on the way to the predicted one.
        for column in (28, 33, 38):
            assert not is_near(pixels, place_in_panel(panel, middle, column * x_mm, view), BLUE)
        # Rows 42 to 46 and columns 14 to 18 of the masks' grid are bright in even frames.
        for row, column, is_inside in INSIDE_AND_BESIDE:
            y, x = place_in_panel(panel, row * y_mm, column * x_mm, view)
            assert (pixels[round(y), round(x)] > 128).all() == (is_inside and (ED + panel) % 2 == 0)


def test_a_frame_that_preprocessing_has_cut_away_is_black(tmp_path):
    labelled = (0, 8)
    phases = {"ed": 0, "es": 8, "labelled_frames": labelled}
    reference = {"case": only_labelled(squares([0] * FRAMES), labelled)}
    pixels, _ = draw(tmp_path, write_fold(tmp_path, {"case": squares([4] * FRAMES)}, reference, LV_ONLY, **phases))
    view = (31.5 - 20.4, 29.5 - 20.4, 40.8)
    assert is_near(pixels, place_in_panel(0, 44, 16, view), (0, 0, 0), tolerance=5)
    assert is_near(pixels, place_in_panel(1, 44, 16, view), (255, 255, 255))


def test_the_rows_are_the_worst_the_median_and_the_best_sequence(tmp_path):
    shifts = {"good": 0, "poor": 10, "middling": 4}
    fold = {case: squares([shift] * FRAMES) for case, shift in shifts.items()}
    pixels, left_out = draw(tmp_path, write_fold(tmp_path, fold, labels=LV_ONLY))
    assert pixels.shape == (HEADER_PX + 3 * ROW_PX, 1600, 3)
    assert left_out == []
    for row, shift in enumerate((10, 4, 0)):
        size = 1.7 * (20 + shift)
        view = (29.5 + shift / 2 - size / 2, 29.5 - size / 2, size)
        y, x = place_in_panel(2, 29.5, 19.5 + shift, view)
        assert is_near(pixels, (y + row * ROW_PX, x), BLUE)


@pytest.mark.parametrize("n_sequences", [1, 2])
def test_fewer_sequences_give_fewer_rows(tmp_path, n_sequences):
    fold = {f"case{number}": squares([number] * FRAMES) for number in range(n_sequences)}
    pixels, _ = draw(tmp_path, write_fold(tmp_path, fold))
    assert pixels.shape == (HEADER_PX + n_sequences * ROW_PX, 1600, 3)


def test_the_curve_rises_to_its_areas_and_bears_the_points_of_the_expert(tmp_path):
    shifts = [0] * FRAMES
    shifts[0] = None
    pixels, _ = draw(tmp_path, write_fold(tmp_path, {"case": squares(shifts)}, labels=LV_ONLY))
    left, right, top = 1212, 1576, 120

    def place(frame, area_cm2):
        """Return the pixel of a point: 3 % of the range of frames are free on both sides, 10 % of areas above."""
        share = (frame / (FRAMES - 1) + 0.03) / 1.06
        return top + PANEL_PX * (1 - area_cm2 / 4.4), left + (right - left) * share

    assert is_near(pixels, place(7, 4.0), BLUE)
    assert is_near(pixels, place(0.5, 2.0), BLUE)
    assert not is_near(pixels, place(7, 2.0), BLUE)
    for frame in range(FRAMES):
        assert is_near(pixels, place(frame, 4.0), EXPERT_COLOUR) == (frame in (ED, ES))


def test_sequences_with_no_structure_at_all_are_left_out_by_name(tmp_path):
    nothing = squares([None] * FRAMES)
    fold = {"empty": nothing, "missed": nothing, "found": squares([0] * FRAMES)}
    references = {"empty": only_labelled(nothing, (ED, ES))}
    pixels, left_out = draw(tmp_path, write_fold(tmp_path, fold, references, LV_ONLY))
    assert left_out == ["empty"]
    assert len(pixels) == HEADER_PX + 2 * ROW_PX


def test_a_structure_that_nobody_drew_but_was_predicted_is_a_miss(tmp_path):
    references = {"a": only_labelled(squares([None] * FRAMES), (ED, ES))}
    _, left_out = draw(tmp_path, write_fold(tmp_path, {"a": squares([0] * FRAMES)}, references, LV_ONLY))
    assert left_out == []


def test_a_fold_without_any_structure_is_refused(tmp_path):
    nothing = squares([None] * FRAMES)
    validation = write_fold(tmp_path, {"empty": nothing}, {"empty": only_labelled(nothing, (ED, ES))}, LV_ONLY)
    with pytest.raises(InputError, match="expected one in which a structure is drawn or predicted"):
        write_validation_sheet(validation, tmp_path / "sheet.png", "a title")


def test_one_frame_dense_labels_unknown_spacing_and_full_frames_are_drawn(tmp_path):
    one = write_fold(
        tmp_path / "one", {"case": squares([0])}, {"case": squares([2])}, labelled_frames=(0,), ed=None, es=None
    )
    full = np.full((FRAMES, 60, 60), MYO, np.uint8)
    everything = {"labelled_frames": tuple(range(FRAMES)), "ed": None, "es": None, "pixel_spacing_known": False}
    dense = write_fold(tmp_path / "dense", {"case": full}, {"case": full}, frame_interval_s=None, **everything)
    for validation in (one, dense):
        assert draw(tmp_path, validation)[0].shape == (HEADER_PX + ROW_PX, 1600, 3)


def test_regions_and_many_structures_are_drawn_with_a_second_line_of_figures(tmp_path):
    labels = {"background": 0, "heart": [LV, MYO], **{f"part {value}": value for value in range(1, 6)}}
    pixels, _ = draw(tmp_path, write_fold(tmp_path, {"case": squares([3] * FRAMES)}, labels=labels))
    assert pixels.shape == (HEADER_PX + ROW_PX + 26, 1600, 3)


def test_colours_are_those_of_the_report_and_go_by_order_where_there_are_no_roles():
    assert structure_colours({"background": 0, "RV": 1, "MYO": 2, "LV": 3, "ignore": 4}) == {
        "RV": LABEL_COLOURS[2], "MYO": LABEL_COLOURS[1], "LV": LABEL_COLOURS[0]
    }  # fmt: skip
    assert structure_colours({"background": 0, "heart": [1, 2], "LV": 1}) == {
        "heart": LABEL_COLOURS[0], "LV": LABEL_COLOURS[1]
    }  # fmt: skip


def test_a_missing_mask_is_an_error_and_leaves_no_sheet(tmp_path):
    validation = write_fold(tmp_path, {"case": squares([0] * FRAMES)})
    (validation.masks / "case.nii.gz").unlink()
    with pytest.raises(RuntimeError):
        write_validation_sheet(validation, tmp_path / "sheet.png", "a title")
    assert not list(tmp_path.glob("*.png"))
