"""A semi-supervised step: the supervised one and the unlabelled one, for any method, classes and regions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from phantom_dataset import make_trainer
from semi_supervised import (
    ALL,
    IGNORE,
    equal,
    make_regions,
    nnUNetTrainerAllCSTM,
    nnUNetTrainerSilent,
    parameters,
    quietly,
    remember_squares,
    remembered,
    short_trainer,
    started,
    twin_of,
)
from torch.nn.utils import parameters_to_vector

from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest
from nnunet_temporal.trainers.mssnet import nnUNetTrainerMSSNet
from nnunet_temporal.trainers.ncmnet import nnUNetTrainerNCMNet
from nnunet_temporal.trainers.semi_supervised import SemiSupervised
from nnunet_temporal.trainers.temporal_semi import nnUNetTrainerTemporalSemi
from nnunet_temporal.training.augmenter import start_augmenter
from nnunet_temporal.training.semi_supervised_logger import AGREEMENT
from nnunet_temporal.training.unlabelled_schedule import UnlabelledSchedule
from nnunet_temporal.training.window_losses import LOSSES

PARTS = ("weight", "bias")
COARSEST = "decoder.seg_layers.0."


def twin_after(phantom, semi, steps):
    """Take nnU-Net's own steps, by the supervised twin, on the first batches; return it."""
    with quietly():
        twin = make_trainer(twin_of(semi), phantom)
        twin.num_epochs = 1000
        twin.on_train_start()
        twin.on_train_epoch_start()
        for _ in range(steps):
            twin.train_step(next(twin.dataloader_train))
    return twin


def used(trainer):
    """Copy the parameters that nnU-Net's loss reaches: it counts the coarsest output on several devices only."""
    named = trainer.network.named_parameters()
    return [parameter.detach().clone() for name, parameter in named if not name.startswith(COARSEST)]


def take_steps(trainer, steps):
    return [trainer.train_step(next(trainer.dataloader_train)) for _ in range(steps)]


def unlabelled_batch(trainer):
    return next(trainer.dataloader_unlabelled)


def gradients_of_both_passes(trainer):
    """Take a step; return the gradients after each of its two backward passes, without those of the other."""
    passes, backward = [], trainer._backward

    def record(loss):
        trainer.optimizer.zero_grad(set_to_none=True)
        backward(loss)
        passes.append({name: parameter.grad for name, parameter in trainer.network.named_parameters()})

    trainer._backward = record
    take_steps(trainer, 1)
    return passes


@pytest.mark.parametrize("semi", [nnUNetTrainerTemporalSemi, nnUNetTrainerAllCSTM])
def test_before_the_schedule_begins_the_steps_are_those_of_the_supervised_trainer(phantom, semi):
    trainer = started(phantom, semi, epochs=1000)
    assert trainer.dataloader_unlabelled is None
    results = take_steps(trainer, 2)
    assert equal(parameters(trainer.network), parameters(twin_after(phantom, semi, 2).network))
    assert all(result[key] == 0 for result in results for key in LOSSES)


