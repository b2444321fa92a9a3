"""A stock 2D U-Net that runs on all frames at once, with temporal modules on its encoder features."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_temporal.networks.temporal_module import TemporalModule

FRAMES_PER_CHUNK = 8
"""Frames predicted together: bounds memory, and on a CPU a larger batch is slower per frame."""

State = dict[str, Tensor]
"""State of each temporal module by encoder stage."""


class Clip(NamedTuple):
    """A batch of training clips. It moves between devices as one, so nnU-Net's training step takes it for a tensor.

    Attributes:
        frames: (B, C, T, Y, X).
        valid: (B, T) bool, False where a clip is padded because its sequence is too short.
        decoded: (B, D) int64, ascending indices along T of the frames to segment; all others are context.
    """

    frames: Tensor
    valid: Tensor
    decoded: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "Clip":
        """Return the clip on another device."""
        return Clip(*(part.to(device, non_blocking=non_blocking) for part in self))


class TemporalUNet(nn.Module):
    """U-Net encoder and decoder per frame; between them, temporal modules carry a state along the sequence.

    The parts arrive constructed, and encoder and decoder keep nnU-Net's parameter names: weights of a 2D nnU-Net
    load into this network, and with untrained temporal modules it computes exactly what the 2D network computes.
    Frames that are zero everywhere are padding: they never touch the state.
    """

    def __init__(
        self,
        unet: nn.Module,
        temporal: Mapping[int, TemporalModule],
        *,
        watch_first: bool = False,
        context_gradient: bool = False,
    ) -> None:
        """Wire the parts together.

        Args:
            unet: A 2D ``PlainConvUNet`` or ``ResidualEncoderUNet``; its encoder and decoder are taken over.
            temporal: One module per encoder stage whose features it refines (0 = full resolution).
            watch_first: Whether clips and whole sequences are watched once before they are segmented, so that their
                first frame already has a memory of the others. ``forward_chunk`` stays causal either way.
            context_gradient: Whether the encoder learns from context frames too. Off, they cost a forward pass.
        """
        super().__init__()
        self.encoder: nn.Module = unet.get_submodule("encoder")
        self.decoder: nn.Module = unet.get_submodule("decoder")
        self.temporal = nn.ModuleDict({str(stage): temporal[stage] for stage in sorted(temporal)})
        self.watch_first = watch_first
        self.context_gradient = context_gradient

    def forward(self, x: Clip | Tensor) -> Tensor | list[Tensor]:
        """Segment the decoded frames of training clips, or every frame of whole sequences.

        Args:
            x: A ``Clip``, or sequences (B, C, T, Y, X) of any length.

        Returns:
            Logits (B, K, D, Y, X) for a clip and (B, K, T, Y, X) for sequences; with deep supervision a list of
            them, full resolution first.
        """
        return self._segment_clip(x) if isinstance(x, Clip) else self._segment_sequence(x)

    def forward_chunk(
        self, frames: Tensor, state: State | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor | list[Tensor], State]:
        """Segment the next frames of sequences.

        Args:
            frames: (B, C, T, Y, X).
            state: What the call for the preceding frames returned; None at the start of a sequence.
            valid: (B, T) bool, False for padding frames; None: all valid.

        Returns:
            Logits as ``forward``, and the state to carry on with.
        """
        skips, state = self._remember(self._encode(frames.transpose(1, 2)), state, valid)
        return self._decode(skips), state

    def _segment_clip(self, clip: Clip) -> Tensor | list[Tensor]:
        frames, valid, decoded = clip.frames.transpose(1, 2), clip.valid, clip.decoded
        order = _decoded_first(decoded, frames.shape[1])
        frames = _take(frames, order)
        number = decoded.shape[1]
        skips = self._encode(frames[:, :number])
        with torch.set_grad_enabled(self.context_gradient and torch.is_grad_enabled()):
            context = self._encode(frames[:, number:]) if number < frames.shape[1] else None
        back = torch.argsort(order, 1)
        for stage, module in self.temporal.items():
            features = skips[int(stage)]
            if context is not None:
                features = torch.cat((features, context[int(stage)]), 1)
            features = _take(features, back)
            refined, _ = module(features, self._watch(module, features, valid), valid)
            skips[int(stage)] = _take(refined, decoded)
        return self._decode(skips)

    @torch.compiler.disable
    def _segment_sequence(self, frames: Tensor) -> Tensor | list[Tensor]:
        # Eager on purpose: the number of frames differs from sequence to sequence, and every new one would recompile.
        valid = frames.flatten(3).any(3).any(1)
        inside = valid.any(0).nonzero()
        first, last = (0, 1) if len(inside) == 0 else (int(inside[0]), int(inside[-1]) + 1)
        steps = [slice(start, min(start + FRAMES_PER_CHUNK, last)) for start in range(first, last, FRAMES_PER_CHUNK)]
        state, chunks = None, []
        if self.watch_first:
            for chunk in steps:
                _, state = self._remember(self._encode(frames[:, :, chunk].transpose(1, 2)), state, valid[:, chunk])
        for chunk in steps:
            logits, state = self.forward_chunk(frames[:, :, chunk], state, valid[:, chunk])
            chunks.append(logits if isinstance(logits, list) else [logits])
        scales = [_pad_time(torch.cat(parts, 2), first, frames.shape[2] - last) for parts in zip(*chunks, strict=True)]
        return scales if self.decoder.deep_supervision else scales[0]

    def _watch(self, module: nn.Module, features: Tensor, valid: Tensor) -> Tensor | None:
        """Return the state a clip starts with. No gradient: the second pass writes the same frames again, with one."""
        if not self.watch_first:
            return None
        with torch.no_grad():
            return module(features, None, valid)[1]

    def _encode(self, frames: Tensor) -> list[Tensor]:
        """Encode (B, T, C, Y, X) frames into one (B, T, C, Y, X) feature map per stage."""
        return [skip.unflatten(0, frames.shape[:2]) for skip in self.encoder(frames.flatten(0, 1))]

    def _remember(self, skips: list[Tensor], state: State | None, valid: Tensor | None) -> tuple[list[Tensor], State]:
        skips, after = list(skips), {}
        for stage, module in self.temporal.items():
            before = None if state is None else state[stage]
            skips[int(stage)], after[stage] = module(skips[int(stage)], before, valid)
        return skips, after

    def _decode(self, skips: list[Tensor]) -> Tensor | list[Tensor]:
        """Decode (B, T, C, Y, X) feature maps into (B, K, T, Y, X) logits."""
        shape = skips[0].shape[:2]
        logits = self.decoder([skip.flatten(0, 1) for skip in skips])
        if isinstance(logits, Tensor):
            return logits.unflatten(0, shape).transpose(1, 2)
        return [scale.unflatten(0, shape).transpose(1, 2) for scale in logits]


def _decoded_first(decoded: Tensor, frames: int) -> Tensor:
    """Order the indices 0 .. ``frames`` - 1 of each clip so that the decoded ones come first: (B, T)."""
    is_context = torch.ones(decoded.shape[0], frames, dtype=torch.long, device=decoded.device)
    return torch.argsort(is_context.scatter(1, decoded, 0), dim=1, stable=True)


def _take(frames: Tensor, index: Tensor) -> Tensor:
    """Pick the frames ``index`` (B, D) of (B, T, ...): (B, D, ...)."""
    index = index.view(*index.shape, *[1] * (frames.ndim - 2))
    return torch.take_along_dim(frames, index, 1)


def _pad_time(logits: Tensor, before: int, after: int) -> Tensor:
    return nn.functional.pad(logits, (0, 0, 0, 0, before, after))
