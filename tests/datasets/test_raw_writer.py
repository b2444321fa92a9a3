import json
import os
import weakref

import nibabel
import numpy as np
import pytest

from nnunet_temporal.datasets.raw_writer import DatasetInfo, check_dataset_id, write_raw_dataset
from nnunet_temporal.datasets.study_source import StudySource
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest, check_splits

INFO = DatasetInfo(7, "Hearts", {"background": 0, "LV": 1}, "cineMRI")


def study(name, shape=(4, 2, 5, 6), labelled=(0, 2), load=None, **facts):
    masks = np.full(shape, 2, np.uint8)
    masks[list(labelled)] = 1
    image = np.random.default_rng(0).random(shape)
    return StudySource(name, load or (lambda: image), (lambda: masks) if labelled else None, **facts)


def names(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def labels_of(path):
    return np.asarray(nibabel.load(path).dataobj).T


def test_training_and_held_out_studies_go_to_their_folders(tmp_path):
    written = write_raw_dataset([study("c"), study("a"), study("b")], INFO, tmp_path, held_out=["b"])
    assert written.folder == tmp_path / "Dataset007_Hearts"
    assert names(written.folder / "imagesTr") == [f"{s}_z0{z}_0000.nii.gz" for s in "ac" for z in (0, 1)]
    assert names(written.folder / "labelsTr") == [f"{s}_z0{z}.nii.gz" for s in "ac" for z in (0, 1)]
    assert names(written.folder / "imagesTs") == ["b_z00_0000.nii.gz", "b_z01_0000.nii.gz"]
    assert names(written.folder / "labelsTs") == ["b_z00.nii.gz", "b_z01.nii.gz"]


def test_the_json_files_describe_the_dataset(tmp_path):
    folder = write_raw_dataset([study("a"), study("b"), study("c")], INFO, tmp_path, held_out=["b"]).folder
    assert json.loads((folder / "dataset.json").read_text()) == {
        "channel_names": {"0": "cineMRI"},
        "labels": {"background": 0, "LV": 1, "ignore": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    manifest = Manifest.load(folder)
    splits = json.loads((folder / "splits_final.json").read_text())
    check_splits(splits, manifest)
    assert len(manifest) == 6 and len(splits) == 2
    assert not any("b_z" in case for split in splits for side in split.values() for case in side)


def test_frames_without_a_mask_carry_the_ignore_label(tmp_path):
    folder = write_raw_dataset([study("a"), study("b")], INFO, tmp_path).folder
    labels = labels_of(folder / "labelsTr" / "a_z00.nii.gz")
    assert np.all(labels[[1, 3]] == 2) and np.all(labels[[0, 2]] == 1)


def test_an_unlabelled_training_sequence_gets_an_all_ignore_label(tmp_path):
    sources = [study("a"), study("b"), study("c", labelled=(), shape=(3, 5, 6))]
    folder = write_raw_dataset(sources, INFO, tmp_path).folder
    labels = labels_of(folder / "labelsTr" / "c.nii.gz")
    assert labels.shape == (3, 5, 6) and labels.dtype == np.uint8 and np.all(labels == 2)


def test_an_unlabelled_held_out_study_gets_no_label(tmp_path):
    sources = [study("a"), study("b"), study("c", labelled=())]
    folder = write_raw_dataset(sources, INFO, tmp_path, held_out=["c"]).folder
    assert names(folder / "imagesTs") and not names(folder / "labelsTs")


def test_one_frame_sequences_are_fine(tmp_path):
    sources = [study(name, (1, 2, 5, 6), (0,)) for name in "ab"]
    written = write_raw_dataset(sources, INFO, tmp_path)
    assert written.manifest["a_z00"].n_frames == 1
    assert labels_of(written.folder / "labelsTr" / "a_z00.nii.gz").shape == (1, 5, 6)


def test_two_views_of_a_study_stay_together_in_the_folds(tmp_path):
    sources = [study(name, (4, 5, 6), view=view) for name in "ab" for view in ("4CH", "2CH")]
    written = write_raw_dataset(sources, INFO, tmp_path)
    assert [s.case for s in written.manifest.studies()[0].sequences] == ["a_2CH", "a_4CH"]
    assert sorted(written.splits[0]["val"]) in (["a_2CH", "a_4CH"], ["b_2CH", "b_4CH"])


def test_no_labelled_frame_in_the_whole_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="no labelled frame in the whole dataset"):
        write_raw_dataset([study("a", labelled=()), study("b", labelled=())], INFO, tmp_path)


def test_colliding_case_names_are_refused(tmp_path):
    sources = [study("a", source="a.nii.gz"), study("a_z01", (4, 5, 6), source="a_z01.nii.gz")]
    with pytest.raises(InputError, match=r"'a_z01' stands for two sequences, of a\.nii\.gz and of a_z01\.nii\.gz"):
        write_raw_dataset(sources, INFO, tmp_path)


def test_case_names_that_differ_in_capitals_only_are_refused(tmp_path):
    sources = [study("Anna", source="1.dcm"), study("anna", source="2.dcm")]
    with pytest.raises(InputError, match=r"'anna_z00' stands for two sequences, of 1\.dcm and of 2\.dcm"):
        write_raw_dataset(sources, INFO, tmp_path)
    assert names(tmp_path) == []


def test_case_names_that_no_file_can_have_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected at most 200 bytes"):
        write_raw_dataset([study("a" * 230), study("b")], INFO, tmp_path)
    assert names(tmp_path) == []


def test_all_bad_studies_are_listed_and_nothing_is_written(tmp_path):
    bad = [study(name, load=lambda: np.full((4, 2, 5, 6), np.nan)) for name in ("bad1", "bad2")]
    with pytest.raises(InputError, match=r"bad1[^$]*bad2"):
        write_raw_dataset([study("a"), *bad], INFO, tmp_path)
    assert names(tmp_path) == []


def test_a_failure_while_writing_leaves_nothing_behind(tmp_path):
    loads = iter([np.zeros((4, 2, 5, 6))])
    with pytest.raises(StopIteration):
        write_raw_dataset([study("a"), study("b", load=lambda: next(loads))], INFO, tmp_path)
    assert names(tmp_path) == []


def test_an_existing_dataset_is_kept_unless_overwrite(tmp_path):
    write_raw_dataset([study("a"), study("b")], INFO, tmp_path)
    with pytest.raises(InputError, match="pass --overwrite"):
        write_raw_dataset([study("c"), study("d")], INFO, tmp_path)
    folder = write_raw_dataset([study("c"), study("d")], INFO, tmp_path, overwrite=True).folder
    assert names(folder / "labelsTr")[0] == "c_z00.nii.gz" and names(tmp_path) == ["Dataset007_Hearts"]


def test_unknown_held_out_studies_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"found \['x'\], expected names of studies: a, b"):
        write_raw_dataset([study("a"), study("b")], INFO, tmp_path, held_out=["x"])


def test_no_studies_are_refused(tmp_path):
    with pytest.raises(InputError, match="no studies found"):
        write_raw_dataset([], INFO, tmp_path)


def test_one_training_study_is_refused_because_it_cannot_be_cross_validated(tmp_path):
    with pytest.raises(InputError, match="at least 2 training studies"):
        write_raw_dataset([study("a"), study("b")], INFO, tmp_path, held_out=["a"])


def test_an_id_that_another_dataset_uses_is_refused(tmp_path):
    (tmp_path / "Dataset007_Lungs").mkdir()
    with pytest.raises(InputError, match=r"already used by .*Dataset007_Lungs"):
        check_dataset_id(INFO, [tmp_path])


@pytest.mark.parametrize(("dataset_id", "name"), [(0, "A"), (1000, "A"), (1, "A B"), (1, "")])
def test_ids_and_names_that_break_the_rules_of_nnunet_are_refused(dataset_id, name):
    with pytest.raises(InputError, match="expected"):
        check_dataset_id(DatasetInfo(dataset_id, name, INFO.labels, "cineMRI"), [])


@pytest.mark.parametrize(
    "labels",
    [
        {"background": 0, "LV": 2},
        {"LV": 1},
        {"background": 0},
        {"background": 0, "LV": 1, "ignore": 3},
        {"background": 0, "LV": [1, 2]},
    ],
)
def test_labels_with_gaps_regions_or_without_background_are_refused(tmp_path, labels):
    with pytest.raises(InputError, match="labels: found"):
        write_raw_dataset([study("a")], DatasetInfo(7, "Hearts", labels, "cineMRI"), tmp_path)


@pytest.mark.parametrize("workers", [1, 3])
def test_official_folds_are_written_and_any_number_of_workers_gives_the_same(tmp_path, workers):
    sources = [study(name) for name in "abcd"]
    written = write_raw_dataset(
        sources, INFO, tmp_path, held_out=["d"], folds=[({"a", "c"}, {"b"}), ({"b"}, {"a", "c"})], workers=workers
    )
    splits = json.loads((written.folder / "splits_final.json").read_text())
    assert splits == written.splits and written.split_kind == "official"
    assert splits[0] == {"train": ["a_z00", "a_z01", "c_z00", "c_z01"], "val": ["b_z00", "b_z01"]}
    assert list(written.manifest) == [f"{name}_z0{z}" for name in "abcd" for z in (0, 1)]


def test_folds_that_leave_a_study_out_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(InputError, match=r"official fold 0: 1 studies are neither"):
        write_raw_dataset([study(name) for name in "abc"], INFO, tmp_path, folds=[({"a"}, {"b"})])
    assert names(tmp_path) == []


def test_new_files_have_the_permissions_of_any_new_file_with_many_workers(tmp_path):
    before = os.umask(0o022)
    try:
        folder = write_raw_dataset([study(name) for name in "abcdefgh"], INFO, tmp_path, workers=8).folder
        assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.nii.gz")} == {0o644}
    finally:
        assert os.umask(before) == 0o022


def test_bad_studies_do_not_stay_in_memory(tmp_path):
    alive = weakref.WeakSet()
    most = []

    def load():
        image = np.full((4, 2, 5, 6), np.nan).view(Pixels)
        alive.add(image)
        most.append(len(alive))
        return image

    with pytest.raises(InputError, match="40 inputs"):
        write_raw_dataset([study(f"a{n:02d}", load=load) for n in range(40)], INFO, tmp_path, workers=1)
    assert max(most) <= 2


class Pixels(np.ndarray):
    """An array that can be referred to weakly and hashed by identity."""

    __hash__ = object.__hash__
