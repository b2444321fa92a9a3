"""NCM-Net's trainer: both parts are built, learn, know about regions, and serve stock prediction."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from phantom_dataset import make_trainer

from nnunet_temporal.networks.neighbourhood import NeighbourhoodCorrelation
from nnunet_temporal.networks.temporal_unet import Clip
from nnunet_temporal.networks.unreliable_pixels import UnreliablePixelAttention
from nnunet_temporal.trainers.ncmnet import nnUNetTrainerNCMNetSupervised
from nnunet_temporal.trainers.variants import VARIANTS

SHORT = VARIANTS["nnUNetTrainerNCMNetSupervised_10iterations"]


def initialised(phantom):
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = make_trainer(SHORT, phantom)
        trainer.initialize()
    return trainer


def batches(trainer):
    """Return the first training and validation batch."""
    with contextlib.redirect_stdout(io.StringIO()):
        return tuple(next(augmenter) for augmenter in trainer.get_dataloaders())


def with_regions(phantom):
    """Turn the phantom into a dataset whose labels are regions."""
    path = phantom.preprocessed / "dataset.json"
    regions = {"background": 0, "epicardium": [1, 2], "LV": [1], "ignore": 3}
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": regions, "regions_class_order": [2, 1]}))
    return phantom


def test_the_network_has_both_parts_as_planned(phantom):
    trainer = initialised(phantom)
    modules = trainer.network.temporal
    assert [int(stage) for stage in modules] == list(trainer.temporal.memory_stages)
    assert all(isinstance(module, NeighbourhoodCorrelation) for module in modules.values())
    assert all(
        layer.attention.window == trainer.temporal.neighbourhood
        for module in modules.values()
        for layer in module.layers
    )
    assert isinstance(trainer.network.refinement, UnreliablePixelAttention)
    assert not nnUNetTrainerNCMNetSupervised.watch_first


def test_training_changes_both_parts_and_stays_finite(phantom):
    trainer = initialised(phantom)
    before = {name: value.clone() for name, value in trainer.network.state_dict().items()}
    training, validation = batches(trainer)
    losses = [float(trainer.train_step(training)["loss"]) for _ in range(3)]
    with torch.no_grad():
        losses.append(float(trainer.validation_step(validation)["loss"]))
    assert np.isfinite(losses).all()
    after = trainer.network.state_dict()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    for part in ("temporal.", "refinement."):
        names = [name for name in changed if name.startswith(part)]
        assert any("projection" in name for name in names)
        assert any("projection" not in name for name in names)


@pytest.mark.parametrize("regions", [False, True])
def test_the_head_knows_whether_classes_exclude_each_other_and_the_weights_carry_it(phantom, regions):
    trainer = initialised(with_regions(phantom) if regions else phantom)
    trainer.train_step(batches(trainer)[0])
    assert bool(trainer.network.refinement.exclusive) is not regions
    manager = PlansManager(phantom.plans())
    outputs = trainer.label_manager.num_segmentation_heads
    network = SHORT.build_network_architecture(manager, manager.get_configuration("2dt"), 1, outputs, False)
    network.load_state_dict(trainer.network.state_dict())
    assert bool(network.refinement.exclusive) is not regions
    frames = torch.rand(1, 1, 5, 40, 40)
    with torch.no_grad():
        assert torch.equal(network.eval()(frames), trainer.network.eval()(frames)[0])


@torch.no_grad()
def test_a_clip_and_its_stream_get_the_same_logits(phantom):
    trainer = initialised(phantom)
    network = trainer.network.eval()
    for name, parameter in network.named_parameters():
        if "projection" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    frames, state, parts = torch.rand(1, 1, 7, 40, 40), None, []
    trainer.set_deep_supervision_enabled(False)
    for t in range(7):
        logits, state = network.forward_chunk(frames[:, :, t : t + 1], state, last=t == 6)
        parts.append(logits)
    clip = Clip(frames, torch.ones(1, 7, dtype=torch.bool), torch.arange(7)[None])
    torch.testing.assert_close(torch.cat(parts, 2), network(clip), atol=1e-4, rtol=0)


def test_stock_sliding_windows_predict(phantom):
    trainer = initialised(phantom)
    trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
    trainer.set_deep_supervision_enabled(False)
    with contextlib.redirect_stdout(io.StringIO()):
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.manual_initialization(
            trainer.network, trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json,
            type(trainer).__name__, trainer.inference_allowed_mirroring_axes,
        )  # fmt: skip
    logits = predictor.predict_sliding_window_return_logits(torch.rand(1, 5, 33, 36))
    assert logits.shape == (3, 5, 33, 36)
    assert torch.isfinite(logits).all()
