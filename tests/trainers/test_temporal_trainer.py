"""The base trainer on the phantom, in this process and without nnU-Net's long parts."""

import contextlib
import io
import json
import multiprocessing
import multiprocessing.dummy
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantom_dataset import LABELS, make_trainer

from nnunet_temporal.errors import InputError
from nnunet_temporal.networks.temporal_unet import Clip
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, study_splits
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal
from nnunet_temporal.trainers.variants import VARIANTS, make_variant

SHORT = VARIANTS["nnUNetTrainerGDKVM_10iterations"]
TINY = make_variant(
    nnUNetTrainerGDKVM, "two_tiny_epochs", epochs=2, iterations_per_epoch=2, validation_iterations_per_epoch=1
)


@contextlib.contextmanager
def time_limit(seconds):
    """Fail, instead of waiting for ever, when worker processes never answer."""

    def give_up(number, frame):
        raise TimeoutError(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def quietly():
    """Drop what nnU-Net prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def initialised(phantom, trainer=SHORT, **arguments):
    """Return a trainer with network, loss and optimiser."""
    with quietly():
        trainer = make_trainer(trainer, phantom, **arguments)
        trainer.initialize()
    return trainer


def three_steps(phantom):
    """Train three steps from scratch; return the losses and the weights."""
    trainer = initialised(phantom)
    with quietly():
        training, validation = trainer.get_dataloaders()
    losses = [float(trainer.train_step(next(training))["loss"]) for _ in range(3)]
    for augmenter in (training, validation):
        if hasattr(augmenter, "_finish"):
            augmenter._finish()
    return losses, {name: value.clone() for name, value in trainer.network.state_dict().items()}


def write_dataset_json(phantom, **entries):
    """Replace entries of the preprocessed dataset's dataset.json."""
    path = phantom.preprocessed / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def write_splits(phantom, splits):
    """Replace the splits."""
    (phantom.preprocessed / "splits_final.json").write_text(json.dumps(splits))


def keep_one_batch(trainer):
    """Return the first training and validation batch of a trainer."""
    with quietly():
        return tuple(next(augmenter) for augmenter in trainer.get_dataloaders())


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_a_configuration_without_time_is_refused_with_the_command_to_run(phantom, configuration):
    with pytest.raises(InputError, match=r"nnUNetv2_train DATASET 2dt FOLD -p nnUNetTemporalPlans"):
        make_trainer(SHORT, phantom, configuration=configuration)


def test_the_base_alone_has_no_temporal_module(phantom):
    with pytest.raises(NotImplementedError, match="says which temporal module"), quietly():
        make_trainer(nnUNetTrainerTemporal, phantom).initialize()


@pytest.mark.parametrize("fold", [4, 5, -1])
def test_a_fold_beyond_the_splits_is_refused_with_the_folds_there_are(phantom, fold):
    with pytest.raises(InputError, match=rf"Fold {fold} does not exist.*-f 0 to 3"):
        make_trainer(SHORT, phantom, fold=fold).do_split()


def test_a_split_with_a_study_on_both_sides_is_refused(phantom):
    splits = phantom.splits()
    splits[0]["train"].append(splits[0]["val"].pop())
    write_splits(phantom, splits)
    with pytest.raises(InputError, match=r"study_a.*both train and val"):
        make_trainer(SHORT, phantom).do_split()


@pytest.mark.parametrize("fold", range(4))
def test_the_cases_of_a_fold_are_those_of_the_splits_file(phantom, fold):
    with quietly():
        train, validation = make_trainer(SHORT, phantom, fold=fold).do_split()
    assert {"train": list(train), "val": list(validation)} == phantom.splits()[fold]


def test_fold_all_trains_on_every_case_and_validates_those_with_labels(phantom):
    with quietly():
        train, validation = make_trainer(SHORT, phantom, fold="all").do_split()
    manifest = Manifest.load(phantom.preprocessed)
    assert sorted(train) == sorted(manifest)
    labelled = sorted(case for case, sequence in manifest.items() if sequence.labelled_frames)
    assert sorted(validation) == labelled and len(labelled) < len(train)


def test_missing_splits_are_made_by_study(phantom):
    os.remove(phantom.preprocessed / "splits_final.json")
    with quietly():
        make_trainer(SHORT, phantom).do_split()
    assert phantom.splits() == study_splits(Manifest.load(phantom.preprocessed))


def test_a_missing_manifest_is_refused_with_the_command_to_run(phantom):
    os.remove(phantom.preprocessed / MANIFEST_NAME)
    with pytest.raises(InputError, match=r"sequences\.json is missing.*nnunet_temporal plan_and_preprocess"):
        make_trainer(SHORT, phantom).do_split()


def test_sequences_without_labels_are_in_no_clip(phantom):
    trainer = initialised(phantom)
    with quietly():
        training, _ = trainer.get_dataloaders()
    assert "study_d_z01" in phantom.splits()[0]["train"]
    assert "study_d_z01" not in training.data_loader.indices


def test_a_densely_labelled_dataset_gets_an_ignore_label_but_no_further_head(phantom):
    sparse = make_trainer(SHORT, phantom)
    write_dataset_json(phantom, labels={name: value for name, value in LABELS.items() if name != "ignore"})
    dense = make_trainer(SHORT, phantom)
    assert sparse.label_manager.ignore_label == dense.label_manager.ignore_label == 3
    assert sparse.label_manager.num_segmentation_heads == dense.label_manager.num_segmentation_heads == 3


def test_padding_of_a_densely_labelled_dataset_is_ignored_by_the_loss(phantom):
    write_dataset_json(phantom, labels={name: value for name, value in LABELS.items() if name != "ignore"})
    trainer = initialised(phantom)
    batch, _ = keep_one_batch(trainer)
    # 36 pixels wide images in patches of 40.
    assert (batch["target"][0] == 3).any()
    assert np.isfinite(trainer.train_step(batch)["loss"])


def test_every_parameter_is_in_exactly_one_group_of_the_optimiser(phantom):
    trainer = initialised(phantom)
    grouped = [id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in trainer.network.parameters())


def test_only_weights_and_biases_of_layers_decay(phantom):
    trainer = initialised(phantom)
    decay = {id(p): group["weight_decay"] for group in trainer.optimizer.param_groups for p in group["params"]}
    by_kind = {}
    for name, parameter in trainer.network.named_parameters():
        by_kind.setdefault(name.rpartition(".")[2], set()).add(decay[id(parameter)])
    assert by_kind.pop("weight") == by_kind.pop("bias") == {trainer.weight_decay}
    assert set(by_kind) >= {"log_rate", "time_step"} and all(kind == {0.0} for kind in by_kind.values())


def test_the_learning_rate_of_all_groups_falls_together(phantom):
    trainer = initialised(phantom, VARIANTS["nnUNetTrainerGDKVM_10epochs"])
    trainer.lr_scheduler.step(5)
    rates = {group["lr"] for group in trainer.optimizer.param_groups}
    assert len(rates) == 1
    assert rates.pop() == pytest.approx(trainer.initial_lr * 0.5**0.9)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_two_seeded_trainings_are_equal_bit_by_bit(phantom, monkeypatch, workers):
    monkeypatch.setenv("nnUNet_n_proc_DA", workers)
    # nnUNetv2_train does so on a CPU; it decides how the workers' matrix products run.
    torch.set_num_threads(2)
    with time_limit(300):
        losses, weights = three_steps(phantom)
        # What another program part draws in between must not matter.
        torch.rand(7)
        np.random.rand(7)
        again, weights_again = three_steps(phantom)
    assert losses == again
    assert all(torch.equal(weights[name], weights_again[name]) for name in weights)


def test_another_seed_in_the_plans_gives_another_training(phantom):
    first, second = (initialised(phantom, seed=seed) for seed in (1, 2))
    batches = [keep_one_batch(trainer)[0] for trainer in (first, second)]
    weights = [next(trainer.network.parameters()) for trainer in (first, second)]
    assert not torch.equal(*weights)
    assert not torch.equal(*(batch["data"] for batch in batches))


def test_training_changes_the_temporal_modules(phantom):
    trainer = initialised(phantom)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items() if "temporal" in name}
    for _ in range(2):
        trainer.train_step(keep_one_batch(trainer)[0])
    after = trainer.network.state_dict()
    assert before
    assert all(torch.isfinite(value).all() for value in after.values())
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert any("projection" in name for name in changed)
    assert any("projection" not in name for name in changed)


