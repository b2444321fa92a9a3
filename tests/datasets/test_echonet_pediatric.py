import numpy as np
import pytest
from echo_layouts import dice, heart, outline_of, save_table, save_video

from nnunet_temporal.datasets.echonet_pediatric import (
    CHANNEL,
    LABELS,
    NAME,
    find_studies,
    held_out_studies,
    official_folds,
)
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.errors import InputError

pytest.importorskip("av")

SPLITS = (0, 7, 8, 9)


@pytest.fixture
def root(tmp_path):
    """Four clips per view, traced at frames 1 (ED) and 6 (ES); the third has no systole, the fourth no diastole."""
    for view, size in (("A4C", (112, 112)), ("PSAX", (112, 112))):
        folder = tmp_path / "pediatric_echo_avi" / "pediatric_echo_avi" / view
        clips, points = [], []
        for k, split in enumerate(SPLITS):
            name = f"CR32a7{k:03d}-{view}.avi"
            frames, labels = heart(10, size, ed=1, es=6)
            save_video(folder / "Videos" / name, frames, rate=30)
            clips.append([name, 60.0, "M", 7, 25, 120, split])
            for frame, k_missing, text in ((1, 3, "No Diastolic"), (6, 2, "No Systolic")):
                if k == k_missing:
                    points.append([name, "", "", text])
                else:
                    points += [[name, x, y, frame] for x, y in outline_of(labels[frame] == 1)]
        save_table(folder / "FileList.csv", "FileName,EF,Sex,Age,Weight,Height,Split", clips)
        save_table(folder / "VolumeTracings.csv", "FileName,X,Y,Frame", points)
    return tmp_path


def view_folder(root, view="A4C"):
    return root / "pediatric_echo_avi" / "pediatric_echo_avi" / view


def only_study(root, k, view="A4C"):
    (study,) = (study for study in find_studies(root) if study.study == f"CR32a7{k:03d}-{view}")
    return study


def edit(path, old, new):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


@pytest.mark.parametrize("place", [".", "pediatric_echo_avi", "pediatric_echo_avi/pediatric_echo_avi"])
def test_both_views_are_found_from_every_folder_above_them(root, place):
    studies = find_studies(root / place)
    assert [study.view for study in studies] == ["A4C"] * 4 + ["PSAX"] * 4


def test_one_view_can_be_taken_alone(root):
    assert {study.view for study in find_studies(root, ["PSAX"])} == {"PSAX"}
    assert held_out_studies(root, ["PSAX"]) == ["CR32a7003-PSAX"]


def test_points_are_an_outline_and_not_chords(root):
    study = only_study(root, 0)
    labels, truth = study.load_labels(), heart(10, ed=1, es=6)[1]
    assert (study.ed, study.es) == (1, 6)
    for t in (1, 6):
        assert dice(labels[t] == 1, truth[t] == 1) > 0.98
    assert np.all(labels[[0, 2, 3, 4, 5, 7, 8, 9]] == LABELS["ignore"])


@pytest.mark.parametrize(("k", "frame"), [(2, 1), (3, 6)])
def test_a_phase_that_was_not_traced_leaves_one_labelled_frame_and_unknown_phases(root, k, frame):
    study = only_study(root, k)
    assert np.flatnonzero((study.load_labels() != 2).any(axis=(1, 2))).tolist() == [frame]
    assert (study.ed, study.es) == (None, None)


def test_a_clip_with_neither_phase_is_unlabelled(root):
    edit(view_folder(root) / "VolumeTracings.csv", ",1\n", ",No Diastolic\n")
    assert only_study(root, 2).load_labels is None


@pytest.mark.filterwarnings("ignore:.* is left out")
def test_a_tracing_beyond_the_clip_is_left_out_with_a_warning(root):
    edit(view_folder(root) / "VolumeTracings.csv", ",6\n", ",10\n")
    with pytest.warns(UserWarning, match=r"CR32a7000-A4C\.avi: the tracing of frame 10 is left out"):
        study = only_study(root, 0)
    assert study.load_labels().shape[0] == 10 and study.es is None


def test_the_interval_is_that_of_the_video_and_the_pixel_spacing_is_unknown(root):
    spacing = only_study(root, 0).spacing
    assert spacing.frame_s == pytest.approx(1 / 30) and not spacing.pixel_known


def test_splits_are_numbers_of_which_the_last_is_held_out_and_the_one_before_validated(root):
    ((training, validation),) = official_folds(root)
    assert training == {f"CR32a7{k:03d}-{view}" for k in (0, 1) for view in ("A4C", "PSAX")}
    assert validation == {"CR32a7002-A4C", "CR32a7002-PSAX"}
    assert held_out_studies(root) == ["CR32a7003-A4C", "CR32a7003-PSAX"]


def test_the_dataset_is_written_with_its_official_fold(root, tmp_path):
    info = DatasetInfo(7, NAME, LABELS, CHANNEL)
    held_out, folds = held_out_studies(root), official_folds(root)
    written = write_raw_dataset(find_studies(root), info, tmp_path, held_out=held_out, folds=folds)
    assert written.splits[0]["val"] == ["CR32a7002-A4C_A4C", "CR32a7002-PSAX_PSAX"]
    assert len(list((written.folder / "imagesTs").iterdir())) == 2


def test_a_clip_of_two_views_must_be_in_one_split(root):
    edit(view_folder(root, "PSAX") / "FileList.csv", "CR32a7001-PSAX", "CR32a7002-A4C")
    with pytest.raises(InputError, match="found CR32a7002-A4C in split 7, expected 8 as in another view"):
        official_folds(root)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("FileList.csv", ",9\n", ",TEST\n", "found Split 'TEST' for CR32a7003-A4C"),
        ("VolumeTracings.csv", "FileName,X,Y", "FileName,X1,Y1", "found columns"),
        ("VolumeTracings.csv", ",6\n", ",Systolic\n", "found Frame 'Systolic' for CR32a7000-A4C.avi"),
        ("VolumeTracings.csv", "No Systolic", "6", "found X '' for CR32a7002-A4C.avi, expected a number"),
    ],
)
def test_odd_tables_are_refused_with_the_file_and_what_to_do(root, name, old, new, message):
    edit(view_folder(root) / name, old, new)
    with pytest.raises(InputError, match=rf"A4C/{name}: {message}.*restore it from the download"):
        find_studies(root)


def test_a_missing_view_is_refused(root):
    (view_folder(root, "PSAX") / "FileList.csv").unlink()
    with pytest.raises(InputError, match=r"found no PSAX/FileList\.csv"):
        find_studies(root)
