"""Gated delta memory with key-pixel feature fusion, after GDKVM."""

from functools import partial

import torch
from torch import Tensor, nn

from nnunet_temporal.networks.key_pixel_fusion import KeyPixelFusion
from nnunet_temporal.networks.linear_recurrence import RECURRENCES
from nnunet_temporal.networks.memory_gates import FrameProjection, MemoryGates, StateProjection
from nnunet_temporal.networks.memory_ops import accumulation, hold_invalid_frames, implicit_transition, moments
from nnunet_temporal.networks.memory_rules import DEFAULT_RULE, MODES, UPDATES, MemoryRule, check_option
from nnunet_temporal.networks.product_inverse import inverse_by_products
from nnunet_temporal.networks.temporal_module import TemporalModule, zero_initialise


class GatedDeltaMemory(TemporalModule):
    """Linear key-value association carried from frame to frame by a gated delta rule; causal, read after write.

    One class-agnostic matrix state per head, so cost and memory do not depend on the number of classes or frames.
    Queries are the keys of the same frame.

    Source: GDKVM (Wang et al., ICCV 2025), sections 3.1 to 3.3, with the modes of ``memory_rules``.
    """

    def __init__(
        self,
        channels: int,
        *,
        heads: int = 4,
        key_size: int = 32,
        value_size: int = 32,
        rule: MemoryRule = DEFAULT_RULE,
        recurrence: str = "loop",
        feedback_classes: int = 0,
    ) -> None:
        """Build the memory for features of ``channels`` channels.

        Args:
            channels: Feature channels C.
            heads: Number of heads.
            key_size: Key channels per head.
            value_size: Value channels per head.
            rule: How frames are written, and what the gates are projected from.
            recurrence: Form of the recurrence over time, a key of ``RECURRENCES``; gates from the state need "loop".
                The loop is the default because on a CPU it is the fastest at every length and size.
            feedback_classes: Number of class probabilities, estimated here from the features, that values see too: the
                parallel stand-in for GDKVM's value encoder, which sees the mask of the frame before. 0: none.

        Raises:
            ValueError: The recurrence is unknown, or cannot be had with gates from the state.
        """
        super().__init__()
        check_option("recurrence", recurrence, RECURRENCES if rule.gate_source == "frame" else ("loop",))
        self.heads, self.key_size, self.value_size, self.gate_source = heads, key_size, value_size, rule.gate_source
        self.mode, self.recurrence = MODES[rule.mode], RECURRENCES[recurrence]
        update, by_frame = UPDATES[rule.update], rule.gate_source == "frame"
        self.transition = self.mode.transition if update.erases else accumulation
        self.key = KeyPixelFusion(channels, heads * key_size)
        self.log_sharpness = nn.Parameter(torch.zeros(heads, 1, 1)) if self.mode.softmax else None
        self.coarse = nn.Conv2d(channels, feedback_classes, 1) if feedback_classes else None
        self.value = nn.Conv2d(channels + feedback_classes, heads * value_size, 1)
        self.gates = MemoryGates(
            heads, update, lambda: FrameProjection(channels, heads) if by_frame else StateProjection(heads, value_size)
        )
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
        values = self._values(flat).view(batch, frames, self.heads, self.value_size, height * width)
        with torch.autocast(features.device.type, enabled=False):
            keys = self._normalise(keys.float())
            sums = moments(keys, values.float(), self.mode.scale(self.key_size, height * width))
            if state is None:
                state = keys.new_zeros(batch, self.heads, self.value_size, self.key_size)
            if self.gate_source == "state":
                states = self._remember_one_by_one(*sums, state, valid)
            else:
                gates = self._gates(features.float().mean((-2, -1)), valid)
                states = self.recurrence(*self.transition(*sums, *gates), state)
            recalled = (states @ keys).reshape(batch * frames, -1, height, width)
        recalled = self.projection(self.norm(recalled.to(flat.dtype)))
        return features + recalled.view_as(features), states[:, -1]

    def invert_by_products(self) -> None:
        """Do without a solver from now on, where the update has one; see ``inverse_by_products``."""
        if self.transition is implicit_transition:
            self.transition = partial(implicit_transition, inverse=inverse_by_products)

    def _values(self, features: Tensor) -> Tensor:
        if self.coarse is not None:
            features = torch.cat((features, self.coarse(features).softmax(1)), 1)
        return self.value(features)

    def _normalise(self, keys: Tensor) -> Tensor:
        return self.mode.normalise(keys if self.log_sharpness is None else keys * self.log_sharpness.exp())

    def _gates(self, source: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
        decay, write = self.gates(source)
        return (decay, write) if valid is None else hold_invalid_frames(decay, write, valid)

    def _remember_one_by_one(
        self, key_moment: Tensor, value_moment: Tensor, state: Tensor, valid: Tensor | None
    ) -> Tensor:
        states = []
        for frame in range(key_moment.shape[1]):
            gates = self._gates(state, None if valid is None else valid[:, frame])
            transition, write = self.transition(key_moment[:, frame], value_moment[:, frame], *gates)
            state = state @ transition + write
            states.append(state)
        return torch.stack(states, 1)
