"""The trainer of MSSNet: the module it builds, and what a few steps teach it."""

import contextlib
import io

import numpy as np
import pytest
import torch
from phantom_dataset import make_trainer

from nnunet_temporal.networks.state_space_guidance import SPATIAL_MIXERS, StateSpaceGuidance
from nnunet_temporal.trainers.mssnet import nnUNetTrainerMSSNetSupervised
from nnunet_temporal.trainers.variants import METHODS


class AttentionTrainer(nnUNetTrainerMSSNetSupervised):
    """The trainer with the mixer of the authors' sketch."""

    mixer = "attention"


TRAINERS = {"mamba": nnUNetTrainerMSSNetSupervised, "attention": AttentionTrainer}


def test_nnunet_finds_it():
    assert nnUNetTrainerMSSNetSupervised in METHODS


@pytest.mark.parametrize("mixer", TRAINERS)
def test_every_planned_stage_gets_a_guidance_of_planned_size(phantom, mixer):
    trainer = make_trainer(TRAINERS[mixer], phantom, heads=3, key_size=5, value_size=7)
    module = trainer.build_temporal_module(16, trainer.temporal, 2)
    assert isinstance(module, StateSpaceGuidance)
    assert isinstance(module.mixer, SPATIAL_MIXERS[mixer])
    assert module.mixer.heads == 3
    assert module.mixer.out_channels == 3 * 7 * (2 if mixer == "mamba" else 1)
    guided, _ = module(torch.randn(1, 2, 16, 4, 4))
    assert guided.shape == (1, 2, 16, 4, 4)


@pytest.mark.parametrize("mixer", TRAINERS)
def test_training_on_sparse_labels_wakes_the_guidance(phantom, mixer):
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = make_trainer(TRAINERS[mixer], phantom)
        trainer.initialize()
        training, _ = trainer.get_dataloaders()
        losses = [float(trainer.train_step(next(training))["loss"]) for _ in range(3)]
    assert np.isfinite(losses).all()
    assert all(module.projection.weight.abs().max() > 0 for module in trainer.network.temporal.values())
    assert trainer.network.watch_first
