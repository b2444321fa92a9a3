"""State-space guidance: what earlier frames attended to guides later ones, after MSSNet."""

import math
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_temporal.networks import state_space
from nnunet_temporal.networks.frame_history import with_history
from nnunet_temporal.networks.temporal_module import ModuleState, TemporalModule, zero_initialise

TOKEN_MEMORY = (10, 1000)
"""Memories the heads start with, in tokens of a frame, shortest and longest: the range of Mamba's first step sizes."""
FRAME_MEMORY = (3, 50)
"""The same for the heads that see one token per frame, in frames: part of a systole to two heartbeats of cine MRI."""
PAST_FRAMES = 2
"""Frames that the attention looks back to; with the frame itself, the triplets of the authors' sketch."""

MixerState: TypeAlias = tuple[Tensor, ...]


class ScanInputs(NamedTuple):
    """What ``state_space.scan`` takes of each token; see there."""

    query: Tensor
    key: Tensor
    value: Tensor
    log_decay: Tensor


class SelectiveInputs(nn.Module):
    """Query, key, value and decay of each token of a state space, per head.

    Step size d = softplus(w_d x + b) and decay exp(-exp(log_rate) d); the step also scales the key, so that a head
    reads a running mean of its values, as long as its memory.

    Source: Mamba (Gu and Dao, 2023), the selective state space, with Mamba-2's scalar decay per head. Left out are
    its skip (the residual path is one), its local convolution and its output gate (the encoder and the frame gate).
    """

    def __init__(self, channels: int, heads: int, key_size: int, value_size: int, memory: tuple[int, int]) -> None:
        super().__init__()
        self.heads, self.sizes = heads, (key_size, key_size, value_size)
        self.token = nn.Linear(channels, heads * sum(self.sizes), bias=False)
        self.step = nn.Linear(channels, heads)
        self.log_rate = nn.Parameter(torch.zeros(heads))
        steps = torch.logspace(-math.log10(memory[0]), -math.log10(memory[1]), heads)
        with torch.no_grad():
            self.step.bias.copy_(torch.log(torch.expm1(steps)))

    def forward(self, tokens: Tensor) -> ScanInputs:
        """Map (..., L, C) tokens to query, key (..., H, L, D_k), value (..., H, L, D_v) and log decay (..., H, L)."""
        per_head = self.token(tokens).unflatten(-1, (self.heads, -1)).transpose(-2, -3)
        query, key, value = per_head.split(self.sizes, -1)
        step = functional.softplus(self.step(tokens)).transpose(-1, -2)
        return ScanInputs(query, key * step[..., None], value, -self.log_rate.exp()[:, None] * step)


