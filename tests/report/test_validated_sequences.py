"""Which sequences are chosen from a validated fold, and what is read of them, against values found by hand."""

import math

import numpy as np
import pytest
from mask_folders import IGNORE, LV, MYO
from validated_fold import COLUMNS, ED, ES, FRAMES, ROWS, only_labelled, squares, write_fold

from nnunet_temporal.errors import InputError
from nnunet_temporal.report.validated_sequences import choose_cases, mean_dice, read_scores, read_sequence

LV_ONLY = {"background": 0, "LV": LV, "ignore": IGNORE}


def read_one(tmp_path, prediction, reference=None, **arguments):
    """Write a fold of one sequence and read it."""
    references = None if reference is None else {"case": reference}
    validation = write_fold(tmp_path, {"case": prediction}, references, **{"labels": LV_ONLY} | arguments)
    return read_sequence(validation, "case", read_scores(validation)["case"])


def test_dice_is_that_of_the_labelled_frames_alone(tmp_path):
    shifts = [10] * FRAMES
    shifts[ED], shifts[ES] = 4, 0
    validation = write_fold(tmp_path, {"case": squares(shifts)})
    # Of 20 columns 16 overlap at ED and 20 at ES; nobody predicted or drew a wall.
    scores = read_scores(validation)["case"]
    assert scores["LV"] == pytest.approx((16 + 20) / 40)
    assert math.isnan(scores["MYO"])


def test_regions_are_scored_as_unions_of_their_labels(tmp_path):
    labels = {"background": 0, "heart": [LV, MYO], "LV": LV, "ignore": IGNORE}
    validation = write_fold(tmp_path, {"case": squares([5] * FRAMES, MYO)}, labels=labels)
    assert read_scores(validation)["case"] == {"heart": pytest.approx(15 / 20), "LV": 0.0}
    sequence = read_sequence(validation, "case", {})
    assert sequence.predicted("heart").sum() == FRAMES * 400
    assert sequence.predicted("LV").sum() == 0


def test_worst_median_and_best_are_chosen_by_the_mean_over_structures():
    scores = {
        "a": {"LV": 0.9, "MYO": 0.7},
        "b": {"LV": 0.95, "MYO": 0.2},
        "c": {"LV": 0.85, "MYO": math.nan},
        "d": {"LV": math.nan, "MYO": math.nan},
        "e": {"LV": 0.6, "MYO": 0.6},
    }
    assert [mean_dice(dice.values()) for dice in scores.values()][:3] == pytest.approx([0.8, 0.575, 0.85])
    # From worst to best: b, e, a, c; of these four the lower one in the middle.
    assert choose_cases(scores) == {"worst": "b", "median": "e", "best": "c"}


@pytest.mark.parametrize(
    ("dice", "chosen"),
    [
        ([0.4], {"only": "0"}),
        ([0.4, 0.3], {"worst": "1", "best": "0"}),
        ([0.5, 0.5, 0.5], {"worst": "0", "median": "1", "best": "2"}),
    ],
)
def test_fewer_sequences_give_fewer_roles(dice, chosen):
    assert choose_cases({str(case): {"LV": value} for case, value in enumerate(dice)}) == chosen


def test_nothing_is_chosen_where_no_sequence_has_a_structure():
    with pytest.raises(InputError, match="found 1 validated sequences, expected one in which a structure"):
        choose_cases({"a": {"LV": math.nan}})


def test_areas_are_in_square_centimetres_and_in_pixels_where_no_length_is_known(tmp_path):
    shifts = [0] * FRAMES
    shifts[3] = None
    known = read_one(tmp_path / "known", squares(shifts), pixel_mm=(2.0, 1.5))
    areas = known.areas(known.predicted("LV"))
    assert known.area_unit == "cm²"
    assert areas.tolist() == pytest.approx([12.0] * 3 + [0.0] + [12.0] * 5)
    assert known.areas(known.expert("LV"))[[ED, ES]].tolist() == pytest.approx([12.0, 12.0])
    unknown = read_one(tmp_path / "unknown", squares(shifts), pixel_mm=(2.0, 1.5), pixel_spacing_known=False)
    assert unknown.area_unit == "px"
    assert unknown.areas(unknown.predicted("LV")).tolist() == [400] * 3 + [0] + [400] * 5


def test_the_image_is_read_with_its_place_on_the_masks(tmp_path):
    sequence = read_one(tmp_path, squares([0] * FRAMES), pixel_mm=(2.0, 1.5))
    assert sequence.box == (slice(1, FRAMES), ROWS, COLUMNS)
    assert sequence.pixel_mm == (2.0, 1.5)
    # The first of two channels, at twice the masks' resolution.
    assert sequence.image.shape == (FRAMES - 1, 80, 100)
    assert sequence.image.sum() == 4 * 5 * 5 * 4  # frames 2, 4, 6 and 8


def test_flicker_is_that_of_a_cyclic_or_an_open_sequence(tmp_path):
    shifts = [None] + [0] * (FRAMES - 1)
    # The square is missing in the first frame only: between two others just where the sequence is closed.
    cyclic = read_one(tmp_path / "cyclic", squares(shifts))
    assert cyclic.flicker_percent("LV") == pytest.approx(100 * (400 / 9) / (8 * 400 / 9))
    assert read_one(tmp_path / "open", squares(shifts), cyclic=False).flicker_percent("LV") == 0


@pytest.mark.parametrize(
    ("ed", "es", "labelled", "frames"),
    [
        (1, 5, (1, 5), [1, 2, 3, 4, 5]),
        (8, 0, (0, 8), [0, 2, 4, 6, 8]),  # end systole first
        (1, 2, (1, 2), [1, 2, 3, 4, 5]),  # nothing in between
        (7, 8, (7, 8), [4, 5, 6, 7, 8]),
        (4, None, (4,), [4, 5, 6, 7, 8]),
        (6, None, (6,), [4, 5, 6, 7, 8]),
    ],
)
def test_frames_are_shown_from_one_compared_frame_to_the_other(tmp_path, ed, es, labelled, frames):
    reference = only_labelled(squares([0] * FRAMES), labelled)
    sequence = read_one(tmp_path, squares([0] * FRAMES), reference, ed=ed, es=es, labelled_frames=labelled)
    assert sequence.shown_frames(5) == frames


def test_a_sequence_of_one_frame_is_shown_once(tmp_path):
    one = {"labelled_frames": (0,), "ed": None, "es": None}
    sequence = read_one(tmp_path, squares([0]), squares([0]), **one)
    assert sequence.shown_frames(5) == [0]
    assert math.isnan(sequence.flicker_percent("LV"))
    assert np.array_equal(sequence.predicted("LV"), sequence.expert("LV"))


def test_without_ed_and_es_the_largest_and_the_smallest_drawn_frame_are_compared(tmp_path):
    reference = squares([0] * FRAMES)
    reference[2, :30] = 0  # half of the square
    reference[6, :25] = 0
    reference[4] = 0  # not labelled: does not count
    labelled = (0, 2, 6)
    drawn = {"ed": None, "es": None, "labelled_frames": labelled}
    sequence = read_one(tmp_path, squares([0] * FRAMES), only_labelled(reference, labelled), **drawn)
    assert sequence.compared_frames() == (0, 2)
