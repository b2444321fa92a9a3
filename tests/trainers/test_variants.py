"""The variant factory: names, lengths, pickling, and how often a short training saves."""

import pickle

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import make_trainer

from nnunet_temporal.trainers import variants
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.variants import DISTILLED, METHODS, SEMI_SUPERVISED, VARIANTS, make_variant

TRAINERS = (*METHODS, *SEMI_SUPERVISED, *DISTILLED)
LENGTHS = {
    "1epoch": 1,
    "5epochs": 5,
    "10epochs": 10,
    "20epochs": 20,
    "50epochs": 50,
    "100epochs": 100,
    "250epochs": 250,
}


@pytest.mark.parametrize("method", TRAINERS)
def test_every_method_has_the_promised_variants(method):
    suffixes = {name.removeprefix(f"{method.__name__}_") for name in VARIANTS if name.startswith(f"{method.__name__}_")}
    assert suffixes == {"10iterations", "demo", *LENGTHS}
    assert VARIANTS[method.__name__] is method


@pytest.mark.parametrize(("suffix", "epochs"), LENGTHS.items())
def test_the_name_says_how_long_a_variant_trains(suffix, epochs):
    assert VARIANTS[f"nnUNetTrainerGDKVM_{suffix}"].epochs == epochs


@pytest.mark.parametrize(("name", "variant"), VARIANTS.items())
def test_a_variant_is_an_attribute_of_its_module_under_its_own_name(name, variant):
    assert variant.__name__ == name
    assert getattr(variants, name) is variant
    assert pickle.loads(pickle.dumps(variant)) is variant


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in {m.__name__ for m in TRAINERS}])
def test_a_variant_changes_numbers_only(name):
    variant = VARIANTS[name]
    (base,) = variant.__bases__
    assert base in TRAINERS
    own = {key: value for key, value in vars(variant).items() if not key.startswith("_")}
    assert set(own) <= {"epochs", "iterations_per_epoch", "validation_iterations_per_epoch"}


def test_no_variant_hides_a_trainer_of_nnunet():
    assert not set(VARIANTS) & {cls.__name__ for cls in nnUNetTrainer.__subclasses__() if "nnunetv2" in cls.__module__}


def test_the_full_method_keeps_nnunets_length(phantom):
    trainer = make_trainer(nnUNetTrainerGDKVM, phantom)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (
        1000,
        250,
        50,
    )
    assert trainer.save_every == 50


def test_ten_iterations_are_one_epoch(phantom):
    trainer = make_trainer(VARIANTS["nnUNetTrainerGDKVM_10iterations"], phantom)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (1, 10, 2)


@pytest.mark.parametrize(
    ("suffix", "save_every"), [("1epoch", 1), ("5epochs", 1), ("20epochs", 2), ("100epochs", 10), ("250epochs", 25)]
)
def test_short_trainings_save_at_every_tenth_of_their_length(phantom, suffix, save_every):
    assert make_trainer(VARIANTS[f"nnUNetTrainerGDKVM_{suffix}"], phantom).save_every == save_every


def test_a_variant_can_be_made_of_a_variant():
    variant = make_variant(VARIANTS["nnUNetTrainerGDKVM_5epochs"], "tiny", iterations_per_epoch=3)
    assert variant.__name__ == "nnUNetTrainerGDKVM_5epochs_tiny"
    assert (variant.epochs, variant.iterations_per_epoch) == (5, 3)
