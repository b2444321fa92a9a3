"""A temporal trainer that starts from the weights of a 2D network."""

import contextlib
import io

import pytest
import torch
from phantom_dataset import make_trainer
from torch import nn

from nnunet_temporal.errors import InputError
from nnunet_temporal.networks.build import build_frame_network
from nnunet_temporal.networks.temporal_module import TemporalModule
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.inflate import START, inflate, save_start
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal
from nnunet_temporal.trainers.variants import METHODS


class Doubling(TemporalModule):
    """Not zero-initialised."""

    def forward(self, features, state=None, valid=None):
        return 2 * features, features[:, :1]


class nnUNetTrainerDoubling(nnUNetTrainerTemporal):
    @staticmethod
    def build_temporal_module(*arguments):
        return Doubling()


def new_trainer(phantom, trainer=nnUNetTrainerGDKVM):
    with contextlib.redirect_stdout(io.StringIO()):
        return make_trainer(trainer, phantom)


@pytest.fixture
def frame_network(planned_phantom):
    """Build the phantom's 2D network with weights of its own."""
    torch.manual_seed(1)
    architecture = planned_phantom.plans()["configurations"]["2dt"]["architecture"]
    return build_frame_network(architecture, 1, 3, deep_supervision=True).eval()


def test_the_inflated_network_segments_each_frame_as_the_2d_network(phantom, frame_network):
    trainer = new_trainer(phantom)
    inflate(trainer, frame_network.state_dict())
    frames = torch.randn(2, 1, 5, 40, 40)
    with torch.no_grad():
        found = trainer.network.eval()(frames)
        expected = [frame_network(frames[:, :, t]) for t in range(5)]
    for scale, logits in enumerate(found):
        by_frame = torch.stack([frame[scale] for frame in expected], 2)
        torch.testing.assert_close(logits, by_frame, rtol=1e-5, atol=1e-5 * float(by_frame.abs().max()))


def test_tensors_are_counted_and_the_trainer_is_ready_to_train(phantom, frame_network):
    trainer = new_trainer(phantom)
    inflation = inflate(trainer, frame_network.state_dict())
    names = list(trainer.network.state_dict())
    assert inflation.loaded == len(frame_network.state_dict()) == sum(not n.startswith("temporal.") for n in names)
    assert inflation.new == len(names) - inflation.loaded > 0
    assert inflation.difference < 1e-5
    assert trainer.network.training and trainer.network.decoder.deep_supervision


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_every_method_starts_as_the_2d_network(phantom, frame_network, method):
    weights = frame_network.state_dict()
    trainer = new_trainer(phantom, method)
    inflation = inflate(trainer, weights)
    assert inflation.loaded == len(weights)
    assert inflation.difference < 1e-5
    loaded = trainer.network.state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_a_module_that_is_at_work_from_the_start_is_refused(phantom, frame_network):
    with pytest.raises(ValueError, match="nnUNetTrainerDoubling does not start as its 2D network"):
        inflate(new_trainer(phantom, nnUNetTrainerDoubling), frame_network.state_dict())


def test_weights_that_are_not_numbers_are_refused(phantom, frame_network):
    nn.init.constant_(frame_network.decoder.seg_layers[-1].bias, float("nan"))
    with pytest.raises(ValueError, match="differ by nan"):
        inflate(new_trainer(phantom), frame_network.state_dict())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("decoder.seg_layers.0.bias", torch.zeros(7), r"found \(7,\), expected \(3,\)"),
        ("decoder.seg_layers.0.bias", None, r"found none, expected \(3,\)"),
        ("decoder.extra", torch.zeros(7), r"found \(7,\), expected none"),
    ],
)
def test_weights_of_another_network_are_refused(phantom, frame_network, name, value, message):
    weights = {key: tensor for key, tensor in frame_network.state_dict().items() if key != name}
    if value is not None:
        weights[name] = value
    with pytest.raises(InputError, match=rf"1 of \d+ tensors.*such as {name}: {message}"):
        inflate(new_trainer(phantom), weights)


def test_a_start_is_what_nnunet_loads_before_the_first_epoch(phantom, frame_network):
    trainer = new_trainer(phantom)
    inflate(trainer, frame_network.state_dict())
    file = save_start(trainer)
    again = new_trainer(phantom)
    again.load_checkpoint(str(file))
    assert (file.name, again.current_epoch, trainer.current_epoch) == (START, 0, 0)
    weights = trainer.network.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in again.network.state_dict().items())
    assert again.inference_allowed_mirroring_axes == trainer.temporal.mirror_axes


def test_what_prediction_needs_lies_beside_the_folds(phantom, frame_network):
    trainer = new_trainer(phantom)
    inflate(trainer, frame_network.state_dict())
    model = save_start(trainer).parent.parent
    assert {"plans.json", "dataset.json"} <= {file.name for file in model.iterdir()}
