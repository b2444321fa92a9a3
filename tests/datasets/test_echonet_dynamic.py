import warnings

import numpy as np
import pytest
from echo_layouts import chords_of, dice, heart, save_table, save_video

from nnunet_temporal.datasets.echonet_dynamic import (
    CHANNEL,
    LABELS,
    NAME,
    find_studies,
    held_out_studies,
    official_folds,
)
from nnunet_temporal.datasets.finished_studies import fingerprint
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.errors import InputError

pytest.importorskip("av")

CLIPS = "FileName,EF,ESV,EDV,FrameHeight,FrameWidth,FPS,NumberOfFrames,Split"
TRACINGS = "FileName,X1,Y1,X2,Y2,Frame"
# Clip: (ED, ES, split); the second looks like a number, its ED is after its ES, and the third has no tracings.
PLAN = {
    "0X1A2B3C4D5E6F7788": (2, 7, "TRAIN"),
    "0X1E5": (8, 3, "TRAIN"),
    "0X00000000000000AB": (2, 7, "TRAIN"),
    "0X2222222222222222": (1, 6, "VAL"),
    "0X3333333333333333": (2, 7, "TEST"),
}
UNTRACED = "0X00000000000000AB"


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "EchoNet-Dynamic"
    clips, tracings = [], []
    for name, (ed, es, split) in PLAN.items():
        frames, labels = heart(12, ed=ed, es=es)
        save_video(folder / "Videos" / f"{name}.avi", frames, rate=30)
        # The size is that of the examination and not of the video.
        clips.append([name, 55.0, 40.0, 90.0, 708, 1016, 50, 12, split])
        if name != UNTRACED:
            tracings += [[f"{name}.avi", *row, f] for f in (es, ed) for row in chords_of(labels[f] == 1)]
    # A traced clip that is not listed, as there is one.
    tracings += [["0XFFFFFFFFFFFFFFFF.avi", *row, 0] for row in chords_of(labels[ed] == 1)]
    save_table(folder / "FileList.csv", CLIPS, clips)
    save_table(folder / "VolumeTracings.csv", TRACINGS, tracings)
    return folder


def studies_of(folder):
    return {study.study: study for study in find_studies(folder)}


def edit(path, old, new, count=-1):
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, count))


def test_every_listed_clip_is_a_study_and_names_stay_text(root):
    assert set(studies_of(root)) == set(PLAN)


@pytest.mark.parametrize("place", [".", "EchoNet-Dynamic"])
def test_the_folder_and_the_one_it_is_in_will_do(root, place):
    assert set(studies_of(root.parent / place)) == set(PLAN)


def test_the_larger_tracing_is_ed_also_when_it_comes_after_es(root):
    studies = studies_of(root)
    for name, (ed, es, _) in PLAN.items():
        if name != UNTRACED:
            assert (studies[name].ed, studies[name].es) == (ed, es)


def test_chords_become_the_mask_they_were_made_of_without_the_long_axis(root):
    study = studies_of(root)["0X1E5"]
    labels, truth = study.load_labels(), heart(12, ed=8, es=3)[1]
    assert labels.shape == (12, 112, 112) and labels.dtype == np.uint8
    for t in (8, 3):
        assert set(np.unique(labels[t])) == {0, 1}
        assert dice(labels[t] == 1, truth[t] == 1) > 0.97


def test_a_chord_belongs_to_its_two_sides_in_order(root):
    # Slanted chords of a rhomboid: whoever takes the rows for points, or the sides in one direction, gets less than it.
    rows = [[100, 5, 5, 100], *([20 + k, 20 + 3 * k, 60 + k, 30 + 3 * k] for k in range(20))]
    edit(root / "VolumeTracings.csv", "0X1E5.avi", "0XFFFF.avi")
    with (root / "VolumeTracings.csv").open("a") as file:
        file.writelines(f"0X1E5.avi,{','.join(map(str, row))},4\n" for row in rows)
    mask = studies_of(root)["0X1E5"].load_labels()[4]
    assert (mask == 1).sum() == pytest.approx(40 * 57 - 10 * 19, rel=0.05)


def test_frames_without_a_tracing_carry_the_ignore_label(root):
    labels = studies_of(root)["0X1E5"].load_labels()
    others = [t for t in range(12) if t not in (8, 3)]
    assert np.all(labels[others] == LABELS["ignore"])


def test_a_clip_without_tracings_is_unlabelled(root):
    study = studies_of(root)[UNTRACED]
    assert study.load_labels is None and study.ed is None and study.es is None


def test_the_image_is_the_video_in_grey(root):
    image = studies_of(root)["0X1E5"].load_image()
    truth = heart(12, ed=8, es=3)[0]
    assert image.shape == truth.shape and np.abs(image.astype(int) - truth).mean() < 2


