"""The exported step computes what the network computes, frame by frame, for every method that has such a step."""

import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from trained_models import PATCH, make_plans

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference import onnx_step
from nnunet_temporal.inference.onnx_step import StepGraph, write_step
from nnunet_temporal.inference.stream_networks import as_stream
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM, nnUNetTrainerGDKVMPaper
from nnunet_temporal.trainers.mssnet import nnUNetTrainerMSSNetSupervised
from nnunet_temporal.trainers.ncmnet import nnUNetTrainerNCMNetSupervised
from nnunet_temporal.trainers.place_memory import nnUNetTrainerPlaceMemory
from nnunet_temporal.trainers.temporal_conv import nnUNetTrainerTemporalConv
from nnunet_temporal.trainers.variants import METHODS


class MSSNetByAttention(nnUNetTrainerMSSNetSupervised):
    """The other mixer, whose state is larger."""

    mixer = "attention"


WITHOUT_A_STEP = (nnUNetTrainerCSTM, nnUNetTrainerNCMNetSupervised)
WITH_A_STEP = (
    nnUNetTrainerPlaceMemory,
    nnUNetTrainerGDKVM,
    nnUNetTrainerGDKVMPaper,
    nnUNetTrainerMSSNetSupervised,
    MSSNetByAttention,
    nnUNetTrainerTemporalConv,
)
FRAMES = 6


def make_network(trainer, channels=1, configuration="2dt"):
    """Build a network; what would be zero at first, every memory among it, gets weights of its own."""
    plans = PlansManager(make_plans())
    torch.manual_seed(0)
    network = trainer.build_network_architecture(plans, plans.get_configuration(configuration), channels, 3, False)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return network.eval()


def make_frames(channels=1):
    return torch.randn(FRAMES, 1, channels, *PATCH, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def logits_of(network, frames):
    """Return the logits (1, K, Y, X) of each frame, as the network itself streams them."""
    stream, state, logits = as_stream(network), None, []
    for frame in frames:
        answer, state = stream.segment(stream.encode(frame[:, :, None]), state)
        logits.append(answer[:, :, 0].numpy())
    return logits


def logits_in_onnxruntime(file, graph, frames):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    states = [np.zeros(state.shape, state.dtype) for state in graph.states]
    logits = []
    for frame in frames:
        named = {state.input: value for state, value in zip(graph.states, states, strict=True)}
        answer = session.run(None, {"frame": frame.numpy(), **named})
        logits.append(answer[0])
        assert [value.shape for value in answer[1:]] == [state.shape for state in graph.states]
        states = answer[1:]
    return logits


def test_every_method_is_either_exported_or_refused():
    assert set(METHODS) <= {*WITH_A_STEP, *WITHOUT_A_STEP}


@pytest.mark.parametrize("trainer", WITH_A_STEP)
@torch.inference_mode()
def test_states_of_zeros_are_the_beginning_of_a_stream(trainer):
    network = make_network(trainer)
    graph, (frame, *_) = StepGraph(network, 1, PATCH), make_frames()
    logits, *after = graph(frame, *graph.nothing_seen())
    expected, state = network.segment(network.encode(frame[:, :, None]), None)
    torch.testing.assert_close(logits, expected[:, :, 0])
    assert len(after) == len(graph.states) > 0
    following = make_frames()[1]
    torch.testing.assert_close(
        graph(following, *after)[0], network.segment(network.encode(following[:, :, None]), state)[0][:, :, 0]
    )


@pytest.mark.slow
@pytest.mark.parametrize("trainer", WITH_A_STEP)
def test_onnxruntime_answers_as_the_network_frame_by_frame(trainer, tmp_path):
    network, frames, file = make_network(trainer), make_frames(), tmp_path / "step.onnx"
    graph = StepGraph(network, 1, PATCH)
    assert write_step(graph, file) < 1e-4
    for clip in (frames, frames.flip(0)):  # the second begins with nothing remembered of the first
        ours, theirs = logits_of(network, clip), logits_in_onnxruntime(file, graph, clip)
        np.testing.assert_allclose(np.stack(theirs), np.stack(ours), atol=1e-4)
    # The memory counts: the same frame without it is another matter.
    assert np.abs(ours[-1] - logits_of(network, clip[-1:])[0]).max() > 1e-2
    # No weights are in it twice.
    assert file.stat().st_size < 2 * sum(4 * weights.numel() for weights in network.parameters())
    onnx.checker.check_model(file, full_check=True)
    assert "onnx_step.py" not in str(onnx.load(file))  # no path of whoever exported it


@pytest.mark.slow
def test_a_2d_network_has_a_step_without_states(tmp_path):
    network, frames, file = make_network(nnUNetTrainer, 2, "2d"), make_frames(2), tmp_path / "step.onnx"
    graph = StepGraph(network, 2, PATCH)
    write_step(graph, file)
    assert graph.states == ()
    np.testing.assert_allclose(
        np.stack(logits_in_onnxruntime(file, graph, frames)), np.stack(logits_of(network, frames)), atol=1e-4
    )


def test_exporting_leaves_the_network_alone():
    network = make_network(nnUNetTrainerGDKVM).train()
    before = str(network.temporal["2"].transition)
    StepGraph(network, 1, PATCH)
    assert network.training and str(network.temporal["2"].transition) == before


@pytest.mark.parametrize(
    ("trainer", "reason"), [*zip(WITHOUT_A_STEP, ("remembers the masks", "2 frames ahead"), strict=True)]
)
def test_networks_without_a_step_are_refused_with_the_reason(trainer, reason):
    with pytest.raises(InputError, match=reason):
        StepGraph(make_network(trainer), 1, PATCH)


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_an_error(tmp_path, monkeypatch):
    graph = StepGraph(make_network(nnUNetTrainer, 1, "2d"), 1, PATCH)
    monkeypatch.setattr(onnx_step, "_TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="is off by"):
        write_step(graph, tmp_path / "step.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named_with_the_remedy(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=rf"{package} is not installed; pip install 'nnunet_temporal\[onnx\]'"):
        write_step(StepGraph(make_network(nnUNetTrainer, 1, "2d"), 1, PATCH), tmp_path / "step.onnx")
