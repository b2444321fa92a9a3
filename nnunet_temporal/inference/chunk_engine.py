"""All folds of a model on one device: a few prepared frames and their states in, mean logits and new states out."""

from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nnunet_temporal.inference.compiled import compile_parts
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.stream_networks import StreamNetwork, as_stream
from nnunet_temporal.inference.windows import Windows
from nnunet_temporal.networks.memory_network import MemoryNetwork
from nnunet_temporal.networks.mixed_precision import mixed_precision
from nnunet_temporal.networks.temporal_unet import TemporalUNet

Features: TypeAlias = list[Any]
"""What each network made of a few frames: a tensor, or a list of tensors."""


def size_mb(features: Features) -> float:
    """Return the memory of features in MB."""
    tensors = [tensor for part in features for tensor in (part if isinstance(part, list) else [part])]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / 1e6


class ChunkEngine:
    """Networks of the same make, whose mean logits count, as in nnU-Net; windows and mirrored copies ride along.

    It keeps no state and changes no weights, so that threads may share it.

    Attributes:
        model: The model.
        device: Where its networks are.
        skips_blank: Whether frames that are zero everywhere are padding, which temporal networks never see, and not
            images like any other, as to 2D networks.
    """

    def __init__(
        self, model: TrainedModel, device: torch.device, mirror: bool, compiled_frames: int | None = None
    ) -> None:
        """Move the networks to the device.

        Args:
            model: The model.
            device: Where to compute.
            mirror: Whether to average over mirrored copies, where the training mirrored.
            compiled_frames: Largest number of frames for which networks are compiled; None leaves them as they are.
        """
        self.model = model
        self.device = device
        self._mirror_axes = model.mirror_axes if mirror else ()
        if compiled_frames is not None:
            for network in model.networks:
                compile_parts(network, 1 if device.type == "cpu" else compiled_frames)
        self._networks = tuple(as_stream(network.to(device)) for network in model.networks)
        self.skips_blank = isinstance(model.networks[0], TemporalUNet | MemoryNetwork)

    @property
    def leading(self) -> StreamNetwork:
        """A network that stands for all where they are alike: stride, delay, watching."""
        return self._networks[0]

    def windows(self, size: tuple[int, int]) -> Windows:
        """Plan the windows for frames of a size (Y, X) on the networks' grid."""
        return Windows(size, self.model.patch, self._mirror_axes)

    @torch.inference_mode()
    def encode(self, frames: np.ndarray, windows: Windows) -> Features:
        """Encode prepared frames (C, T, Y, X), cut into windows, by every network."""
        with mixed_precision(self.device):
            cut = windows.cut(torch.from_numpy(frames).to(self.device))
            return [network.encode(cut) for network in self._networks]

    @torch.inference_mode()
    def watch(self, features: Features, states: list | None) -> list:
        """Let all networks watch encoded frames; return their states."""
        with mixed_precision(self.device):
            return [network.watch(part, state) for network, part, state in self._each(features, states)]

    @torch.inference_mode()
    def segment(self, features: Features, windows: Windows, states: list | None, *, last: bool) -> tuple[Tensor, list]:
        """Take the next frames and segment those that enough frames have followed.

        Args:
            features: What ``encode`` returned for them; it is not changed.
            windows: The windows that they were cut into.
            states: What the call for the preceding frames returned; None at the start.
            last: Whether the sequence ends with these frames.

        Returns:
            Logits (K, A, Y, X) float32 of the next A frames, and the states to carry on with.
        """
        after = []
        total: Tensor | None = None
        with mixed_precision(self.device):
            for network, part, state in self._each(features, states):
                logits, state = network.segment(part, state, last=last)
                total = logits.float() if total is None else total + logits.float()
                after.append(state)
            assert total is not None  # there is at least one network
            return windows.join(total / len(self._networks)), after

    def _each(self, features: Features, states: list | None) -> zip:
        return zip(self._networks, features, states or [None] * len(self._networks), strict=True)
