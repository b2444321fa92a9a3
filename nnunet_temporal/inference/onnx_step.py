"""The step of a stream as an ONNX graph: one frame and the states in, its logits and the new states out."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.onnx_files import require
from nnunet_temporal.inference.stream_networks import State, as_stream
from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.networks.memory_network import MemoryNetwork

OPSET = 18
"""Version of the ONNX operators: the oldest that torch writes without converting, which run times have had longest."""
FRAME, LOGITS = "frame", "logits"
_CHECKED_FRAMES = 4
_TOLERANCE = 1e-3


class StateTensor(NamedTuple):
    """A tensor that a stream carries from step to step; before the first frame it is zero.

    Attributes:
        input: Its name as an input of the graph.
        output: Its name as an output.
        shape: Its shape.
        dtype: Its type, as numpy calls it.
    """

    input: str
    output: str
    shape: tuple[int, ...]
    dtype: str


class StepGraph(nn.Module):
    """A network with one frame at a time and a flat list of state tensors, which is all that ONNX knows.

    Attributes:
        states: The state tensors, in the order of ``forward``.
        example: A frame (1, C, Y, X) of zeros.
    """

    def __init__(self, network: nn.Module, channels: int, size: tuple[int, int]) -> None:
        """Wrap a copy of a network for frames of ``channels`` channels and ``size`` (Y, X) pixels of its grid.

        Raises:
            InputError: The network cannot go step by step with states of fixed shapes.
        """
        super().__init__()
        _check_causal(network)
        self.network = deepcopy(network).eval().cpu()
        for module in self.network.modules():
            if isinstance(module, GatedDeltaMemory):
                module.invert_by_products()
        self.example = torch.zeros(1, channels, *size)
        with torch.inference_mode():
            _, self._structure = self._segment(self.example, None)
        self.states = tuple(
            StateTensor(f"state_{number}", f"next_state_{number}", tuple(leaf.shape), str(leaf.numpy().dtype))
            for number, leaf in enumerate(_leaves(self._structure))
        )

    def forward(self, frame: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """Map a frame (1, C, Y, X) and the states to logits (1, K, Y, X) and the new states."""
        logits, after = self._segment(frame, _rebuilt(self._structure, iter(states)))
        return logits[:, :, 0], *_leaves(after)

    def nothing_seen(self) -> tuple[Tensor, ...]:
        """Return the states before the first frame."""
        return tuple(torch.zeros_like(leaf) for leaf in _leaves(self._structure))

    def _segment(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        stream = as_stream(self.network)
        return stream.segment(stream.encode(frame[:, :, None]), state)


def write_step(graph: StepGraph, file: Path) -> float:
    """Write the ONNX file of a graph and run it.

    Args:
        graph: The graph.
        file: Where to write.

    Returns:
        The largest difference between the logits of torch and of onnxruntime over a few frames of noise.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is not installed.
        RuntimeError: They differ by more than rounding.
    """
    onnx, _, runtime = (require(package) for package in ("onnx", "onnxscript", "onnxruntime"))
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            graph,
            (graph.example, *graph.nothing_seen()),
            input_names=[FRAME, *(state.input for state in graph.states)],
            output_names=[LOGITS, *(state.output for state in graph.states)],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # it is only for the exporter that writes the file itself
    model = program.model_proto
    for node in model.graph.node:
        # Where in the sources the node comes from: as large as the weights of a small network, and full of paths.
        node.ClearField("metadata_props")
    onnx.save_model(model, file)
    return _largest_difference(graph, runtime.InferenceSession(file, providers=["CPUExecutionProvider"]))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the exporter has to say about itself from users, who could do nothing about it; errors are raised."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _check_causal(network: nn.Module) -> None:
    if isinstance(network, MemoryNetwork):
        raise InputError(
            "this network remembers the masks of earlier frames, at first ever more of them: it is no step of fixed "
            "shapes. Export a model of another trainer, such as nnUNetTrainerGDKVM"
        )
    delay = as_stream(network).delay
    if delay:
        raise InputError(
            f"this network looks {delay} frames ahead: at first a step answers for no frame, and at the end for many. "
            "One step of fixed shapes cannot do so; export a model that looks back only, such as nnUNetTrainerGDKVM"
        )


def _leaves(state: State) -> list[Tensor]:
    """List the tensors of a state: nested tuples and dictionaries of tensors and None."""
    if state is None or isinstance(state, Tensor):
        return [] if state is None else [state]
    return [leaf for part in (state.values() if isinstance(state, dict) else state) for leaf in _leaves(part)]


def _rebuilt(structure: State, leaves: Iterator[Tensor]) -> State:
    """Put tensors, in the order of ``_leaves``, into the places of those of a nested state."""
    if structure is None or isinstance(structure, Tensor):
        return None if structure is None else next(leaves)
    if isinstance(structure, dict):
        return {name: _rebuilt(part, leaves) for name, part in structure.items()}
    parts = [_rebuilt(part, leaves) for part in structure]
    return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)


@torch.inference_mode()
def _largest_difference(graph: StepGraph, session: Any) -> float:  # noqa: ANN401 - of onnxruntime, which is optional
    noise = torch.Generator().manual_seed(0)
    states, ours = [state.numpy() for state in graph.nothing_seen()], graph.nothing_seen()
    largest = scale = 0.0
    for _ in range(_CHECKED_FRAMES):
        frame = torch.randn(graph.example.shape, generator=noise)
        logits, *ours = graph(frame, *ours)
        named = zip((FRAME, *(state.input for state in graph.states)), (frame.numpy(), *states), strict=True)
        theirs, *states = session.run(None, dict(named))
        largest = max(largest, float(np.abs(theirs - logits.numpy()).max()))
        scale = max(scale, float(logits.abs().max()))
    if not largest <= _TOLERANCE * scale:
        raise RuntimeError(f"the exported step is off by {largest:.2g} for logits up to {scale:.2g}: it is not written")
    return largest
