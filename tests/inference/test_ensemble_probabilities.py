import json
import pickle
import shutil

import nibabel
import numpy as np
import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.ensemble import ensemble_folders, mean_probabilities, read_member

LABELS = {"background": 0, "LV": 1, "MYO": 2}
PLANS = {"image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager"}
# Geometry as nnU-Net's reader notes it: (x, y, t).
GEOMETRY = {"spacing": (1.25, 1.5, 10.0), "origin": (7.0, -3.0, 0.0), "direction": (1.0, 0, 0, 0, -1.0, 0, 0, 0, 1.0)}
SHAPE = (3, 2, 4, 5)


def probabilities(*of_classes, shape=SHAPE[1:]):
    """Return the same class probabilities (K, T, Y, X) for every pixel."""
    return np.stack([np.full(shape, value, np.float32) for value in of_classes])


def write_case(folder, case, array):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{case}.npz", probabilities=array)
    (folder / f"{case}.pkl").write_bytes(pickle.dumps({"sitk_stuff": GEOMETRY}))


def describe(folder, labels=LABELS, **dataset):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps({"labels": labels, "file_ending": ".nii.gz", **dataset}))
    (folder / "plans.json").write_text(json.dumps(PLANS))
    return folder


def predicted(folder, arrays, labels=LABELS, **dataset):
    """Write a folder as nnUNetv2_predict --save_probabilities does, from {case: probabilities}."""
    for case, array in arrays.items():
        write_case(folder, case, array)
    return describe(folder, labels, **dataset)


@pytest.fixture
def pair(tmp_path):
    """Write two models that disagree: LV 0.5 to 0.3, then MYO 0.5 to 0.2; the mean is LV 0.35, MYO 0.4."""
    one = predicted(tmp_path / "one", {"a": probabilities(0.2, 0.5, 0.3), "b": probabilities(0.8, 0.1, 0.1)})
    two = predicted(tmp_path / "two", {"a": probabilities(0.3, 0.2, 0.5), "b": probabilities(0.6, 0.4, 0.0)})
    return [one, two]


def test_probabilities_are_averaged_in_single_precision(pair):
    mean = mean_probabilities([folder / "a.npz" for folder in pair])
    assert mean.dtype == np.float32
    np.testing.assert_allclose(mean, probabilities(0.25, 0.35, 0.4), rtol=1e-6)


def test_three_models_weigh_alike(tmp_path):
    for name, value in (("x", 0.0), ("y", 0.3), ("z", 0.9)):
        write_case(tmp_path, name, probabilities(value))
    mean = mean_probabilities([tmp_path / f"{name}.npz" for name in "xyz"])
    np.testing.assert_allclose(mean, probabilities(0.4), rtol=1e-6)  # (0.0 + 0.3 + 0.9) / 3


def test_half_precision_is_not_averaged_in_half_precision(tmp_path):
    # 2049 is no float16, 2048 and 2050 are: in half precision their sum of 4098 rounds to 4096, the mean to 2048.
    for name, value in (("x", 2048), ("y", 2050)):
        write_case(tmp_path, name, probabilities(value).astype(np.float16))
    assert mean_probabilities([tmp_path / "x.npz", tmp_path / "y.npz"])[0, 0, 0, 0] == 2049


def test_the_mask_is_the_likeliest_class_of_the_mean(pair, tmp_path):
    masks = ensemble_folders(pair, tmp_path / "out")
    assert [path.name for path in masks] == ["a.nii.gz", "b.nii.gz"]
    arrays = [np.asanyarray(nibabel.load(path).dataobj) for path in masks]
    assert arrays[0].shape == (5, 4, 2)
    assert [np.unique(array).tolist() for array in arrays] == [[2], [0]]


def test_the_mask_lies_on_the_grid_that_nnunet_noted(pair, tmp_path):
    mask = nibabel.load(ensemble_folders(pair, tmp_path / "out")[0])
    np.testing.assert_allclose(mask.header.get_zooms(), GEOMETRY["spacing"])
    # ITK's x and y point the other way round than NIfTI's: the origin's signs change, and so do the directions.
    np.testing.assert_allclose(mask.affine, [[-1.25, 0, 0, -7], [0, 1.5, 0, 3], [0, 0, 10, 0], [0, 0, 0, 1]], atol=1e-6)


def test_the_output_says_what_its_labels_mean_and_what_was_predicted(pair, tmp_path):
    (pair[0] / "predict_from_raw_data_args.json").write_text('{"list_of_lists_or_source_folder": "sequences"}')
    ensemble_folders(pair, tmp_path / "out")
    for name in ("dataset.json", "plans.json", "predict_from_raw_data_args.json"):
        assert (tmp_path / "out" / name).read_text() == (pair[0] / name).read_text()


