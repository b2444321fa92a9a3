"""Models are read as nnU-Net leaves them, and what cannot be used is named."""

import json

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from trained_models import TWO_CHANNELS, write_model

from nnunet_temporal.commands.env import VARIABLE
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.networks.temporal_unet import TemporalUNet
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM


@pytest.fixture
def folder(tmp_path, findable_trainers):
    """Write a temporal model of three folds and let nnU-Net find its trainer."""
    return write_model(tmp_path / "model", nnUNetTrainerGDKVM, folds=(10, 2, "all"), mirror_axes=(1, 2))


def change(file, **entries):
    file.write_text(json.dumps(json.loads(file.read_text()) | entries))


def test_the_folds_of_the_cross_validation_are_read(folder):
    model = TrainedModel.read(folder)
    assert len(model.networks) == 2 and all(isinstance(network, TemporalUNet) for network in model.networks)
    assert not any(network.training for network in model.networks)
    for network, fold in zip(model.networks, (2, 10), strict=True):
        saved = torch.load(folder / f"fold_{fold}" / "checkpoint_final.pth", weights_only=False)["network_weights"]
        torch.testing.assert_close(dict(network.state_dict()), saved)
    assert (model.channels, model.patch, model.mirror_axes) == (1, (48, 48), (0, 1))


def test_mirror_axes_of_a_2d_model_are_those_of_its_frames(tmp_path):
    folder = write_model(tmp_path, nnUNetTrainer, "2d", dataset=TWO_CHANNELS, mirror_axes=(1,))
    model = TrainedModel.read(folder)
    assert (model.channels, model.mirror_axes) == (2, (1,))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod."])
def test_compiled_and_parallel_networks_have_the_same_names(folder, prefix):
    file = folder / "fold_2" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["network_weights"] = {prefix + name: value for name, value in checkpoint["network_weights"].items()}
    torch.save(checkpoint, file)
    assert len(TrainedModel.read(folder, [2]).networks) == 1


def test_a_broken_checkpoint_is_named(folder):
    (folder / "fold_2" / "checkpoint_final.pth").write_bytes(b"half")
    with pytest.raises(InputError, match=r"fold_2/checkpoint_final\.pth: cannot be read"):
        TrainedModel.read(folder)


def test_a_missing_fold_is_named_with_those_there_are(folder):
    with pytest.raises(InputError, match=r"fold_0/checkpoint_final\.pth: is missing; .*\[2, 10\]"):
        TrainedModel.read(folder, [0])


def test_a_model_without_folds_is_named(folder):
    with pytest.raises(InputError, match="has no fold with a finished training"):
        TrainedModel.read(folder, checkpoint_name="checkpoint_best.pth")


def test_a_trainer_that_nnunet_does_not_find_is_named_with_what_to_do(folder, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(InputError, match=r'nnUNetTrainerGDKVM: .*eval "\$\(nnunet_temporal env\)"'):
        TrainedModel.read(folder)


def test_a_model_that_takes_time_for_an_axis_of_the_image_is_refused(folder):
    change(folder / "plans.json", transpose_forward=[1, 0, 2])
    with pytest.raises(InputError, match=r"transpose axes by \[1, 0, 2\]"):
        TrainedModel.read(folder)


def test_a_3d_model_is_refused(folder):
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["2dt"]["spacing"] = [5.0, 1.25, 1.25]
    change(folder / "plans.json", **plans)
    with pytest.raises(InputError, match="resamples 3 axes"):
        TrainedModel.read(folder)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected the folder of a trained model"):
        TrainedModel.read(tmp_path)