def test_a_resumed_training_draws_other_batches_than_its_first_epoch(phantom):
    trainer = initialised(phantom)
    first, _ = keep_one_batch(trainer)
    trainer.current_epoch = 1
    resumed, _ = keep_one_batch(trainer)
    assert not torch.equal(first["data"], resumed["data"])


def test_training_and_validation_draw_from_different_streams(phantom):
    trainer = initialised(phantom, fold="all")
    with quietly():
        seeds = {augmenter.data_loader.options.seed for augmenter in trainer.get_dataloaders()}
    assert len(seeds) == 2


def test_a_step_decodes_as_many_frames_as_planned(phantom):
    trainer = initialised(phantom)
    batch, _ = keep_one_batch(trainer)
    clips, decoded = trainer.batch_size, trainer.temporal.decoded_frames
    assert clips * decoded >= 2
    assert batch["data"].shape == (clips, 1, trainer.temporal.clip_length, 40, 40)
    assert batch["target"][0].shape == (clips, 1, decoded, 40, 40)
    clip = Clip(batch["data"], batch["valid"], batch["decoded"])
    sizes = [tuple(scale.shape) for scale in trainer.network(clip)]
    assert sizes == [(clips, 3, decoded, side, side) for side in (40, 20, 10)]


@pytest.mark.parametrize(
    ("planned", "allowed"), [([1, 2], (1, 2)), ([2], (2,)), (None, None)], ids=["both axes", "one axis", "none"]
)
def test_prediction_mirrors_the_planned_axes_in_stock_nnunet(phantom, planned, allowed):
    trainer = initialised(phantom, mirror_axes=planned)
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    assert trainer.inference_allowed_mirroring_axes == allowed
    trainer.set_deep_supervision_enabled(False)
    with quietly():
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.manual_initialization(
            trainer.network, trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json,
            type(trainer).__name__, trainer.inference_allowed_mirroring_axes,
        )  # fmt: skip
    logits = predictor.predict_sliding_window_return_logits(torch.rand(1, 5, 33, 36))
    assert logits.shape == (3, 5, 33, 36)
    assert torch.isfinite(logits).all()