def test_nothing_but_masks_and_descriptions_is_written_unless_asked_for(pair, tmp_path):
    ensemble_folders(pair, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "a.nii.gz", "b.nii.gz", "dataset.json", "plans.json",
    }  # fmt: skip


def test_averaged_probabilities_can_be_averaged_again(pair, tmp_path):
    ensemble_folders(pair, tmp_path / "out", save_probabilities=True)
    third = predicted(tmp_path / "third", {case: probabilities(1, 0, 0) for case in "ab"})
    ensemble_folders([tmp_path / "out", third], tmp_path / "again", save_probabilities=True)
    with np.load(tmp_path / "again" / "a.npz") as arrays:
        # ((0.25, 0.35, 0.4) + (1, 0, 0)) / 2
        np.testing.assert_allclose(arrays["probabilities"], probabilities(0.625, 0.175, 0.2), rtol=1e-6)


def trained(folder, folds, labels=LABELS):
    """Write a trained model with validated folds, from {fold: {case: probabilities}}."""
    for fold, arrays in folds.items():
        for case, array in arrays.items():
            write_case(folder / f"fold_{fold}" / "validation", case, array)
    return describe(folder, labels)


def test_of_trained_models_the_cross_validation_is_averaged_whatever_the_folds(tmp_path):
    one, two = probabilities(0.2, 0.5, 0.3), probabilities(0.3, 0.2, 0.5)
    models = [
        trained(tmp_path / "2dt", {0: {"a": one}, 1: {"b": one}}),
        trained(tmp_path / "2d", {0: {"b": two}, 1: {"a": two}}),
    ]
    masks = ensemble_folders(models, tmp_path / "out")
    assert [np.unique(np.asanyarray(nibabel.load(mask).dataobj)).tolist() for mask in masks] == [[2], [2]]


def test_a_model_trained_on_all_cases_has_no_cross_validation(tmp_path):
    array = probabilities(1, 0, 0)
    assert set(read_member(trained(tmp_path / "m", {0: {"a": array}, "all": {"b": array}})).files) == {"a"}


def test_an_ignore_label_that_a_trainer_added_makes_no_difference(pair, tmp_path):
    describe(pair[1], {**LABELS, "ignore": 3})
    assert len(ensemble_folders(pair, tmp_path / "out")) == 2


def test_labels_may_be_written_down_in_any_order(pair, tmp_path):
    describe(pair[1], {"MYO": 2, "LV": 1, "background": 0})
    assert len(ensemble_folders(pair, tmp_path / "out")) == 2


@pytest.mark.parametrize("labels", [{"background": 0, "MYO": 1, "LV": 2}, {"background": 0, "LV": 1}])
def test_models_of_other_classes_are_refused(pair, tmp_path, labels):
    describe(pair[1], labels)
    with pytest.raises(
        InputError, match=r"two: found labels .*expected .* as in .*one; only probabilities of the same"
    ):
        ensemble_folders(pair, tmp_path / "out")


def test_regions_that_are_written_down_in_another_order_are_refused(tmp_path):
    regions = {"background": 0, "heart": [1, 2], "LV": 1}
    swapped = {"background": 0, "LV": 1, "heart": [1, 2]}
    arrays = {"a": probabilities(0.9, 0.1)}
    one = predicted(tmp_path / "one", arrays, regions, regions_class_order=[2, 1])
    two = predicted(tmp_path / "two", arrays, swapped, regions_class_order=[2, 1])
    with pytest.raises(InputError, match="found labels"):
        ensemble_folders([one, two], tmp_path / "out")


def test_regions_become_labels_in_their_class_order(tmp_path):
    regions = {"background": 0, "heart": [1, 2], "LV": 1}
    both, heart_only = probabilities(0.9, 0.8), probabilities(0.7, 0.1)  # mean: heart 0.8, LV 0.45
    folders = [
        predicted(tmp_path / str(n), {"a": array}, regions, regions_class_order=[2, 1])
        for n, array in enumerate((both, heart_only))
    ]
    (mask,) = ensemble_folders(folders, tmp_path / "out")
    assert np.unique(np.asanyarray(nibabel.load(mask).dataobj)).tolist() == [2]


def test_a_case_that_one_model_lacks_is_named(pair, tmp_path):
    (pair[1] / "b.npz").unlink()
    with pytest.raises(InputError, match=r"one and .*two: cases that only one of them holds: b;"):
        ensemble_folders(pair, tmp_path / "out")


def test_arrays_of_different_shapes_are_refused_even_if_they_could_be_broadcast(pair, tmp_path):
    write_case(pair[1], "b", probabilities(0.1, 0.2, 0.7, shape=(1, 4, 5)))
    with pytest.raises(InputError, match=r"two/b.npz: found shape \(3, 1, 4, 5\).*expected \(3, 2, 4, 5\) as in .*one"):
        ensemble_folders(pair, tmp_path / "out")


