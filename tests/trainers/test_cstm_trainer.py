"""The CSTM trainer on the phantom: triplets, its loss, one step, and the network nnU-Net builds for prediction."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantom_dataset import make_trainer

from nnunet_temporal.errors import InputError
from nnunet_temporal.losses.bootstrapped import BootstrappedCrossEntropy
from nnunet_temporal.networks.memory_network import SeededClip
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.variants import VARIANTS, make_variant

SHORT = VARIANTS["nnUNetTrainerCSTM_10iterations"]


@contextlib.contextmanager
def quietly():
    """Drop what nnU-Net prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def initialised(phantom, trainer=SHORT, **temporal):
    with quietly():
        trainer = make_trainer(trainer, phantom, **temporal)
        trainer.initialize()
    return trainer


def batches(trainer):
    """Return the first training and validation batch."""
    with quietly():
        return tuple(next(augmenter) for augmenter in trainer.get_dataloaders())


def make_regions(phantom):
    path = phantom.preprocessed / "dataset.json"
    labels = {"background": 0, "epicardium": [1, 2], "LV": [1], "ignore": 3}
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": labels, "regions_class_order": [2, 1]}))


@pytest.mark.parametrize(("clips", "decoded", "triplets"), [(2, 2, 1), (6, 2, 4), (5, 3, 5), (1, 1, 1)])
def test_a_step_sees_as_many_labelled_frames_as_planned(phantom, clips, decoded, triplets):
    trainer = initialised(phantom, clip_length=4, decoded_frames=decoded)
    trainer.batch_size = clips
    training, validation = batches(trainer)
    assert training["data"].shape == (triplets, 1, 3, 40, 40)
    assert training["decoded"].tolist() == [[0, 1, 2]] * triplets
    assert not validation["prompted"].any()


def test_training_augments_frames_and_validation_does_not(phantom):
    trainer = initialised(phantom)
    with quietly():
        training, validation = (augmenter.data_loader for augmenter in trainer.get_dataloaders())
    assert training.frame_transforms is not None and training.prompted_share == 0.5
    assert validation.frame_transforms is None and validation.prompted_share == 0
    assert training.options.seed != validation.options.seed


@pytest.mark.parametrize("has_regions", [False, True])
@pytest.mark.parametrize("per_object", [False, True])
def test_steps_train_the_memory_with_finite_gradients(phantom, has_regions, per_object):
    if has_regions:
        make_regions(phantom)
    trainer = initialised(phantom, type("PerObject", (SHORT,), {"per_object": per_object, "prompted_share": 1.0}))
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    batch, validation = batches(trainer)
    for _ in range(2):
        assert np.isfinite(trainer.train_step(batch)["loss"])
        gradients = {name: parameter.grad for name, parameter in trainer.network.named_parameters()}
        # nnU-Net gives the lowest scale of deep supervision no weight.
        assert {name for name, gradient in gradients.items() if gradient is None} <= {
            "decoder.seg_layers.0.weight", "decoder.seg_layers.0.bias"
        }  # fmt: skip
        assert all(gradient.isfinite().all() for gradient in gradients.values() if gradient is not None)
    with torch.no_grad():
        assert np.isfinite(trainer.validation_step(validation)["loss"])
    changed = {
        name.split(".")[0] for name, value in trainer.network.state_dict().items() if (value != before[name]).any()
    }
    assert changed >= {"encoder", "decoder", "keys", "values", "projections"}
    assert bool(trainer.network.overlapping) is has_regions


