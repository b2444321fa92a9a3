"""A memory of every place: what the same place of the image showed in earlier frames."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_temporal.networks.frame_history import with_history
from nnunet_temporal.networks.temporal_module import TemporalModule, zero_initialise


class PlaceState(NamedTuple):
    """The last M valid frames, oldest first.

    Attributes:
        keys: (B, M, H, D, Y, X) float32.
        values: (B, M, H, D, Y, X) float32.
        known: (B, M) bool, False where there was no frame yet.
    """

    keys: Tensor
    values: Tensor
    known: Tensor


def attend_along_time(queries: Tensor, keys: Tensor, values: Tensor, known: Tensor) -> Tensor:
    """Let each place of each frame attend to the same place of other frames.

    Args:
        queries: (B, T, H, D, Y, X).
        keys: (B, T, W, H, D, Y, X), the W frames that each frame looks at.
        values: (B, T, W, H, D_v, Y, X).
        known: (B, T, W) bool, False for frames that nothing is known of; one at least is known.

    Returns:
        (B, T, H, D_v, Y, X).
    """
    alike = (queries[:, :, None] * keys).sum(4) / math.sqrt(keys.shape[4])
    weights = alike.masked_fill(~known[..., None, None, None], -torch.inf).softmax(2)
    return (weights[:, :, :, :, None] * values).sum(2)


class PlaceMemory(TemporalModule):
    """Each place attends to itself in a frame and in the last M valid frames before it; causal.

    Hearts stay where they are: what a shadow or a dropout hides lies close to where other frames show it, nearer than
    the pixels of a feature map tell apart, or than the small convolutions reach that make queries, keys and values. A
    memory that mixes all places of a frame, as GDKVM's matrix does, cannot answer the question what was *here*.

    Source: ours. Attention along time apart from attention in space is that of TimeSformer (Bertasius et al., ICML
    2021), there over the whole clip.
    """

    def __init__(self, channels: int, *, memory_frames: int, heads: int = 4, key_size: int = 16) -> None:
        """Build the memory for features of ``channels`` channels.

        Args:
            channels: Feature channels C.
            memory_frames: Frames that are remembered, M.
            heads: Number of heads H.
            key_size: Channels of keys and values per head, D.

        Raises:
            ValueError: ``memory_frames`` is not positive.
        """
        super().__init__()
        if memory_frames < 1:
            raise ValueError(f"memory_frames must be 1 or more, got {memory_frames}")
        self.memory_frames, self.heads, self.key_size = memory_frames, heads, key_size
        width = heads * key_size
        self.norm = nn.GroupNorm(1, channels)
        self.query, self.key, self.value = (nn.Conv2d(channels, width, 3, padding=1) for _ in range(3))
        self.projection = nn.Conv2d(width, channels, 3, padding=1)
        zero_initialise(self.projection)

    def forward(
        self, features: Tensor, state: PlaceState | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, PlaceState]:
        """Add what each frame finds at its places; see ``TemporalModule``."""
        batch, frames, _, height, width = features.shape
        flat = self.norm(features.flatten(0, 1))
        queries, keys, values = (
            part(flat).float().view(batch, frames, self.heads, self.key_size, height, width)
            for part in (self.query, self.key, self.value)
        )
        known = torch.ones(batch, frames, dtype=torch.bool, device=features.device)
        valid = known if valid is None else valid
        if state is None:
            state = self._nothing(keys, known)
        (keys, past_keys), (values, past_values), (known, past_known) = (
            with_history(part, past, valid) for part, past in zip((keys, values, known), state, strict=True)
        )
        with torch.autocast(features.device.type, enabled=False):
            found = attend_along_time(queries, keys, values, known)
        found = self.projection(found.flatten(0, 1).flatten(1, 2).to(features.dtype))
        return features + found.view_as(features), PlaceState(past_keys, past_values, past_known)

    def _nothing(self, keys: Tensor, known: Tensor) -> PlaceState:
        nothing = keys.new_zeros(len(keys), self.memory_frames, *keys.shape[2:])
        return PlaceState(nothing, nothing, known.new_zeros(len(keys), self.memory_frames))
