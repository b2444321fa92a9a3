import sys

import numpy as np
import pytest
from echo_layouts import dice, heart, save_video
from scipy.io import savemat

from nnunet_temporal.datasets import hmcqu
from nnunet_temporal.datasets.finished_studies import fingerprint
from nnunet_temporal.datasets.hmcqu import CHANNEL, LABELS, NAME, find_studies
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.errors import InputError

pytest.importorskip("av")
openpyxl = pytest.importorskip("openpyxl")

MASKS = "LV Ground-truth Segmentation Masks"
HEADER = ["ECHO", *(f"SEG{k}" for k in (1, 2, 3, 5, 6, 7)), "Reference Frame", "End of One-Cycle Frame"]
HEADER.append("LV Wall Ground-truth Segmentation Masks")
FIRST, LAST = 3, 12  # counted from 1, both masked
SIZE = (60, 80)
FRAMES, WALL = heart(14, SIZE, ed=2, es=7)
NAMES = ("ES0001 _4CH_1", "ES0001 _4CH_2", "ES0002 _4CH_1", "ES0003 _4CH_1")  # the last has no masks


def masks_224(first=FIRST, last=LAST):
    y, x = ((np.arange(224) * size // 224) for size in SIZE)
    return (WALL[first - 1 : last, y[:, None], x] == 2).astype(np.uint8)


def save_sheet(path, rows):
    book = openpyxl.Workbook()
    for row in (HEADER, *rows):
        book.active.append(row)
    book.save(path)


def save_masks(folder, name, masks):
    (folder / MASKS).mkdir(exist_ok=True)
    savemat(folder / MASKS / f"Mask_{name}.mat", {"predicted": masks})


@pytest.fixture
def root(tmp_path):
    for name in NAMES:
        save_video(tmp_path / "HMC-QU" / "A4C" / f"{name}.avi", FRAMES, 25, "ffv1", "gray")
        if name != NAMES[3]:
            save_masks(tmp_path, name, masks_224())
    # A recording of the other view, which no table of four-chamber views lists.
    save_video(tmp_path / "HMC-QU" / "A2C" / "ES0001 _2CH_1.avi", FRAMES, 25)
    rows = [[name, *["non-MI"] * 6, FIRST, LAST, "ü" if name != NAMES[3] else None] for name in NAMES]
    save_sheet(tmp_path / "A4C.xlsx", rows)
    return tmp_path


def first_study(folder):
    return find_studies(folder)[0]


def test_recordings_are_views_of_their_patient_and_blanks_in_names_go(root):
    places = [(study.study, study.view) for study in find_studies(root)]
    assert places == [("ES0001", "4CH_1"), ("ES0001", "4CH_2"), ("ES0002", "4CH_1"), ("ES0003", "4CH_1")]


def test_frames_of_the_table_count_from_1_and_include_the_last(root):
    study = first_study(root)
    image, labels = study.load_image(), study.load_labels()
    assert np.array_equal(image, FRAMES[2:12]) and labels.shape == image.shape
    assert study.cyclic and study.spacing.frame_s == pytest.approx(0.04) and not study.spacing.pixel_known


def test_masks_of_224_pixels_are_brought_to_the_grid_of_the_recording(root):
    labels = first_study(root).load_labels()
    assert labels.dtype == np.uint8 and set(np.unique(labels)) == {0, 1}
    for t in range(10):
        assert dice(labels[t] == 1, WALL[t + 2] == 2) > 0.99


def test_a_recording_without_a_tick_is_whole_and_unlabelled(root):
    study = find_studies(root)[3]
    assert study.load_labels is None and not study.cyclic and len(study.load_image()) == 14


def test_a_frame_without_any_wall_carries_the_ignore_label(root):
    masks = masks_224()
    masks[4] = 0
    save_masks(root, NAMES[0], masks)
    labels = first_study(root).load_labels()
    assert np.all(labels[4] == LABELS["ignore"]) and not np.any(labels[5] == LABELS["ignore"])


def test_masks_of_0_and_255_are_masks(root):
    before = first_study(root).load_labels()
    save_masks(root, NAMES[0], masks_224() * 255)
    assert np.array_equal(first_study(root).load_labels(), before)


def test_the_older_layout_is_read_as_well(root):
    (root / "A4C.xlsx").rename(root / "HMC_QU.xlsx")
    (root / "HMC-QU" / "A4C").rename(root / "HMC-QU" / "HMC-QU Echos")
    (root / "HMC-QU").rename(root / "HMC-QU Echos")
    assert len(find_studies(root)) == 4


def test_empty_rows_at_the_end_of_the_table_are_passed_over(root):
    book = openpyxl.load_workbook(root / "A4C.xlsx")
    book.active.append([None] * 9 + [" "])
    book.save(root / "A4C.xlsx")
    assert len(find_studies(root)) == 4


def test_the_dataset_is_written_and_patients_stay_on_one_side(root, tmp_path):
    written = write_raw_dataset(find_studies(root), DatasetInfo(7, NAME, LABELS, CHANNEL), tmp_path)
    assert written.manifest["ES0001_4CH_2"].labelled_frames == tuple(range(10))
    for fold in written.splits:
        assert len({"ES0001_4CH_1", "ES0001_4CH_2"} & set(fold["val"])) in (0, 2)


def test_a_study_is_known_again(root):
    assert fingerprint(first_study(root), LABELS) == fingerprint(first_study(root), LABELS)


@pytest.mark.parametrize(
    ("first", "last", "message"),
    [
        (3, 15, r"ES0001 _4CH_1\.avi: found masked frames 3 to 15, counted from 1, expected some of its 14 frames"),
        (0, 9, "found masked frames 0 to 9"),
        (12, 3, "found masked frames 12 to 3"),
        ("x", 3, r"A4C\.xlsx: found frames 'x' to 3 for 'ES0001 _4CH_1', expected numbers"),
        (3, None, "found frames 3 to None"),
    ],
)
def test_odd_frames_are_refused(root, first, last, message):
    save_sheet(root / "A4C.xlsx", [[NAMES[0], *["MI"] * 6, first, last, "ü"]])
    with pytest.raises(InputError, match=message):
        find_studies(root)


def test_masks_of_another_number_of_frames_are_refused(root):
    save_masks(root, NAMES[0], masks_224(last=11))
    with pytest.raises(InputError, match=r"Mask_.*found masks of shape \(9, 224, 224\), expected \(10, 224, 224\)"):
        first_study(root).load_labels()


def test_masks_of_more_than_one_class_are_refused(root):
    masks = masks_224()
    masks[:, :9] = 3
    save_masks(root, NAMES[0], masks)
    with pytest.raises(InputError, match=r"found values \[0, 1, 3\], expected 0 and one other"):
        first_study(root).load_labels()


def test_a_broken_mask_file_is_refused(root):
    (root / MASKS / f"Mask_{NAMES[0]}.mat").write_bytes(b"no masks" * 40)
    with pytest.raises(InputError, match=r"Mask_.*\.mat: expected a variable 'predicted'"):
        first_study(root).load_labels()


def test_missing_recordings_and_masks_are_all_listed(root):
    (root / "HMC-QU" / "A4C" / f"{NAMES[0]}.avi").unlink()
    (root / MASKS / f"Mask_{NAMES[2]}.mat").unlink()
    with pytest.raises(InputError, match=r"2 inputs[^$]*no ES0001 _4CH_1\.avi below[^$]*no Mask_ES0002 _4CH_1\.mat"):
        find_studies(root)


def test_a_recording_that_is_there_twice_is_refused(root):
    save_video(root / "copy" / f"{NAMES[0]}.avi", FRAMES, 25)
    with pytest.raises(InputError, match="have the same name, expected each recording once"):
        find_studies(root)


def test_a_table_without_the_columns_is_refused(root):
    book = openpyxl.Workbook()
    book.save(root / "A4C.xlsx")
    with pytest.raises(InputError, match=r"A4C\.xlsx: found no line with the columns \['ECHO'"):
        find_studies(root)


def test_a_table_that_is_no_sheet_is_refused(root):
    (root / "A4C.xlsx").write_text("ECHO;SEG1\n")
    with pytest.raises(InputError, match=r"A4C\.xlsx: expected a readable Excel sheet"):
        find_studies(root)


def test_a_folder_without_the_table_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found no A4C\.xlsx or HMC_QU\.xlsx"):
        find_studies(tmp_path)


def test_a_missing_openpyxl_is_named_with_what_to_install(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(InputError, match=r"pip install 'nnunet_temporal\[hmcqu\]'"):
        find_studies(root)


def test_rows_that_end_before_the_columns_do_are_recordings_without_masks(root):
    path = root / "A4C.xlsx"
    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for row in (HEADER, [NAMES[0]]):
        sheet.append(row)
    book.save(path)
    assert [study.load_labels for study in find_studies(root)] == [None]


def test_a_frame_that_is_no_number_is_refused(tmp_path):
    row = {"ECHO": "a", "Reference Frame": float("nan"), "End of One-Cycle Frame": 3}
    with pytest.raises(InputError, match="expected numbers"):
        hmcqu._cycle(row, tmp_path / "A4C.xlsx")