@pytest.mark.parametrize("factor", [1, 1000])
def test_unlabelled_batches_that_weigh_nothing_change_nothing(phantom, factor):
    def enlarged(loss):
        """So large a loss has its gradients clipped."""
        return lambda output, target: factor * loss(output, target)

    trainer, twin = started(phantom, nnUNetTrainerSilent, epochs=1000), twin_after(phantom, nnUNetTrainerSilent, 0)
    trainer.dataloader_unlabelled = start_augmenter(trainer._unlabelled_loader(), 0, trainer.device)
    for each in (trainer, twin):
        each.loss = enlarged(each.loss)
        take_steps(each, 2)
    # Not bit by bit: the norm that clips gradients sums the zeros of the coarsest head, too, in an order of its own.
    for ours, theirs in zip(used(trainer), used(twin), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_step_follows_the_sum_of_both_parts(phantom):
    trainer, both, twin = started(phantom), started(phantom), twin_after(phantom, nnUNetTrainerTemporalSemi, 0)
    for each in (trainer, both):
        remember_squares(each)
    supervised, unlabelled = gradients_of_both_passes(trainer)
    batch = next(twin.dataloader_train)
    twin.loss(twin.network(twin.network_input(batch)), batch["target"]).backward()
    alone = dict(twin.network.named_parameters())
    both._take_step = lambda: None
    take_steps(both, 1)
    for name, parameter in both.network.named_parameters():
        if not name.startswith(COARSEST):
            assert torch.equal(supervised[name], alone[name].grad)
            torch.testing.assert_close(parameter.grad, supervised[name] + unlabelled[name], rtol=1e-4, atol=1e-6)


class nnUNetTrainerHalfway(nnUNetTrainerTemporalSemi):
    """In the middle of its ramp."""

    schedule = UnlabelledSchedule(1, begin=0, full=2)


def test_the_schedule_weighs_the_unlabelled_part_only(phantom):
    found = []
    for semi in (nnUNetTrainerTemporalSemi, nnUNetTrainerHalfway):
        trainer = started(phantom, semi)
        remember_squares(trainer)
        found.append(gradients_of_both_passes(trainer))
    (supervised, unlabelled), (other, halved) = found
    assert nnUNetTrainerHalfway.schedule.weight(0) == 0.5
    for name in halved:
        torch.testing.assert_close(halved[name], 0.5 * unlabelled[name], rtol=1e-4, atol=1e-7)
        assert name.startswith(COARSEST) or torch.equal(supervised[name], other[name])


@pytest.mark.parametrize("regions", [False, True])
@pytest.mark.parametrize("semi", ALL)
def test_both_passes_give_every_parameter_a_gradient_and_all_losses_count(phantom, semi, regions):
    if regions:
        make_regions(phantom)
    trainer = started(phantom, semi)
    remember_squares(trainer)
    batch = next(trainer.dataloader_train)
    supervised, unlabelled = gradients_of_both_passes(trainer)
    assert {name for name, gradient in supervised.items() if gradient is None} == {f"{COARSEST}{n}" for n in PARTS}
    assert all(gradient is not None for gradient in unlabelled.values())
    for gradients in (supervised, unlabelled):
        found = [gradient for gradient in gradients.values() if gradient is not None]
        assert all(gradient.isfinite().all() for gradient in found)
        assert any(gradient.abs().sum() > 0 for gradient in found)
    result = trainer.train_step(batch)
    assert np.isfinite([*result.values()]).all()
    assert result["pseudo_label_losses"] > 0 and result["contrastive_losses"] > 0


def test_the_boundary_of_frames_that_jump_costs(phantom):
    trainer = started(phantom, nnUNetTrainerNCMNet)
    logits = torch.zeros(1, 3, 4, 40, 40)
    logits[:, 0] = 1
    for frame, radius in enumerate((6, 6, 14, 6)):
        logits[:, :2, frame, 20 - radius : 20 + radius, 20 - radius : 20 + radius] = torch.tensor([0.0, 4.0]).view(
            2, 1, 1
        )
    batch = {
        "data": torch.rand(1, 1, 4, 40, 40), "valid": torch.ones(1, 4, dtype=torch.bool),
        "decoded": torch.arange(4)[None], "labels": torch.full((1, 1, 4, 40, 40), IGNORE, dtype=torch.int16),
        "weight": torch.zeros(1, 4), "labelled": torch.zeros(1, 4, dtype=torch.bool),
        "view": torch.zeros(1, dtype=torch.int64),
    }  # fmt: skip
    losses = []
    for jump in (logits, logits[:, :, :1].expand_as(logits)):
        trainer.network.forward = lambda clip, jump=jump: [jump]
        losses.append(float(trainer._unlabelled_losses(batch)["boundary_losses"]))
    assert losses[0] > 0.1 and losses[1] == 0
    # A frame that a person labelled is pulled nowhere, and a padding frame neither pulls nor is pulled.
    trainer.network.forward = lambda clip: [logits]
    truth = torch.zeros(1, 1, 4, 40, 40, dtype=torch.int16)
    truth[:, :, 2, 6:34, 6:34] = 1
    labelled = torch.tensor([[False, False, True, False]])
    known = {**batch, "labels": torch.where(labelled[:, None, :, None, None], truth, batch["labels"])}
    known.update(labelled=labelled, weight=labelled.float())
    assert float(trainer._unlabelled_losses(known)["boundary_losses"]) < losses[0]
    padded = {**batch, "valid": torch.tensor([[True, True, False, False]])}
    assert float(trainer._unlabelled_losses(padded)["boundary_losses"]) == 0


@pytest.mark.parametrize("regions", [False, True])
def test_the_boundary_loss_is_told_what_is_true_and_what_is_mixed(phantom, regions):
    if regions:
        make_regions(phantom)
    trainer, given = started(phantom), []
    remember_squares(trainer)
    trainer.cross_mix = replace(trainer.cross_mix, probability=1.0)
    trainer.window_losses.boundary.forward = lambda *arguments: given.append(arguments) or arguments[0].sum()
    batch = unlabelled_batch(trainer)
    for weight, labelled in ((0.5, False), (1.0, True)):
        batch.update(weight=torch.full_like(batch["weight"], weight), labelled=batch["labelled"].fill_(labelled))
        trainer._unlabelled_losses(batch)
    (probabilities, doubtful, _, _, counted), (_, true, labelled, valid, _) = given
    assert torch.allclose(probabilities.sum(1), torch.ones(())) != regions
    assert probabilities.min() >= 0 and probabilities.max() <= 1
    assert (doubtful == -1).all() and labelled.all()
    assert set(true.unique().tolist()) == {-1, 0, 1}
    assert counted.any() and not counted.all()
    assert torch.equal(valid, batch["valid"].gather(1, batch["decoded"]))


@pytest.mark.parametrize("semi", ALL)
def test_a_batch_of_which_nothing_is_known_is_finite(phantom, semi):
    trainer = started(phantom, semi)
    batch = unlabelled_batch(trainer)
    batch["labels"].fill_(IGNORE)
    batch["weight"].fill_(0)
    batch["labelled"].fill_(False)
    trainer.dataloader_unlabelled = iter([batch])
    (result,) = take_steps(trainer, 1)
    assert np.isfinite([*result.values()]).all()
    assert result["pseudo_label_losses"] == result["contrastive_losses"] == 0
    assert parameters_to_vector(trainer.network.parameters()).isfinite().all()


def test_true_labels_weigh_more_than_pseudo_labels_of_the_same_pixels(phantom):
    trainer = started(phantom)
    remember_squares(trainer)
    batch = unlabelled_batch(trainer)
    losses = []
    for weight in (1.0, 0.25):
        known = {**batch, "weight": torch.where(batch["valid"], weight, 0.0)}
        trainer.generator.manual_seed(0)
        losses.append(float(trainer._unlabelled_losses(known)["pseudo_label_losses"].detach()))
    assert losses[1] == pytest.approx(0.25 * losses[0], rel=1e-4)


def test_one_training_batch_is_not_changed_by_a_step(phantom):
    trainer = started(phantom)
    remember_squares(trainer)
    batches = next(trainer.dataloader_train), unlabelled_batch(trainer)
    before = [{k: v.clone() for k, v in batch.items() if isinstance(v, torch.Tensor)} for batch in batches]
    trainer.dataloader_unlabelled = iter(batches[1:])
    trainer.train_step(batches[0])
    for batch, copies in zip(batches, before, strict=True):
        assert all(torch.equal(batch[name], copy) for name, copy in copies.items())


def test_every_sequence_of_the_training_side_is_predicted_and_none_of_the_other(phantom):
    trainer = started(phantom)
    split = phantom.splits()[0]
    assert set(remembered(trainer)) == set(split["train"])
    drawn = {case for _ in range(10) for case in unlabelled_batch(trainer)["keys"]}
    assert drawn <= set(split["train"]) and not drawn & set(split["val"])
    sequences = trainer.manifest.sequences
    assert not {sequences[case].study for case in drawn} & {sequences[case].study for case in split["val"]}
    assert any(not sequences[case].labelled_frames for case in drawn)


@pytest.mark.parametrize("regions", [False, True])
def test_a_round_remembers_what_the_teacher_says_of_the_whole_sequence(phantom, regions):
    if regions:
        make_regions(phantom)
    trainer = started(phantom)
    dataset, _ = trainer.get_tr_and_val_datasets()
    case = next(name for name in phantom.splits()[0]["train"] if name.startswith(("study_a", "study_d")))
    data = torch.from_numpy(dataset.load_case(case)[0][:])
    assert data.shape[1:] == (8, 40, 36)  # a single tile, with a margin at the sides
    with torch.no_grad():
        logits = trainer.teacher.network(torch.nn.functional.pad(data, (2, 2))[None])[0, ..., 2:-2]
    if regions:
        inside = logits.sigmoid() > 0.5
        expected = torch.where(inside[1], 1, torch.where(inside[0], 2, 0))
    else:
        expected = logits.argmax(0)
    labels, confidence, weight = trainer.pseudo_labels.read(case)
    # nnU-Net keeps logits in half precision.
    assert (labels == expected.numpy()).mean() > 0.99
    assert weight == pytest.approx(math.exp(-1))
    assert confidence.max() > 0


def test_the_loader_hands_out_the_pseudo_labels_of_the_latest_round(phantom):
    def known(trainer):
        batch = unlabelled_batch(trainer)
        unlabelled = (batch["valid"] & ~batch["labelled"])[:, None, :, None, None]
        return float(((batch["labels"] != IGNORE) & unlabelled).float().mean())

    trainer = started(phantom)
    remember_squares(trainer, confidence=0.9)
    assert known(trainer) == 0
    remember_squares(trainer)
    assert known(trainer) > 0.05


def test_a_dataset_without_unlabelled_frames_is_refused_before_anything_is_predicted(phantom, monkeypatch):
    manifest = Manifest.read(phantom.preprocessed / MANIFEST_NAME)
    dense = {
        case: replace(sequence, labelled_frames=tuple(range(sequence.n_frames)))
        for case, sequence in manifest.sequences.items()
    }
    Manifest(dense).write(phantom.preprocessed / MANIFEST_NAME)
    monkeypatch.setattr(SemiSupervised, "run_round", lambda trainer: pytest.fail("predicted"))
    with pytest.raises(InputError, match=r"Every frame of the 6 training sequences.*Take the supervised trainer"):
        started(phantom)


def test_epochs_log_one_value_of_everything(phantom):
    trainer = short_trainer(phantom, epochs=12)
    trainer.logger.plot_progress_png = lambda folder: None
    with quietly():
        trainer.on_train_start()
        for _ in range(4):
            trainer.on_epoch_start()
            trainer.on_train_epoch_start()
            trainer.on_train_epoch_end(take_steps(trainer, 1))
            trainer.on_validation_epoch_start()
            trainer.on_validation_epoch_end([trainer.validation_step(next(trainer.dataloader_val))])
            trainer.on_epoch_end()
    logged = trainer.logger.local_logger.my_fantastic_logging
    assert {key: len(values) for key, values in logged.items()} == dict.fromkeys(logged, 4)
    # The first epoch of twelve is supervised; rounds open the second and the fourth.
    assert logged["pseudo_label_losses"][0] == 0 and all(logged["contrastive_losses"][1:])
    for key in AGREEMENT:
        assert np.isnan(logged[key][:3]).all() and 0 <= logged[key][3] <= 1


@pytest.mark.slow
def test_a_compiled_network_takes_the_same_step(phantom):
    plain, compiled = (short_trainer(phantom) for _ in range(2))
    compiled.initialize()
    compiled.network = torch.compile(compiled.network, backend="eager")
    results = []
    for trainer in (plain, compiled):
        with quietly():
            trainer.on_train_start()
            trainer.on_train_epoch_start()
        remember_squares(trainer)
        results.append([float(value) for step in take_steps(trainer, 2) for value in step.values()])
    np.testing.assert_allclose(results[1], results[0], rtol=1e-3, atol=1e-5)


def test_what_weighs_nothing_is_not_computed(phantom):
    ncmnet, mssnet = started(phantom, nnUNetTrainerNCMNet), started(phantom, nnUNetTrainerMSSNet)
    ncmnet.window_losses.pseudo_label = ncmnet.window_losses.contrastive = mssnet.window_losses.boundary = None
    for trainer in (ncmnet, mssnet):
        take_steps(trainer, 1)
    assert not remembered(ncmnet) and remembered(mssnet)