def test_a_training_killed_while_it_saves_keeps_the_checkpoint_before(phantom, tmp_path, monkeypatch):
    def break_off(_, file):
        Path(file).write_bytes(b"half of it")
        raise KeyboardInterrupt

    trainer, checkpoint = initialised(phantom), tmp_path / "fold_0" / "checkpoint_latest.pth"
    checkpoint.parent.mkdir()
    trainer.save_checkpoint(str(checkpoint))
    before = checkpoint.read_bytes()
    monkeypatch.setattr(torch, "save", break_off)
    with pytest.raises(KeyboardInterrupt):
        trainer.save_checkpoint(str(checkpoint))
    assert checkpoint.read_bytes() == before
    assert list(checkpoint.parent.iterdir()) == [checkpoint]


def test_a_checkpoint_restores_weights_optimiser_and_epoch(phantom, tmp_path):
    trainer = initialised(phantom, mirror_axes=[1, 2])
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    batch, _ = keep_one_batch(trainer)
    trainer.train_step(batch)
    trainer.current_epoch = 3
    trainer.save_checkpoint(str(tmp_path / "checkpoint.pth"))
    restored = initialised(phantom, seed=99)
    restored.load_checkpoint(str(tmp_path / "checkpoint.pth"))
    assert restored.current_epoch == 4
    assert restored.inference_allowed_mirroring_axes == (1, 2)
    for name, value in trainer.network.state_dict().items():
        assert torch.equal(value, restored.network.state_dict()[name])
    assert trainer.train_step(batch)["loss"] == restored.train_step(batch)["loss"]
    assert torch.equal(next(trainer.network.parameters()), next(restored.network.parameters()))