def test_the_frame_rate_is_that_of_the_table_and_the_pixel_spacing_is_unknown(root):
    study = studies_of(root)["0X1E5"]
    assert study.spacing.frame_s == pytest.approx(0.02) and not study.spacing.pixel_known
    assert study.source == str(root / "Videos" / "0X1E5.avi") and not study.cyclic


def test_without_a_rate_in_the_table_it_is_that_of_the_video(root):
    edit(root / "FileList.csv", ",50,12,", ",,12,")
    assert studies_of(root)["0X1E5"].spacing.frame_s == pytest.approx(1 / 30)


def test_a_tracing_beyond_the_clip_is_left_out_with_a_warning(root):
    edit(root / "VolumeTracings.csv", ",8\n", ",12\n")
    with pytest.warns(UserWarning, match=r"0X1E5\.avi: the tracing of frame 12 is left out: the clip has 12 frames"):
        study = studies_of(root)["0X1E5"]
    assert (study.ed, study.es) == (None, None)
    assert np.flatnonzero((study.load_labels() != 2).any(axis=(1, 2))).tolist() == [3]


@pytest.mark.parametrize("rows", [1, 2])
def test_a_tracing_that_encloses_nothing_is_left_out_with_a_warning(root, rows):
    with (root / "VolumeTracings.csv").open("a") as file:
        file.writelines([f"{UNTRACED}.avi,10,10,20,20,5\n"] * rows)
    with pytest.warns(UserWarning, match="the tracing of frame 5 is left out: it encloses no pixel"):
        assert studies_of(root)[UNTRACED].load_labels is None


def test_the_official_split_gives_one_fold_and_the_test_set(root):
    ((training, validation),) = official_folds(root)
    assert training == {"0X1A2B3C4D5E6F7788", "0X1E5", UNTRACED}
    assert validation == {"0X2222222222222222"} and held_out_studies(root) == ["0X3333333333333333"]


def test_the_dataset_is_written_with_its_official_fold(root, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        studies = find_studies(root)
    info = DatasetInfo(7, NAME, LABELS, CHANNEL)
    held_out, folds = held_out_studies(root), official_folds(root)
    written = write_raw_dataset(studies, info, tmp_path, held_out=held_out, folds=folds)
    cases = sorted(f"{study}_4CH" for study in list(PLAN)[:3])
    assert written.splits == [{"train": cases, "val": ["0X2222222222222222_4CH"]}]
    sequence = written.manifest["0X1E5_4CH"]
    assert (sequence.study, sequence.view, sequence.labelled_frames) == ("0X1E5", "4CH", (3, 8))
    assert (written.folder / "labelsTs" / "0X3333333333333333_4CH.nii.gz").is_file()


def test_a_study_is_known_again_until_its_tracing_changes(root):
    labels = dict(LABELS)
    first = fingerprint(studies_of(root)["0X1E5"], labels)
    assert fingerprint(studies_of(root)["0X1E5"], labels) == first
    edit(root / "VolumeTracings.csv", ",8\n", ",9\n")
    assert fingerprint(studies_of(root)["0X1E5"], labels) != first


def test_missing_and_broken_videos_are_all_listed(root):
    (root / "Videos" / "0X1E5.avi").unlink()
    video = root / "Videos" / f"{UNTRACED}.avi"
    video.write_bytes(video.read_bytes()[:900])
    with pytest.raises(InputError, match=r"2 inputs[^$]*0X1E5\.avi[^$]*00AB\.avi: found 900 bytes"):
        find_studies(root)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("FileList.csv", "FileName,", "Name,", r"FileList\.csv: found columns .* expected \['FileName', 'Split'\]"),
        ("FileList.csv", ",VAL", ",VALID", "found Split 'VALID' for 0X2222222222222222"),
        ("FileList.csv", "0X1E5,", "0X2222222222222222.avi,", "found 0X2222222222222222 twice"),
        ("FileList.csv", ",50,12,", ",0,12,", "found FPS '0' for"),
        ("VolumeTracings.csv", "X1,", "X,", r"VolumeTracings\.csv: found columns"),
        ("VolumeTracings.csv", ",8\n", ",No Systolic\n", "found Frame 'No Systolic' for 0X1E5.avi"),
        ("VolumeTracings.csv", ",8\n", ",-8\n", "found Frame '-8' for 0X1E5.avi, expected 0, 1"),
        ("VolumeTracings.csv", ",8\n", "\n", "is cut off"),
    ],
)
def test_odd_tables_are_refused_with_the_file_and_what_to_do(root, name, old, new, message):
    edit(root / name, old, new)
    with pytest.raises(InputError, match=rf"{name}: .*{message.split('csv: ')[-1]}.*restore it from the download"):
        find_studies(root)


def test_a_folder_without_the_table_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found no FileList\.csv, expected the folder 'EchoNet-Dynamic'"):
        find_studies(tmp_path)


def test_an_empty_table_is_refused(tmp_path):
    (tmp_path / "FileList.csv").write_text("")
    with pytest.raises(InputError, match=r"FileList\.csv: found columns \[\]"):
        find_studies(tmp_path)
