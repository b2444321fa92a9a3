"""The teacher of a semi-supervised training: a running average of the network that learns."""

import copy
from typing import cast

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

from nnunet_temporal.training.network_layers import without_wrappers


class Teacher:
    """Exponential moving average of a network's weights; it never learns from gradients.

    Early averages are short, so that the random weights of the start are soon forgotten: after n updates the decay is
    at most (1 + n) / (10 + n).

    Source: mean teacher (Tarvainen and Valpola, NeurIPS 2017).

    Attributes:
        network: The average, in evaluation mode, without deep supervision.
        decay: Share of the average that an update keeps, once it is full.
        updates: Updates so far.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        """Start as a copy of ``student``, compiled, distributed or plain.

        Raises:
            ValueError: ``decay`` is outside [0, 1).
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay must lie in [0, 1), got {decay}")
        self.decay = decay
        self.updates = 0
        self.network = copy.deepcopy(without_wrappers(student)).eval().requires_grad_(False)
        cast(UNetDecoder, self.network.decoder).deep_supervision = False

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Move the average towards the weights of ``student``; buffers are taken over."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        source = without_wrappers(student)
        for average, weight in zip(self.network.parameters(), source.parameters(), strict=True):
            average.lerp_(weight, 1 - decay)
        for kept, buffer in zip(self.network.buffers(), source.buffers(), strict=True):
            kept.copy_(buffer)
        self.updates += 1

    def state_dict(self) -> dict[str, Tensor | int | dict]:
        """Return weights and number of updates."""
        return {"weights": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        """Take over what ``state_dict`` returned."""
        self.network.load_state_dict(state["weights"])
        self.updates = state["updates"]
