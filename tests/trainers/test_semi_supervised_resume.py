"""An interrupted semi-supervised training goes on as if nothing had been, and a model that only predicts needs less."""

import contextlib
import io
import multiprocessing
import multiprocessing.dummy
from pathlib import Path

import nnunetv2.utilities.utils
import numpy as np
import pytest
import torch
from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint
from phantom_dataset import make_trainer
from semi_supervised import ALL, equal, files, parameters, quietly, remembered, short_trainer, started, twin_of
from stock_2d_model import INFLATED, write_stock_model

from nnunet_temporal.cli import main
from nnunet_temporal.errors import InputError
from nnunet_temporal.trainers import semi_supervised as mixin
from nnunet_temporal.trainers.temporal_semi import nnUNetTrainerTemporalSemi
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal

LATEST, FINAL = "checkpoint_latest.pth", "checkpoint_final.pth"


class Killed(BaseException):
    """What no code of ours catches."""


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """They take seconds."""
    monkeypatch.setattr("nnunetv2.training.logging.nnunet_logger.MetaLogger.plot_progress_png", lambda *_: None)


def run(trainer, epochs=None):
    """Train to the end, or for some epochs, after which the process dies."""
    with quietly():
        if epochs is None:
            trainer.run_training()
            return trainer
        trainer.on_train_start()
        for _ in range(epochs):
            one_epoch(trainer)
    return trainer


def one_epoch(trainer):
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer.on_train_epoch_end([trainer.train_step(next(trainer.dataloader_train))])
    trainer.on_validation_epoch_start()
    trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
    trainer.on_epoch_end()


def resumed(phantom, method=nnUNetTrainerTemporalSemi, epochs=3, checkpoint=LATEST):
    """Return a new trainer that has loaded what is on disk, and is about to go on."""
    trainer = short_trainer(phantom, method, epochs)
    with quietly():
        trainer.load_checkpoint(str(Path(trainer.output_folder) / checkpoint))
        trainer.on_train_start()
    return trainer


def state_of(trainer):
    teacher = trainer.teacher.state_dict()
    contrast = trainer.window_losses.state_dict()
    tensors = [*teacher["weights"].values(), *contrast.values()]
    return tensors, (teacher["updates"], remembered(trainer), repr(trainer.round_values))


METHODS = [ALL[0], *(pytest.param(method, marks=pytest.mark.slow) for method in ALL[1:])]


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_training_takes_the_step_that_an_unbroken_one_takes(phantom, method):
    unbroken = run(short_trainer(phantom, method, epochs=3), 2)
    other = resumed(phantom, method)
    assert other.current_epoch == unbroken.current_epoch == 2
    (tensors, plain), (other_tensors, other_plain) = (state_of(trainer) for trainer in (unbroken, other))
    assert equal(tensors, other_tensors) and plain == other_plain
    with quietly():
        for trainer in (unbroken, other):
            trainer.on_epoch_start()
            trainer.on_train_epoch_start()
        batches = next(other.dataloader_train), next(other.dataloader_unlabelled)
    results = []
    for trainer in (unbroken, other):
        trainer.dataloader_unlabelled = iter([batches[1]])
        results.append({name: float(value) for name, value in trainer.train_step(batches[0]).items()})
    assert np.isfinite(list(results[0].values())).all() and results[0] == results[1]
    assert equal(parameters(unbroken.network), parameters(other.network))
    (tensors, plain), (other_tensors, other_plain) = (state_of(trainer) for trainer in (unbroken, other))
    assert equal(tensors, other_tensors) and plain == other_plain


def test_a_training_that_goes_on_in_the_middle_of_a_round_predicts_nothing_and_keeps_the_threshold(phantom):
    unbroken = run(short_trainer(phantom, epochs=12), 2)
    before = remembered(unbroken)
    other = resumed(phantom, epochs=12)
    with quietly():
        unbroken.on_train_epoch_start()
        other.on_train_epoch_start()
    assert remembered(other) == remembered(unbroken) == before
    loaders = [each.dataloader_unlabelled.data_loader for each in (unbroken, other)]
    assert loaders[0].confidence_threshold == loaders[1].confidence_threshold


def test_the_log_goes_on(phantom):
    run(short_trainer(phantom, epochs=3), 2)
    trainer = resumed(phantom)
    with quietly():
        one_epoch(trainer)
    logged = trainer.logger.local_logger.my_fantastic_logging
    assert {key: len(values) for key, values in logged.items()} == dict.fromkeys(logged, 3)


def test_every_checkpoint_has_one_sidecar_and_the_latest_goes_with_its_own(phantom):
    trainer = run(short_trainer(phantom, epochs=2), 1)
    assert files(trainer) >= {LATEST, "checkpoint_latest.epoch1.sidecar", "checkpoint_best.epoch1.sidecar"}
    with quietly():
        one_epoch(trainer)
        trainer.on_train_end()
    left = files(trainer)
    assert {FINAL, "checkpoint_final.epoch2.sidecar"} <= left
    assert not any("latest" in name for name in left)
    assert len([name for name in left if name.endswith(".sidecar")]) == len([n for n in left if n.endswith(".pth")])


