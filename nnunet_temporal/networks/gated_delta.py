"""Gated delta memory with key-pixel feature fusion, after GDKVM."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_temporal.networks import memory_ops
from nnunet_temporal.networks.temporal_module import TemporalModule, zero_initialise


class KeyPixelFusion(nn.Module):
    """Blend local keys, their frame average and pixel features by a learned gate.

    Source: GDKVM (Wang et al., ICCV 2025), key-pixel feature fusion: with F_g the frame average of the key features,
    G = sigmoid(conv(F_K + F_g)) per pixel, the fused key is G (F_K + F_g) + (1 - G) F_pix. No frame sees another.
    """

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.key = nn.Sequential(
            nn.Conv2d(channels, key_channels, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(key_channels, key_channels, 3, padding=1),
        )
        self.pixel = nn.Conv2d(channels, key_channels, 1)
        self.gate = nn.Conv2d(key_channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B*T, C, Y, X) features to (B*T, key_channels, Y, X) keys."""
        local = self.key(features)
        local = local + local.mean((-2, -1), keepdim=True)
        gate = torch.sigmoid(self.gate(local))
        return gate * local + (1 - gate) * self.pixel(features)


class FrameGates(nn.Module):
    """Decay a and write strength b per frame and head, from the frame's average features.

    a = exp(-exp(log_rate) softplus(w_a f + time_step_bias)) in (0, 1] and b = 0.99 sigmoid(w_b f), as in Gated
    DeltaNet. GDKVM projects its gates from the memory state; taking them from the frame keeps time parallel.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.decay = nn.Linear(channels, heads)
        self.write = nn.Linear(channels, heads)
        nn.init.zeros_(self.decay.weight)
        nn.init.zeros_(self.write.weight)
        nn.init.zeros_(self.write.bias)
        # Decays at the start are 0.98 .. 0.7 over the heads: memories of some fifty frames down to three.
        rates = -torch.log(torch.linspace(0.98, 0.7, heads))
        self.log_rate = nn.Parameter(torch.log(rates))
        with torch.no_grad():
            self.decay.bias.fill_(math.log(math.e - 1))  # softplus of it is 1

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map frame averages (B, T, C) to a and b, each (B, T, H)."""
        decay = torch.exp(-self.log_rate.exp() * functional.softplus(self.decay(features)))
        return decay, memory_ops.LARGEST_WRITE_GATE * torch.sigmoid(self.write(features))


class GatedDeltaMemory(TemporalModule):
    """Linear key-value association carried from frame to frame by a gated delta rule; causal, read after write.

    One class-agnostic matrix state per head, so cost and memory do not depend on the number of classes or frames.

    Source: GDKVM (Wang et al., ICCV 2025), sections 3.2 to 3.4, with the implicit update of ``memory_ops``.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 4,
        key_size: int = 32,
        value_size: int = 32,
        mode: str = "implicit",
    ) -> None:
        """Build the memory for features of ``channels`` channels.

        Args:
            channels: Feature channels C.
            heads: Number of heads.
            key_size: Key channels per head.
            value_size: Value channels per head.
            mode: Update rule, a key of ``memory_ops.TRANSITIONS``.

        Raises:
            ValueError: Unknown mode.
        """
        super().__init__()
        if mode not in memory_ops.TRANSITIONS:
            raise ValueError(f"mode must be one of {sorted(memory_ops.TRANSITIONS)}, got {mode!r}")
        self.heads, self.key_size, self.value_size, self.mode = heads, key_size, value_size, mode
        self.key = KeyPixelFusion(channels, heads * key_size)
        self.value = nn.Conv2d(channels, heads * value_size, 1)
        self.gates = FrameGates(channels, heads)
        self.norm = nn.GroupNorm(heads, heads * value_size)
        self.projection = nn.Conv2d(heads * value_size, channels, 1)
        zero_initialise(self.projection)

    def forward(
        self, features: Tensor, state: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Write each frame into the memory and add what the memory holds for it; see ``TemporalModule``.

        The state is (B, H, D_v, D_k), float32.
        """
        batch, frames, _, height, width = features.shape
        flat = features.flatten(0, 1)
        keys = self.key(flat).view(batch, frames, self.heads, self.key_size, height * width)
        values = self.value(flat).view(batch, frames, self.heads, self.value_size, height * width)
        with torch.autocast(features.device.type, enabled=False):
            decay, write = self.gates(features.float().mean((-2, -1)))
            # Unit-norm keys: their moment matrix has trace D_k and spreads over all directions, where the softmax
            # keys of the paper leave one large eigenvalue and hardly write along the others.
            keys = memory_ops.unit_norm(keys.float())
            if valid is not None:
                decay, write = memory_ops.hold_invalid_frames(decay, write, valid)
            if state is None:
                state = keys.new_zeros(batch, self.heads, self.value_size, self.key_size)
            transition, written = memory_ops.TRANSITIONS[self.mode](keys, values.float(), decay, write)
            states = memory_ops.linear_recurrence(transition, written, state)
            recalled = memory_ops.read(states, keys).reshape(batch * frames, -1, height, width)
        recalled = self.projection(self.norm(recalled.to(flat.dtype)))
        return features + recalled.view_as(features), states[:, -1]