def test_arrays_with_more_classes_than_labels_are_refused(tmp_path):
    folders = [predicted(tmp_path / name, {"a": probabilities(0.4, 0.3, 0.2, 0.1)}) for name in ("one", "two")]
    with pytest.raises(InputError, match=r"a.npz: found probabilities of 4 classes, expected 3"):
        ensemble_folders(folders, tmp_path / "out")


def test_every_broken_case_is_listed_and_nothing_is_written(pair, tmp_path):
    for case in "ab":
        whole = (pair[1] / f"{case}.npz").read_bytes()
        (pair[1] / f"{case}.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"(?s)2 inputs cannot be used:.*a.npz: holds no readable.*b.npz: holds no"):
        ensemble_folders(pair, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_archive_of_something_else_is_refused(pair, tmp_path):
    np.savez(pair[1] / "b.npz", softmax=probabilities(1, 0, 0))
    with pytest.raises(InputError, match=r"b.npz: holds no readable probabilities"):
        ensemble_folders(pair, tmp_path / "out")


def test_a_lost_note_of_the_grid_is_named(pair, tmp_path):
    (pair[0] / "a.pkl").unlink()
    with pytest.raises(InputError, match=r"one/a.pkl: is missing"):
        ensemble_folders(pair, tmp_path / "out")


def test_a_prediction_without_probabilities_says_how_to_get_them(pair, tmp_path):
    with pytest.raises(InputError, match=r"empty: found no probabilities .*'nnUNetv2_predict .* --save_probabilities'"):
        ensemble_folders([pair[0], describe(tmp_path / "empty")], tmp_path / "out")


def test_a_fold_validated_without_probabilities_says_how_to_get_them(tmp_path):
    model = trained(tmp_path / "m", {0: {"a": probabilities(1, 0, 0)}})
    (model / "fold_1" / "validation").mkdir(parents=True)
    with pytest.raises(InputError, match=r"fold_1/validation: found no .*'nnUNetv2_train ... --val --npz', or leave"):
        read_member(model)


def test_folds_can_be_left_out(tmp_path):
    array = probabilities(1, 0, 0)
    model = trained(tmp_path / "m", {fold: {case: array} for fold, case in enumerate("abc")})
    assert set(read_member(model, [0, 2]).files) == {"a", "c"}


def test_a_fold_that_does_not_exist_is_named(tmp_path):
    model = trained(tmp_path / "m", {0: {"a": probabilities(1, 0, 0)}})
    with pytest.raises(InputError, match=r"m/fold_4/validation: found no probabilities"):
        read_member(model, [0, 4])


def test_a_case_validated_in_two_folds_is_named_with_both(tmp_path):
    array = probabilities(1, 0, 0)
    model = trained(tmp_path / "m", {0: {"a": array}, 7: {"a": array}})
    with pytest.raises(InputError, match=r"fold_0/validation/a.npz and .*fold_7/validation/a.npz: case a is in two"):
        read_member(model)


@pytest.mark.parametrize("name", ["dataset.json", "plans.json"])
def test_a_folder_without_descriptions_is_refused(pair, tmp_path, name):
    (pair[1] / name).unlink()
    with pytest.raises(InputError, match=f"two/{name}: is missing; name a folder that nnUNetv2_predict has written"):
        ensemble_folders(pair, tmp_path / "out")


def test_one_folder_or_one_folder_twice_is_no_ensemble(pair, tmp_path):
    for folders in (pair[:1], [pair[0], tmp_path / "two" / ".." / "one"]):
        with pytest.raises(InputError, match="two or more different folders"):
            ensemble_folders(folders, tmp_path / "out")


def test_the_masks_of_a_model_are_not_overwritten(pair):
    with pytest.raises(InputError, match="would overwrite the masks"):
        ensemble_folders(pair, pair[1])


def test_a_failed_write_leaves_no_half_mask(pair, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr("nnunetv2.imageio.simpleitk_reader_writer.sitk.WriteImage", fail)
    with pytest.raises(OSError, match="disk full"):
        ensemble_folders(pair, tmp_path / "out")
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_a_second_run_replaces_the_first(pair, tmp_path):
    ensemble_folders(pair, tmp_path / "out")
    shutil.copy(pair[0] / "b.npz", pair[1] / "a.npz")
    shutil.copy(pair[0] / "b.npz", pair[0] / "a.npz")
    masks = ensemble_folders(pair, tmp_path / "out")
    assert np.unique(np.asanyarray(nibabel.load(masks[0]).dataobj)).tolist() == [0]


def test_what_was_known_of_earlier_masks_is_removed(pair, tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    for name in ("a_confidence.csv", "b_frames.csv", "predicted_by.json", "other_confidence.csv"):
        (output / name).touch()
    ensemble_folders(pair, output)
    assert {file.name for file in output.iterdir() if file.suffix in (".csv", ".json")} == {
        "dataset.json", "plans.json", "other_confidence.csv",
    }  # fmt: skip