def test_a_training_checkpoint_loads_into_the_network_nnunet_builds_for_prediction(phantom):
    trainer = initialised(phantom)
    manager = PlansManager(phantom.plans())
    network = SHORT.build_network_architecture(
        manager, manager.get_configuration("2dt"), 1, 3, enable_deep_supervision=False
    )
    network.load_state_dict(trainer.network.state_dict())
    frames = torch.rand(1, 1, 4, 40, 40)
    with torch.no_grad():
        expected = trainer.network.eval()(frames)[0]
        assert torch.equal(network.eval()(frames), expected)


def region_based(phantom):
    """Turn the phantom into a dataset whose labels are regions."""
    regions = {"background": 0, "epicardium": [1, 2], "LV": [1], "ignore": 3}
    write_dataset_json(phantom, labels=regions, regions_class_order=[2, 1])
    return phantom


def test_a_region_based_dataset_trains_and_validates(phantom):
    trainer = initialised(region_based(phantom))
    training, validation = keep_one_batch(trainer)
    assert training["target"][0].shape[1] == 3
    assert np.isfinite(trainer.train_step(training)["loss"])
    with torch.no_grad():
        result = trainer.validation_step(validation)
    assert np.isfinite(result["loss"])
    assert result["tp_hard"].shape == (2,)


def test_a_region_based_dataset_without_ignore_label_gets_one(phantom):
    region_based(phantom)
    write_dataset_json(phantom, labels={"background": 0, "epicardium": [1, 2], "LV": [1]})
    trainer = initialised(phantom)
    assert trainer.label_manager.ignore_label == 3
    assert trainer.label_manager.num_segmentation_heads == 2
    assert np.isfinite(trainer.train_step(keep_one_batch(trainer)[0])["loss"])


def test_a_cascade_is_refused(phantom):
    plans = phantom.plans()
    plans["configurations"]["2dt_second"] = {"inherits_from": "2dt", "previous_stage": "2dt"}
    (phantom.preprocessed / "nnUNetTemporalLightPlans.json").write_text(json.dumps(plans))
    with pytest.raises(NotImplementedError, match="cascades"):
        make_trainer(SHORT, phantom, configuration="2dt_second")


def test_unknown_temporal_keys_of_another_version_are_refused(phantom):
    with pytest.raises(InputError, match="Plan the dataset again"):
        make_trainer(SHORT, phantom, neighbours=3)


def test_plans_that_contradict_themselves_are_refused(phantom):
    with pytest.raises(InputError, match=r"memory_stages \[9\] go beyond the encoder's"):
        make_trainer(SHORT, phantom, memory_stages=[9])


def test_a_whole_training_and_its_validation_run_and_resume(phantom, monkeypatch):
    # Threads for nnU-Net's pools: spawned processes would import torch for seconds each.
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: multiprocessing.dummy)
    with quietly():
        trainer = make_trainer(TINY, phantom)
        trainer.num_epochs = 1
        trainer.run_training()
        resumed = make_trainer(TINY, phantom)
        resumed.load_checkpoint(os.path.join(resumed.output_folder, "checkpoint_final.pth"))
        resumed.run_training()
        resumed.perform_actual_validation()
    assert resumed.current_epoch == 2
    assert len(resumed.logger.get_value("train_losses", step=None)) == 2
    validated = {path.name for path in phantom.results.rglob("validation/*.nii.gz")}
    assert validated == {f"{case}.nii.gz" for case in phantom.splits()[0]["val"]}
