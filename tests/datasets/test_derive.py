import json

import numpy as np
import pytest

from nnunet_temporal.datasets.derive import derive_manifest
from nnunet_temporal.datasets.image_io import write_sequence
from nnunet_temporal.errors import InputError


def save_dataset(folder, labels, **masks):
    (folder / "labelsTr").mkdir()
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz"}))
    for case, mask in masks.items():
        write_sequence(mask, (1.0, 1.0), folder / "labelsTr" / f"{case}.nii.gz")


def two_labelled_frames():
    mask = np.full((4, 5, 6), 2, np.uint8)
    mask[[1, 3]] = 0
    return mask


def test_frames_that_are_not_all_ignore_are_labelled(tmp_path):
    labels = {"background": 0, "LV": 1, "ignore": 2}
    save_dataset(tmp_path, labels, p1_z03=two_labelled_frames(), p2=np.full((3, 5, 6), 2, np.uint8))
    manifest = derive_manifest(tmp_path)
    first, second = manifest["p1_z03"], manifest["p2"]
    assert (first.study, first.slice, first.n_frames, first.labelled_frames) == ("p1", 3, 4, (1, 3))
    assert (second.study, second.slice, second.n_frames, second.labelled_frames) == ("p2", None, 3, ())


def test_without_an_ignore_label_every_frame_is_labelled(tmp_path):
    save_dataset(tmp_path, {"background": 0, "LV": 1}, p1=np.zeros((3, 5, 6), np.uint8))
    assert derive_manifest(tmp_path)["p1"].labelled_frames == (0, 1, 2)


def test_a_missing_dataset_json_is_named(tmp_path):
    with pytest.raises(InputError, match=r"dataset\.json"):
        derive_manifest(tmp_path)


def test_missing_labels_are_named(tmp_path):
    save_dataset(tmp_path, {"background": 0, "LV": 1})
    with pytest.raises(InputError, match="found no label files"):
        derive_manifest(tmp_path)


def test_all_broken_label_files_are_listed(tmp_path):
    save_dataset(tmp_path, {"background": 0, "LV": 1}, a=np.zeros((3, 5, 6), np.uint8))
    for name in ("b", "c"):
        (tmp_path / "labelsTr" / f"{name}.nii.gz").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"b\.nii\.gz[^$]*c\.nii\.gz"):
        derive_manifest(tmp_path)