class StateSpaceMixer(nn.Module):
    """Mix the tokens of each frame by a state space in raster order and one in reversed order.

    The reversed one starts anew in every frame. The one in raster order goes on where the last frame ended, at a share
    a of its state, and both read with queries of which later frames inherit that share; a is learned, 0.5 at first.

    Source: ours. Neither MSSNet's abstract nor its public sketch says how Mamba enters; the query is what a state
    space has in the place of the attention weights that the sketch propagates.
    """

    def __init__(self, channels: int, heads: int, key_size: int, value_size: int) -> None:
        super().__init__()
        self.heads = heads
        self.out_channels, self.out_heads = 2 * heads * value_size, 2 * heads
        self.raster = SelectiveInputs(channels, heads, key_size, value_size, TOKEN_MEMORY)
        self.reverse = SelectiveInputs(channels, heads, key_size, value_size, TOKEN_MEMORY)
        self.carry_log_rate = nn.Parameter(torch.full((2 * heads,), math.log(math.log(2))))

    def forward(self, tokens: Tensor, state: MixerState | None, valid: Tensor) -> tuple[Tensor, MixerState]:
        """Map (B, T, N, C) tokens to (B, T, 2 H, N, D_v).

        The state is that of the raster order, (B, H, D_v, D_k), and the queries to inherit, (B, 2 H, N, D_k).
        """
        frames, pixels = tokens.shape[1:3]
        raster: ScanInputs = self.raster(tokens)
        reverse: ScanInputs = self.reverse(tokens.flip(2))
        query = torch.cat((raster.query, reverse.query), 2)
        empty = torch.zeros_like(raster.value[:, 0].mT @ raster.key[:, 0])
        memory, carried = (empty, torch.zeros_like(query[:, 0])) if state is None else state
        log_share = -self.carry_log_rate.exp()
        query, carried = state_space.propagate(query, log_share.exp(), carried, valid)
        raster_query, reverse_query = query.split(self.heads, 2)

        # Handing a share of the state over is one more decay, at the first token of each frame.
        log_decay = raster.log_decay + functional.pad(log_share[: self.heads, None], (0, pixels - 1))
        key, log_decay = state_space.hold_invalid_tokens(raster.key, log_decay, valid[:, :, None, None])
        clip = ScanInputs(*(x.transpose(1, 2).flatten(2, 3) for x in (raster_query, key, raster.value, log_decay)))
        onward, memory = state_space.scan(*clip, memory)
        onward = onward.unflatten(2, (frames, pixels)).transpose(1, 2)
        every_frame_empty = empty[:, None].expand(-1, frames, -1, -1, -1)
        back, _ = state_space.scan(*reverse._replace(query=reverse_query), every_frame_empty)
        return torch.cat((onward, back.flip(-2)), 2), (memory, carried)


class AttentionMixer(nn.Module):
    """Let the tokens of each frame attend to those of the frame and of the two valid frames before it.

    Source: the public sketch of MSSNet, whose attention inherits half of the previous frame's logits; here causal, for
    any number of frames, and through the queries (``state_space.propagate``). Its token MLP is left to the decoder.
    """

    def __init__(self, channels: int, heads: int, key_size: int, value_size: int) -> None:
        super().__init__()
        self.heads, self.sizes = heads, (key_size, key_size, value_size)
        self.out_channels, self.out_heads = heads * value_size, heads
        self.token = nn.Linear(channels, heads * sum(self.sizes), bias=False)
        self.carry_log_rate = nn.Parameter(torch.full((heads,), math.log(math.log(2))))

    def forward(self, tokens: Tensor, state: MixerState | None, valid: Tensor) -> tuple[Tensor, MixerState]:
        """Map (B, T, N, C) tokens to (B, T, H, N, D_v).

        The state is the queries to inherit (B, H, N, D_k), keys and values (B, W, H, N, .) of the last W frames and
        which of these there are, (B, W) bool.
        """
        query, key, value = self.token(tokens).unflatten(-1, (self.heads, -1)).transpose(2, 3).split(self.sizes, -1)
        if state is None:
            nothing = [torch.zeros_like(x[:, :1]).repeat_interleave(PAST_FRAMES, 1) for x in (key, value)]
            state = (torch.zeros_like(query[:, 0]), *nothing, valid.new_zeros(len(valid), PAST_FRAMES))
        carried, *past = state
        query, carried = state_space.propagate(query, (-self.carry_log_rate.exp()).exp(), carried, valid)
        (keys, past_keys), (values, past_values), (exists, past_exists) = (
            with_history(x, before, valid) for x, before in zip((key, value, torch.ones_like(valid)), past, strict=True)
        )
        # (B, T, W + 1, H, N, .) -> (B*T, H, (W + 1)*N, .): all tokens of a window are one set of keys.
        keys, values = (x.flatten(0, 1).transpose(1, 2).flatten(2, 3) for x in (keys, values))
        visible = exists.flatten(0, 1).repeat_interleave(query.shape[-2], 1)[:, None, None]
        mixed = functional.scaled_dot_product_attention(query.flatten(0, 1), keys, values, visible)
        return mixed.unflatten(0, valid.shape), (carried, past_keys, past_values, past_exists)


