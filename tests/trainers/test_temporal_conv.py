"""The trainer of the temporal baseline: the module it builds, and what a few steps teach it."""

import contextlib
import io

import numpy as np
from phantom_dataset import make_trainer

from nnunet_temporal.networks.temporal_convolution import TemporalConvolution
from nnunet_temporal.trainers.temporal_conv import nnUNetTrainerTemporalConv
from nnunet_temporal.trainers.variants import METHODS


def test_nnunet_finds_it():
    assert nnUNetTrainerTemporalConv in METHODS


def test_training_on_sparse_labels_reaches_the_past(phantom):
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = make_trainer(nnUNetTrainerTemporalConv, phantom)
        trainer.initialize()
        training, _ = trainer.get_dataloaders()
        losses = [float(trainer.train_step(next(training))["loss"]) for _ in range(3)]
    assert np.isfinite(losses).all()
    modules = list(trainer.network.temporal.values())
    assert modules and all(isinstance(module, TemporalConvolution) for module in modules)
    # Watching first, even a clip of two frames has two frames before each.
    assert all((layer.weight[:-1].abs().amax(1) > 0).all() for module in modules for layer in module.temporal)
