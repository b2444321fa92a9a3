"""nnU-Net's own look-up finds every trainer in the folder that ``nnUNet_extTrainer`` names."""

import inspect
import pickle

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_temporal.commands.doctor import look_up_trainer
from nnunet_temporal.trainers.variants import VARIANTS


@pytest.mark.parametrize("name", VARIANTS)
def test_nnunet_finds_the_installed_class_which_can_be_pickled(name, findable_trainers):
    trainer = look_up_trainer(name)
    assert trainer is VARIANTS[name]
    assert pickle.loads(pickle.dumps(trainer)) is trainer


@pytest.mark.parametrize("name", VARIANTS)
def test_trainers_keep_the_parameters_nnunet_reads_from_its_own_locals(name):
    assert inspect.signature(VARIANTS[name]).parameters == inspect.signature(nnUNetTrainer).parameters