class FrameGate(nn.Module):
    """A gate in [-1, 1] per frame and channel from a causal state space over the frames' averages.

    Source: MSSNet's public sketch multiplies its features by a vector per frame that attends to both neighbours;
    ours sees the past only, and is bounded.
    """

    def __init__(self, channels: int, gated: int, heads: int, key_size: int, value_size: int) -> None:
        super().__init__()
        self.inputs = SelectiveInputs(channels, heads, key_size, value_size, FRAME_MEMORY)
        self.norm = nn.LayerNorm(heads * value_size)
        self.gate = nn.Linear(heads * value_size, gated)

    def forward(self, averages: Tensor, state: Tensor | None, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, T, C) averages to (B, T, gated); the state is (B, H, D_v, D_k)."""
        query, key, value, log_decay = self.inputs(averages)
        key, log_decay = state_space.hold_invalid_tokens(key, log_decay, valid[:, None])
        if state is None:
            state = value.new_zeros(*value.shape[:2], value.shape[-1], key.shape[-1])
        read, state = state_space.scan(query, key, value, log_decay, state)
        return torch.tanh(self.gate(self.norm(read.transpose(1, 2).flatten(2)))), state


SPATIAL_MIXERS: dict[str, type[StateSpaceMixer] | type[AttentionMixer]] = {
    "mamba": StateSpaceMixer,
    "attention": AttentionMixer,
}


class StateSpaceGuidance(TemporalModule):
    """Mix each frame's tokens guided by earlier frames, gate them by the sequence's course, add them; causal.

    Y = F + W_o(mix (1 + m)): the mixer is the spatial path, m in [-1, 1] the gate of the temporal one. The sketch's
    plain product of both could wipe features out or turn their sign.

    Source: MSSNet (Chen et al., IEEE TMI 2026): guidance of later frames by the attention weights of earlier ones.
    Only the abstract and a sketch without a state space are public, so this is a reconstruction; its parts say which
    is whose.
    """

    def __init__(
        self, channels: int, *, heads: int = 4, key_size: int = 32, value_size: int = 32, mixer: str = "mamba"
    ) -> None:
        """Build the module for features of ``channels`` channels.

        Args:
            channels: Feature channels C.
            heads: Number of heads, per scan order.
            key_size: Query and key channels per head.
            value_size: Value channels per head.
            mixer: How tokens of a frame are mixed, a key of ``SPATIAL_MIXERS``.

        Raises:
            ValueError: Unknown mixer.
        """
        super().__init__()
        if mixer not in SPATIAL_MIXERS:
            raise ValueError(f"mixer must be one of {sorted(SPATIAL_MIXERS)}, got {mixer!r}")
        self.norm = nn.LayerNorm(channels)
        self.mixer = SPATIAL_MIXERS[mixer](channels, heads, key_size, value_size)
        self.mixed_norm = nn.GroupNorm(self.mixer.out_heads, self.mixer.out_channels)
        self.gate = FrameGate(channels, self.mixer.out_channels, heads, key_size, value_size)
        self.projection = nn.Conv2d(self.mixer.out_channels, channels, 1)
        zero_initialise(self.projection)

    def forward(
        self, features: Tensor, state: ModuleState | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, ModuleState]:
        """Guide each frame by the frames before it; see ``TemporalModule``.

        The state is the mixer's and the frame gate's, float32.
        """
        batch, frames, _, height, width = features.shape
        if valid is None:
            valid = torch.ones(batch, frames, dtype=torch.bool, device=features.device)
        mixer_state, gate_state = (None, None) if state is None else state
        with torch.autocast(features.device.type, enabled=False):
            tokens = self.norm(features.float().flatten(3).transpose(2, 3))
            mixed, mixer_state = self.mixer(tokens, mixer_state, valid)
            gate, gate_state = self.gate(tokens.mean(2), gate_state, valid)
            mixed = self.mixed_norm(mixed.transpose(3, 4).reshape(batch * frames, -1, height, width))
            guidance = self.projection(mixed * (1 + gate).flatten(0, 1)[..., None, None])
            guided = (features + guidance.view_as(features)).to(features.dtype)
        return guided, (mixer_state, gate_state)