@pytest.mark.parametrize(("moment", "epoch"), [("before the checkpoint", 1), ("after the checkpoint", 2)])
def test_a_training_killed_while_it_saves_can_be_resumed(phantom, monkeypatch, moment, epoch):
    trainer = run(short_trainer(phantom, epochs=4), 1)

    def die(*arguments):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed), quietly():
        # The best checkpoint is not saved: the kill comes first.
        if moment == "before the checkpoint":
            patch.setattr(nnUNetTrainerTemporal, "save_checkpoint", die)
        else:
            patch.setattr(mixin, "remove_stale_sidecars", die)
        one_epoch(trainer)
    sidecars = {name for name in files(trainer) if name.startswith("checkpoint_latest.epoch")}
    assert sidecars == {f"checkpoint_latest.epoch{number}.sidecar" for number in (1, 2)}
    other = resumed(phantom, epochs=4)
    assert (other.current_epoch, other.teacher.updates) == (epoch, epoch)
    with quietly():
        one_epoch(other)
    assert [name for name in files(other) if name.startswith("checkpoint_latest.epoch")] == [
        f"checkpoint_latest.epoch{epoch + 1}.sidecar"
    ]


def test_without_its_sidecar_a_training_cannot_go_on_but_its_model_is_validated(phantom, monkeypatch):
    # Threads for nnU-Net's pools: spawned processes would import torch for seconds each.
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: multiprocessing.dummy)
    trainer = run(short_trainer(phantom, epochs=1))
    for sidecar in Path(trainer.output_folder).glob("*.sidecar"):
        sidecar.unlink()
    with pytest.raises(InputError, match=r"checkpoint_final\.epoch1\.sidecar is missing"):
        resumed(phantom, checkpoint=FINAL)
    other = short_trainer(phantom)
    with quietly():
        other.load_checkpoint(str(Path(other.output_folder) / FINAL))
        other.set_deep_supervision_enabled(False)
        other.perform_actual_validation()
    validated = {path.name for path in phantom.results.rglob("validation/*.nii.gz")}
    assert validated == {f"{case}.nii.gz" for case in phantom.splits()[0]["val"]}


def test_the_weights_that_predict_are_the_students(phantom):
    trainer = run(short_trainer(phantom, epochs=1))
    saved = torch.load(Path(trainer.output_folder) / FINAL, weights_only=False)["network_weights"]
    assert equal(list(saved.values()), list(trainer.network.state_dict().values()))
    assert not equal(parameters(trainer.network), parameters(trainer.teacher.network))


def test_a_checkpoint_of_the_supervised_twin_is_loaded_but_not_gone_on_with(phantom):
    twin = make_trainer(twin_of(nnUNetTrainerTemporalSemi), phantom)
    twin.num_epochs = twin.num_iterations_per_epoch = twin.num_val_iterations_per_epoch = 1
    run(twin)
    trainer = short_trainer(phantom, epochs=3)
    with quietly():
        trainer.load_checkpoint(str(Path(twin.output_folder) / FINAL))
    assert equal(parameters(trainer.network), parameters(twin.network))
    with pytest.raises(InputError, match="sidecar is missing"), quietly():
        trainer.on_train_start()


def test_pretrained_weights_are_those_that_the_teacher_starts_from(phantom):
    trainer = short_trainer(phantom)
    with quietly():
        trainer.initialize()
        with torch.no_grad():
            for parameter in trainer.network.parameters():
                parameter += 1
        trainer.on_train_start()
    assert equal(parameters(trainer.network), parameters(trainer.teacher.network))


def test_two_seeded_trainings_are_equal_bit_by_bit(phantom):
    found = []
    for _ in range(2):
        trainer = started(phantom)
        for _ in range(2):
            trainer.train_step(next(trainer.dataloader_train))
        found.append([*parameters(trainer.network), *parameters(trainer.teacher.network)])
    assert equal(*found)


@pytest.mark.slow
def test_an_inflated_model_goes_on_as_a_semi_supervised_training(phantom, monkeypatch, findable_trainers):
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: multiprocessing.dummy)
    monkeypatch.setattr(nnunetv2.utilities.utils, "Pool", multiprocessing.dummy.Pool)
    name, model = "nnUNetTrainerTemporalSemi_10iterations", write_stock_model(phantom)
    with contextlib.redirect_stdout(io.StringIO()):
        assert main(["inflate", "-m", str(model), "-d", "777", "-tr", name, "-np", "1"]) == 0
        trainer = get_trainer_from_args("777", "2dt", 0, name, INFLATED, device=torch.device("cpu"))
        assert files(trainer) == {LATEST, "checkpoint_latest.epoch0.sidecar"}
        trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 1
        maybe_load_checkpoint(trainer, continue_training=True, validation_only=False)
        trainer.on_train_start()
        source = torch.load(model / "fold_0" / FINAL, weights_only=False)["network_weights"]
        weights = trainer.teacher.network.state_dict()
        assert all(torch.equal(weights[tensor], value) for tensor, value in source.items())
        one_epoch(trainer)
        trainer.on_train_end()
    assert trainer.teacher.updates == 1 and remembered(trainer)
    assert {FINAL, "checkpoint_final.epoch1.sidecar"} <= files(trainer)
    assert LATEST not in files(trainer)
