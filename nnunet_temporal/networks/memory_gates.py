"""Gates of the key-value memory: how much it forgets, a, and how strongly a frame writes, b."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_temporal.networks.memory_ops import LARGEST_WRITE_GATE
from nnunet_temporal.networks.memory_rules import Update


class FrameProjection(nn.Module):
    """Project frame averages (B, T, C) to one number per frame and head, (B, T, H, 1)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, heads)
        for parameter in self.linear.parameters():
            nn.init.zeros_(parameter)

    def forward(self, average: Tensor) -> Tensor:
        """Let every frame speak for itself, so that gates are known for all frames at once."""
        return self.linear(average)[..., None]


class StateProjection(nn.Module):
    """Project a memory state (B, H, D_v, D_k) to one number per head and key channel, (B, H, D_k).

    Source: GDKVM (Wang et al., ICCV 2025), section 3.3 projects both gates from the previous state; in the authors'
    code each key channel's value gives that channel's gates.
    """

    def __init__(self, heads: int, value_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(heads, value_size))

    def forward(self, state: Tensor) -> Tensor:
        """Weigh the value that the memory holds for each key channel."""
        return (self.weight[:, None] @ state).squeeze(-2)


class MemoryGates(nn.Module):
    """Decay a and write strength b from a projection of the frame or of the memory, or 1 where they are not learned.

    a = exp(-exp(log_rate) softplus(w_a x + time_step)) in (0, 1] and b = 0.99 sigmoid(w_b x), as in Gated DeltaNet.
    GDKVM's first code multiplies the memory by the exponent itself, which is negative; its re-release by a.
    """

    def __init__(self, heads: int, update: Update, make_projection: Callable[[], nn.Module]) -> None:
        """Build the gates that ``update`` learns.

        Args:
            heads: Number of heads.
            update: Says which gates are learned.
            make_projection: Builds a gate's projection to (..., H, G).
        """
        super().__init__()
        self.decay = make_projection() if update.decays else None
        self.write = make_projection() if update.gates_write else None
        if update.decays:
            # Decays at the start are 0.98 .. 0.7 over the heads: memories of some fifty frames down to three.
            rates = -torch.log(torch.linspace(0.98, 0.7, heads))
            self.log_rate = nn.Parameter(torch.log(rates)[:, None])
            self.time_step = nn.Parameter(torch.full((heads, 1), math.log(math.e - 1)))  # softplus of it is 1

    def forward(self, source: Tensor) -> tuple[Tensor, Tensor]:
        """Map what the projections take to a and b, each (..., H, G), or (1,) where it is not learned."""
        decay = write = source.new_ones(1)
        if self.decay is not None:
            decay = torch.exp(-self.log_rate.exp() * functional.softplus(self.decay(source) + self.time_step))
        if self.write is not None:
            write = LARGEST_WRITE_GATE * torch.sigmoid(self.write(source))
        return decay, write