def test_prompted_triplets_remember_the_true_first_mask_where_it_is_known(phantom, monkeypatch):
    trainer, seen = initialised(phantom, type("Prompted", (SHORT,), {"prompted_share": 1.0})), []
    batch, _ = batches(trainer)
    monkeypatch.setattr(nnUNetTrainer, "train_step", lambda self, given: seen.append(given["data"]))
    trainer.train_step(batch)
    trainer.train_step({**batch, "prompted": ~batch["prompted"]})
    (given, withheld), labels = seen, batch["target"][0][:, 0, 0]
    assert isinstance(given, SeededClip)
    assert torch.equal(given.clip.frames, batch["data"])
    assert torch.equal(given.seeds.argmax(1)[labels != 3], labels[labels != 3].long())
    assert torch.equal((given.seeds < 0).all(1), labels == 3)
    assert (withheld.seeds < 0).all()


def test_two_seeded_trainings_are_equal_bit_by_bit(phantom):
    losses = []
    for _ in range(2):
        trainer = initialised(phantom)
        with quietly():
            training, _ = trainer.get_dataloaders()
        losses.append([float(trainer.train_step(next(training))["loss"]) for _ in range(3)])
    assert losses[0] == losses[1]


def parts_of(loss):
    return [module for module in loss.modules() if isinstance(module, BootstrappedCrossEntropy | DC_and_CE_loss)]


def test_the_loss_is_nnunets_dice_and_bootstrapped_cross_entropy_by_epoch(phantom):
    trainer = initialised(phantom, VARIANTS["nnUNetTrainerCSTM_10epochs"])
    dice, bootstrapped = parts_of(trainer.loss)
    assert (dice.weight_ce, dice.weight_dice) == (0, 1)
    shares = []
    for trainer.current_epoch in (0, 5, 9):
        shares.append(bootstrapped.progress())
    assert shares == [0, 0.5, 0.9]
    assert bootstrapped.ignore_label == 3


def test_at_the_start_the_loss_is_nnunets_own(phantom):
    trainer = initialised(phantom)
    batch, _ = batches(trainer)
    # One image, where the mean over images is the mean over pixels.
    target = [scale[:1, :, :1] for scale in batch["target"]]
    output = [torch.randn(1, 3, *scale.shape[2:]) for scale in target]
    stock = super(nnUNetTrainerCSTM, trainer)._build_loss()
    torch.testing.assert_close(trainer.loss(output, target), stock(output, target))


def test_without_dice_the_loss_is_the_papers(phantom):
    trainer = initialised(phantom, type("NoDice", (SHORT,), {"with_dice": False}))
    (bootstrapped,) = parts_of(trainer.loss)
    assert isinstance(bootstrapped, BootstrappedCrossEntropy)


def test_the_network_matches_as_planned(phantom):
    trainer = initialised(phantom, matching_patch=2, matching_top_k=3)
    temporal, matching = trainer.temporal, trainer.network.matching
    assert (matching.stage, matching.patch, matching.top_k) == (temporal.memory_stages[-1], 2, 3)
    assert matching.key_channels == temporal.key_size
    assert matching.value_channels == temporal.heads * temporal.value_size
    assert trainer.network.memory_frames == 2


def test_plans_without_a_memory_stage_are_refused(phantom):
    with pytest.raises(InputError, match=r"temporal\.memory_stages.*got none"):
        initialised(phantom, memory_stages=[])


def test_weights_load_into_the_network_nnunet_builds_and_predict_unprompted(phantom):
    make_regions(phantom)
    trainer = initialised(phantom)
    trainer.train_step(batches(trainer)[0])
    manager = PlansManager(phantom.plans())
    network = SHORT.build_network_architecture(manager, manager.get_configuration("2dt"), 1, 2, False)
    network.load_state_dict(trainer.network.state_dict())
    assert network.overlapping
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    with quietly():
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.manual_initialization(
            network, trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json,
            type(trainer).__name__, trainer.inference_allowed_mirroring_axes,
        )  # fmt: skip
    logits = predictor.predict_sliding_window_return_logits(torch.rand(1, 5, 33, 36))
    assert logits.shape == (2, 5, 33, 36)
    assert torch.isfinite(logits).all()


def test_variants_of_the_trainer_can_be_made():
    assert make_variant(nnUNetTrainerCSTM, "tiny", epochs=1).epochs == 1
