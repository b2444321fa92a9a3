"""The GDKVM trainers: what they build, that they start as nnU-Net, train, and keep time's direction."""

import contextlib
import io

import numpy as np
import pytest
import torch
from phantom_dataset import make_trainer

from nnunet_temporal.networks.build import build_frame_network
from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.networks.memory_ops import accumulation
from nnunet_temporal.networks.memory_rules import MODES, UPDATES
from nnunet_temporal.networks.temporal_unet import Clip
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM, nnUNetTrainerGDKVMPaper

METHODS = [nnUNetTrainerGDKVM, nnUNetTrainerGDKVMPaper]


class RawFromState(nnUNetTrainerGDKVM):
    """An ablation: class attributes are all it takes."""

    mode, update, gate_source, feedback = "raw", "decay", "state", True


def initialised(trainer, phantom):
    """Return a trainer with network, loss and optimiser."""
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = make_trainer(trainer, phantom)
        trainer.initialize()
    return trainer


def memories(trainer):
    return [module for module in trainer.network.modules() if isinstance(module, GatedDeltaMemory)]


def one_batch(trainer):
    with contextlib.redirect_stdout(io.StringIO()):
        training, _ = trainer.get_dataloaders()
    return next(training)


def wake(trainer):
    """Give every memory a voice, as training would."""
    torch.manual_seed(0)
    for memory in memories(trainer):
        torch.nn.init.normal_(memory.projection.weight, std=0.3)


def test_the_recommended_trainer_updates_implicitly_by_frame_gates_and_watches_first(phantom):
    trainer = initialised(nnUNetTrainerGDKVM, phantom)
    assert trainer.network.watch_first
    assert len(memories(trainer)) == len(trainer.temporal.memory_stages)
    for memory in memories(trainer):
        assert memory.mode is MODES["implicit"]
        assert (memory.gate_source, memory.coarse) == ("frame", None)
        assert (memory.heads, memory.key_size) == (trainer.temporal.heads, trainer.temporal.key_size)


def test_the_papers_trainer_has_softmax_keys_state_gates_and_class_probabilities(phantom):
    trainer = initialised(nnUNetTrainerGDKVMPaper, phantom)
    assert not trainer.network.watch_first
    for memory in memories(trainer):
        assert memory.mode is MODES["symmetric"]
        assert memory.gate_source == "state"
        assert memory.coarse.out_channels == trainer.label_manager.num_segmentation_heads == 3


def test_an_ablation_is_a_subclass_that_sets_class_attributes(phantom):
    for memory in memories(initialised(RawFromState, phantom)):
        assert memory.mode is MODES["raw"]
        assert memory.transition is accumulation
        assert memory.gates.write is None
        assert memory.gate_source == "state"
        assert memory.coarse is not None


@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("mode", MODES)
def test_every_mode_and_update_can_be_asked_for_by_a_trainer(mode, update, phantom):
    trainer = type("Ablation", (nnUNetTrainerGDKVM,), {"mode": mode, "update": update})
    temporal = make_trainer(nnUNetTrainerGDKVM, phantom).temporal
    assert trainer.build_temporal_module(8, temporal, 3).mode is MODES[mode]


def test_a_single_region_is_fed_back_with_its_complement(phantom):
    temporal = make_trainer(nnUNetTrainerGDKVMPaper, phantom).temporal
    assert nnUNetTrainerGDKVMPaper.build_temporal_module(8, temporal, 1).coarse.out_channels == 2


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_an_untrained_network_is_the_2d_network_frame_by_frame(method, phantom):
    trainer = initialised(method, phantom)
    architecture = trainer.configuration_manager.configuration["architecture"]
    stock = build_frame_network(architecture, 1, 3, deep_supervision=True)
    stock.encoder, stock.decoder = trainer.network.encoder, trainer.network.decoder
    frames = torch.randn(1, 1, 5, 40, 40)
    expected = torch.stack([stock(frame)[0] for frame in frames.unbind(2)], 2)
    torch.testing.assert_close(trainer.network(frames)[0], expected, atol=3e-5, rtol=1e-5)


@pytest.mark.parametrize("method", [*METHODS, RawFromState])
def test_every_method_trains_on_clips_and_its_whole_memory_learns(method, phantom):
    trainer = initialised(method, phantom)
    batch = one_batch(trainer)
    losses = [float(trainer.train_step(batch)["loss"]) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert all(value.isfinite().all() for value in trainer.network.state_dict().values())
    # Not the weights themselves: a step may be too small for them in float32.
    learning = {name: p.grad.abs().max() > 0 for memory in memories(trainer) for name, p in memory.named_parameters()}
    assert all(learning.values()), learning


@torch.no_grad()
@pytest.mark.parametrize(("method", "causal"), [(nnUNetTrainerGDKVM, False), (nnUNetTrainerGDKVMPaper, True)])
def test_only_the_papers_trainer_is_blind_to_the_future_of_whole_sequences(method, causal, phantom):
    trainer = initialised(method, phantom)
    wake(trainer)
    frames = torch.randn(1, 1, 6, 40, 40, generator=torch.Generator().manual_seed(1))
    other = frames.clone()
    other[:, :, 4:] = torch.randn(1, 1, 2, 40, 40, generator=torch.Generator().manual_seed(2))
    changed = (trainer.network(other)[0] - trainer.network(frames)[0]).abs().amax((0, 1, 3, 4))
    assert (changed[4:] > 0).all()
    assert (changed[:4] == 0).all() == causal


@torch.no_grad()
@pytest.mark.parametrize("method", METHODS)
def test_a_clip_whose_frames_are_all_decoded_is_segmented_as_the_sequence(method, phantom):
    trainer = initialised(method, phantom)
    wake(trainer)
    trainer.network.frame_stride = 1
    frames = torch.randn(1, 1, 5, 40, 40, generator=torch.Generator().manual_seed(1))
    clip = Clip(frames, torch.ones(1, 5, dtype=torch.bool), torch.arange(5)[None])
    torch.testing.assert_close(trainer.network(clip)[0], trainer.network(frames)[0], atol=1e-4, rtol=1e-4)
