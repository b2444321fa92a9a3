"""A trained model is read as nnU-Net leaves it, whatever made its checkpoint."""

import json

import pytest
import torch

from nnunet_temporal.errors import InputError
from nnunet_temporal.training.stock_model import CHECKPOINT, StockModel, channel_names

CONFIGURATIONS = {
    "2d": {"patch_size": [64, 64], "batch_size": 12, "architecture": {}},
    "2d_small": {"inherits_from": "2d", "batch_size": 2},
}


@pytest.fixture
def folder(tmp_path):
    """Write a model without folds."""
    path = tmp_path / "nnUNetTrainer__nnUNetPlans__2d_small"
    path.mkdir()
    plans = {"dataset_name": "Dataset001_Heart", "plans_name": "nnUNetPlans", "configurations": CONFIGURATIONS}
    (path / "plans.json").write_text(json.dumps(plans))
    dataset = {"channel_names": {"1": "T2", "0": "T1"}, "file_ending": ".png", "numTraining": 3}
    (path / "dataset.json").write_text(json.dumps(dataset))
    return path


def write_checkpoint(folder, fold, **weights):
    (folder / f"fold_{fold}").mkdir()
    torch.save({"network_weights": weights}, folder / f"fold_{fold}" / CHECKPOINT)


def test_the_configuration_is_the_one_in_the_folders_name_with_inheritance_resolved(folder):
    model = StockModel.read(folder)
    assert (model.configuration["batch_size"], model.configuration["patch_size"]) == (2, [64, 64])
    assert model.dataset_name == "Dataset001_Heart"


def test_channels_are_in_the_order_of_their_numbers(folder):
    assert StockModel.read(folder).channel_names == ["T1", "T2"]
    assert channel_names({"modality": {"0": "CT"}}) == ["CT"]


def test_only_finished_folds_count_and_all_comes_last(folder):
    for fold in (10, "all", 2):
        write_checkpoint(folder, fold)
    (folder / "fold_3").mkdir()
    assert StockModel.read(folder).folds() == [2, 10, "all"]


@pytest.mark.parametrize("prefix", ["", "_orig_mod.", "module.", "module._orig_mod."])
def test_compiled_and_parallel_networks_have_the_same_names(folder, prefix):
    write_checkpoint(folder, 0, **{f"{prefix}encoder.weight": torch.ones(2)})
    assert list(StockModel.read(folder).weights(0)) == ["encoder.weight"]


def test_validated_cases_are_the_images_of_the_dataset_in_the_folder(folder):
    (folder / "fold_0" / "validation").mkdir(parents=True)
    for name in ("heart_1.png", "heart.2.png", "heart_1.npz", "summary.json"):
        (folder / "fold_0" / "validation" / name).touch()
    assert StockModel.read(folder).validated_cases(0) == {"heart_1", "heart.2"}
    assert StockModel.read(folder).validated_cases(1) == set()


def test_a_missing_fold_is_named_with_those_there_are(folder):
    write_checkpoint(folder, 1)
    with pytest.raises(InputError, match=r"fold 0 is not trained; folds that are: \[1\]"):
        StockModel.read(folder).weights(0)


def test_a_broken_checkpoint_is_named(folder):
    (folder / "fold_0").mkdir()
    (folder / "fold_0" / CHECKPOINT).write_bytes(b"half a file")
    with pytest.raises(InputError, match=f"{CHECKPOINT}: cannot be read"):
        StockModel.read(folder).weights(0)


def test_a_folder_named_after_another_configuration_is_refused(folder):
    with pytest.raises(InputError, match=r"named after configuration '3d_fullres'.*'2d', '2d_small'"):
        StockModel.read(folder.rename(folder.parent / "nnUNetTrainer__nnUNetPlans__3d_fullres"))
