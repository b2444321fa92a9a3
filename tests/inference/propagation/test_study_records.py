"""What is known of each frame: how sure its mask is, how two masks agree, and the table of it all."""

import csv

import numpy as np
import pytest

from nnunet_temporal.inference.propagation.study_records import (
    FrameRecord,
    centre_of,
    mean_dice,
    read_records,
    remarks_on,
    write_records,
)

COLUMNS = ["slice", "frame", "region", "origin", "confidence", "agreement", "jump_px"]


def test_every_frame_is_a_line_and_what_is_not_known_is_empty(tmp_path):
    records = [
        FrameRecord(0, 0, "middle", "seed", 1.0, 0.987654, None),
        FrameRecord(0, 1, "middle", "time", np.float64(0.5), None, 12.34567),
        FrameRecord(1, 0, "apex", "beyond the heart"),
    ]
    write_records(records, tmp_path / "a_frames.csv")
    with (tmp_path / "a_frames.csv").open(newline="", encoding="utf-8") as content:
        lines = list(csv.reader(content))
    assert lines == [
        COLUMNS,
        ["0", "0", "middle", "seed", "1.0000", "0.9877", ""],
        ["0", "1", "middle", "time", "0.5000", "", "12.3457"],
        ["1", "0", "apex", "beyond the heart", "", "", ""],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a_frames.csv"]


def test_a_table_that_is_not_finished_leaves_the_old_one_alone(tmp_path):
    file = tmp_path / "a_frames.csv"
    file.write_text("old")

    def broken():
        yield FrameRecord(0, 0, "base", "seed")
        raise RuntimeError("no more frames")

    with pytest.raises(RuntimeError, match="no more frames"):
        write_records(broken(), file)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_the_mean_dice_is_over_the_labels_of_either_mask():
    one, other = np.array([[1, 1, 2, 2, 0]]), np.array([[1, 0, 2, 2, 3]])
    assert mean_dice(one, other) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert mean_dice(other, one) == mean_dice(one, other)
    assert mean_dice(one, one) == 1


def test_two_masks_of_background_agree_and_one_alone_does_not():
    empty, one = np.zeros((3, 3), np.uint8), np.eye(3, dtype=np.uint8)
    assert mean_dice(empty, empty) == 1
    assert mean_dice(empty, one) == 0


def test_the_centre_is_that_of_all_foreground_from_the_corner_of_the_map():
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2] = 2
    mask[2, 3:6] = 1
    np.testing.assert_allclose(centre_of(mask, (10, 20)), [12, 20 + 3])
    assert centre_of(np.zeros((6, 8)), (10, 20)) is None


def study_of(regions=("base", "middle", "apex"), seed=(1, 0)):
    """Return records of a study of two moments, and masks in which only the middle slice is filled at all times."""
    masks = np.zeros((2, 3, 4, 4), np.uint8)
    masks[:, 1, 1:3, 1:3] = 1
    masks[0, (0, 2), 1] = 1
    records = [
        FrameRecord(z, t, regions[z], "seed" if (z, t) == seed else "slices", 0.5) for z in range(3) for t in range(2)
    ]
    return records, masks


def test_records_are_read_as_they_were_written(tmp_path):
    records = [*study_of()[0], FrameRecord(2, 2, "apex", "blank"), FrameRecord(2, 3, "apex", "time", 0.25, 0.5, 1.5)]
    write_records(records, tmp_path / "a.csv")
    assert read_records(tmp_path / "a.csv") == records


def test_a_study_in_order_needs_no_remark():
    assert remarks_on(*study_of()) == []


def test_ends_that_look_alike_are_remarked_on():
    assert "--apex" in remarks_on(*study_of(("middle",) * 3))[0]


def test_a_stack_that_is_cut_off_is_remarked_on():
    records, masks = study_of()
    masks[:, 2, 0, 0] = 1
    (remark,) = remarks_on(records, masks)
    assert "fills the last slice" in remark
    masks[:, 0, 0, 0] = 1
    (remark,) = remarks_on(records, masks)
    assert "fills the first and the last slice" in remark


def test_structures_that_the_seeds_lack_are_remarked_on():
    records, masks = study_of()
    masks[1, 1, 1, 1] = 2
    (remark,) = remarks_on(records, masks)
    assert "label values [2]" in remark
