"""One way to drive every network along a sequence: temporal ones, those that remember masks, and plain 2D ones."""

from collections.abc import Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
from torch import Tensor, nn

from nnunet_temporal.networks.memory_network import MemoryNetwork
from nnunet_temporal.networks.temporal_unet import TemporalUNet

Features: TypeAlias = Any
"""Whatever a network makes of frames."""

State: TypeAlias = Any
"""Whatever a network carries from frame to frame; None at the start."""


class StreamNetwork(Protocol):
    """A network that takes a sequence chunk by chunk; a ``TemporalUNet`` is one.

    Attributes:
        delay: Frames that must follow a frame before it is segmented.
        frame_stride: Gap between the frames that see each other.
        watch_first: Whether whole sequences are watched once before they are segmented.
    """

    delay: int
    frame_stride: int
    watch_first: bool

    def encode(self, frames: Tensor) -> Features:
        """Encode frames (B, C, T, Y, X) for the other two, which do not change what it returns."""

    def watch(self, features: Features, state: State = None) -> State:
        """Take frames without segmenting them and return the state."""

    def segment(self, features: Features, state: State = None, *, last: bool = False) -> tuple[Any, State]:
        """Take frames and return logits (B, K, A, Y, X) of the next A frames, and the state."""


class _EachFrameAlone:
    """A network of single frames (B, C, Y, X), which remembers nothing."""

    delay, frame_stride, watch_first = 0, 1, False
    network: nn.Module

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def encode(self, frames: Tensor) -> Tensor:
        """Leave everything to ``segment``."""
        return frames

    def watch(self, features: Tensor, state: None = None) -> None:
        """Nothing is remembered."""

    def segment(self, features: Tensor, state: State = None, *, last: bool = False) -> tuple[Any, State]:
        """Segment the frames."""
        logits = self.network(features.transpose(1, 2).flatten(0, 1))
        return logits.unflatten(0, (len(features), -1)).transpose(1, 2), None


class _RemembersMasks(_EachFrameAlone):
    """A ``MemoryNetwork``: what it watched without segmenting it, it could not remember."""

    network: MemoryNetwork

    def segment(self, features: Tensor, state: State = None, *, last: bool = False) -> tuple[Any, State]:
        """Segment frame by frame."""
        return self.network.forward_chunk(features, state)


def as_stream(network: nn.Module) -> StreamNetwork:
    """Return the one way to drive a network; one that is none of ours takes single frames (B, C, Y, X)."""
    if isinstance(network, TemporalUNet):
        return network
    return _RemembersMasks(network) if isinstance(network, MemoryNetwork) else _EachFrameAlone(network)


def deals(real: np.ndarray, stride: int, frames_per_chunk: int) -> Iterator[list[np.ndarray]]:
    """Deal the frames of a sequence out as ``TemporalUNet`` does, frame t to the memory t modulo the stride.

    Args:
        real: Indices of the frames that are no padding.
        stride: Number of memories.
        frames_per_chunk: Largest number of frames in a chunk.

    Yields:
        The frames that share a memory, in chunks.
    """
    for start in range(min(stride, len(real))):
        dealt = real[start::stride]
        yield [dealt[at : at + frames_per_chunk] for at in range(0, len(dealt), frames_per_chunk)]
