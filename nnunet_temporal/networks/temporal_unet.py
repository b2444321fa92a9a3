"""A stock 2D U-Net that runs on all frames at once, with temporal modules on its encoder features."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, cast

import torch
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn

from nnunet_temporal.networks.refinement_head import RefinementHead
from nnunet_temporal.networks.temporal_module import ModuleState, TemporalModule

FRAMES_PER_CHUNK = 8
"""Frames predicted together: bounds memory, and on a CPU a larger batch is slower per frame."""


class State(NamedTuple):
    """What a stream carries from chunk to chunk; its size does not depend on the number of frames.

    Attributes:
        modules: State of each temporal module by encoder stage.
        waiting: Features (B, W, C, Y, X) of each encoder stage whose frames wait for a stage with a longer delay; None
            where no module has a delay.
    """

    modules: dict[str, ModuleState]
    waiting: list[Tensor] | None = None


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
    Frames that are zero everywhere are padding: they never touch the state, and sequences get logits of zero there.

    Attributes:
        delay: Frames that must follow a frame before ``forward_chunk`` segments it; 0 if all modules are causal.
    """

    def __init__(
        self,
        unet: nn.Module,
        temporal: Mapping[int, TemporalModule],
        *,
        refinement: RefinementHead | None = None,
        watch_first: bool = False,
        context_gradient: bool = False,
        frame_stride: int = 1,
    ) -> None:
        """Wire the parts together.

        Args:
            unet: A 2D ``PlainConvUNet`` or ``ResidualEncoderUNet``; its encoder and decoder are taken over.
            temporal: One module per encoder stage whose features it refines (0 = full resolution).
            refinement: Corrects the decoder's full-resolution logits; None leaves them as they are.
            watch_first: Whether clips and whole sequences are watched once before they are segmented, so that their
                first frame already has a memory of the others. ``forward_chunk`` stays causal either way.
            context_gradient: Whether the encoder learns from context frames too. Off, they cost a forward pass.
            frame_stride: Gap between the frames that see each other in whole sequences; see ``forward``.

        Raises:
            ValueError: ``watch_first`` with a module that looks ahead anyway.
        """
        super().__init__()
        self.encoder: nn.Module = unet.get_submodule("encoder")
        self.decoder: UNetDecoder = unet.get_submodule("decoder")
        self.temporal = nn.ModuleDict({str(stage): temporal[stage] for stage in sorted(temporal)})
        self.refinement = refinement
        self.delay = max((module.delay for module in temporal.values()), default=0)
        if watch_first and self.delay:
            raise ValueError(f"watch_first is for causal modules, but one looks {self.delay} frames ahead")
        self.watch_first = watch_first
        self.context_gradient = context_gradient
        self.frame_stride = frame_stride

    def forward(self, x: Clip | Tensor) -> Tensor | list[Tensor]:
        """Segment the decoded frames of training clips, or every frame of whole sequences.

        The frames of a clip lie ``frame_stride`` apart or so, and that is what modules learn from. A whole sequence is
        therefore dealt out like cards, frame t to sequence t modulo the stride, and each is segmented for itself.

        Args:
            x: A ``Clip``, or sequences (B, C, T, Y, X) of any length.

        Returns:
            Logits (B, K, D, Y, X) for a clip and (B, K, T, Y, X) for sequences; with deep supervision a list of
            them, full resolution first.
        """
        return self._segment_clip(x) if isinstance(x, Clip) else self._segment_sequence(x)

    def forward_chunk(
        self, frames: Tensor, state: State | None = None, valid: Tensor | None = None, *, last: bool = False
    ) -> tuple[Tensor | list[Tensor], State]:
        """Take the next frames of sequences and segment those that enough frames have followed.

        Without a delay these are the frames themselves. With one, each frame is segmented in the call that brings its
        last neighbour, and the last call segments all that are left; it may bring no frames itself.

        Args:
            frames: (B, C, T, Y, X), T >= 0.
            state: What the call for the preceding frames returned; None at the start of a sequence.
            valid: (B, T) bool, False for padding frames; None: all valid.
            last: Whether the sequences end with these frames.

        Returns:
            Logits as ``forward``, of the next frames that were not segmented yet (possibly none), and the state to
            carry on with.
        """
        return self.segment(self.encode(frames), state, valid, last=last)

    def encode(self, frames: Tensor) -> list[Tensor]:
        """Encode frames (B, C, T, Y, X) for ``watch`` and ``segment``, which may both take what it returns."""
        return self._encode(frames.transpose(1, 2))

    def watch(self, features: list[Tensor], state: State | None = None) -> State:
        """Take the next frames of sequences, encoded, without segmenting them; see ``watch_first``.

        Args:
            features: What ``encode`` returned; it is not changed.
            state: As in ``forward_chunk``.

        Returns:
            The state to carry on with.
        """
        return self._remember(features, state, None, last=False)[1]

    def segment(
        self, features: list[Tensor], state: State | None = None, valid: Tensor | None = None, *, last: bool = False
    ) -> tuple[Tensor | list[Tensor], State]:
        """Do as ``forward_chunk`` with frames that are encoded already; ``features`` are not changed."""
        skips, state = self._remember(features, state, valid, last)
        return self._decode(skips), state

    def _segment_clip(self, clip: Clip) -> Tensor | list[Tensor]:
        frames, valid, decoded = clip.frames.transpose(1, 2), clip.valid, clip.decoded
        order = _decoded_first(decoded, frames.shape[1])
        frames = _take(frames, order)
        number = decoded.shape[1]
        skips = self._encode(frames[:, :number])
        context = self._encode_context(frames[:, number:], number)
        back = torch.argsort(order, 1)
        for stage, module in self.temporal.items():
            features = _take(torch.cat((skips[int(stage)], *context[stage]), 1), back)
            refined, _ = module(features, self._watch(module, features, valid), valid)
            skips[int(stage)] = _take(refined, decoded)
        return self._decode(skips)

    def _encode_context(self, frames: Tensor, at_a_time: int) -> dict[str, list[Tensor]]:
        """Encode frames of a clip, keeping only what temporal modules look at: all else would soon fill the memory."""
        kept: dict[str, list[Tensor]] = {stage: [] for stage in self.temporal}
        with torch.set_grad_enabled(self.context_gradient and torch.is_grad_enabled()):
            for start in range(0, frames.shape[1], at_a_time):
                skips = self._encode(frames[:, start : start + at_a_time])
                for stage, features in kept.items():
                    features.append(skips[int(stage)])
        return kept

    @torch.compiler.disable
    def _segment_sequence(self, frames: Tensor) -> Tensor | list[Tensor]:
        # Eager on purpose: the number of frames differs from sequence to sequence, and every new one would recompile.
        scales: list[Tensor] = []
        for row, sequence in enumerate(frames.split(1)):
            real = sequence[0].flatten(2).any(2).any(0).nonzero()[:, 0]
            # A sequence of padding only is segmented at one frame, for the shape of its logits.
            real = real if len(real) else real.new_zeros(1)
            for first in range(min(self.frame_stride, len(real))):
                for taken, logits in self._stream(sequence, real[first :: self.frame_stride]):
                    if not scales:
                        shape = (len(frames), logits[0].shape[1], frames.shape[2])
                        scales = [part.new_zeros(*shape, *part.shape[3:]) for part in logits]
                    for scale, part in zip(scales, logits, strict=True):
                        scale[row, :, taken] = part[0]
        return scales if self.decoder.deep_supervision else scales[0]

    def _stream(self, sequence: Tensor, real: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Segment the frames ``real`` of a sequence (1, C, T, Y, X) by chunks; yield which, and logits by scale."""
        chunks, state, done = real.split(FRAMES_PER_CHUNK), None, 0
        # The first chunk, often the only one, is encoded once; to keep the features of all would take memory.
        first = self.encode(sequence[:, :, chunks[0]])

        def encoded() -> Iterator[list[Tensor]]:
            yield first
            for chunk in chunks[1:]:
                yield self.encode(sequence[:, :, chunk])

        if self.watch_first:
            for features in encoded():
                state = self.watch(features, state)
        for number, features in enumerate(encoded(), start=1):
            logits, state = self.segment(features, state, last=number == len(chunks))
            scales = logits if isinstance(logits, list) else [logits]
            yield real[done : done + scales[0].shape[2]], scales
            done += scales[0].shape[2]

    def _watch(self, module: nn.Module, features: Tensor, valid: Tensor) -> ModuleState | None:
        """Return the state a clip starts with. No gradient: the second pass writes the same frames again, with one."""
        if not self.watch_first:
            return None
        with torch.no_grad():
            return module(features, None, valid)[1]

    def _encode(self, frames: Tensor) -> list[Tensor]:
        """Encode (B, T, C, Y, X) frames into one (B, T, C, Y, X) feature map per stage."""
        if frames.shape[1] == 0:
            return [skip[:, :0] for skip in self._encode(_one_blank(frames))]
        parts = [self.encoder(part) for part in self._passes(frames.flatten(0, 1))]
        return [torch.cat(stage).unflatten(0, frames.shape[:2]) for stage in zip(*parts, strict=True)]

    def _remember(
        self, skips: list[Tensor], state: State | None, valid: Tensor | None, last: bool
    ) -> tuple[list[Tensor], State]:
        skips, modules = list(skips), {}
        for stage, module in self.temporal.items():
            before = None if state is None else state.modules[stage]
            skips[int(stage)], modules[stage] = cast(TemporalModule, module).stream(
                skips[int(stage)], before, valid, last=last
            )
        if not self.delay:
            return skips, State(modules)
        if state is not None and state.waiting is not None:
            skips = [torch.cat(pair, 1) for pair in zip(state.waiting, skips, strict=True)]
        ready = min(skip.shape[1] for skip in skips)
        # Copies, because a view would keep the whole chunk's features alive.
        return [skip[:, :ready] for skip in skips], State(modules, [skip[:, ready:].clone() for skip in skips])

    def _decode(self, skips: list[Tensor]) -> Tensor | list[Tensor]:
        """Decode (B, T, C, Y, X) feature maps into (B, K, T, Y, X) logits."""
        shape = skips[0].shape[:2]
        if shape[1] == 0:
            logits = self._decode([_one_blank(skip) for skip in skips])
            return logits[:, :, :0] if isinstance(logits, Tensor) else [scale[:, :, :0] for scale in logits]
        flat = zip(*(self._passes(skip.flatten(0, 1)) for skip in skips), strict=True)
        decode = self.decoder if self.refinement is None else self._decode_and_refine
        parts = [decode(list(part)) for part in flat]
        scales = zip(*(part if isinstance(part, list) else [part] for part in parts), strict=True)
        logits = [torch.cat(scale).unflatten(0, shape).transpose(1, 2) for scale in scales]
        return logits if self.decoder.deep_supervision else logits[0]

    def _passes(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Split frames (N, ...) into what passes a 2D network at a time: predicting on a CPU, batches only cost."""
        predicting_on_cpu = frames.device.type == "cpu" and not self.training
        return frames.split(1) if predicting_on_cpu else (frames,)

    def _decode_and_refine(self, skips: list[Tensor]) -> Tensor | list[Tensor]:
        """Run the decoder layer by layer, as its own ``forward`` does, because that does not return its features."""
        decoder, below, refinement = self.decoder, skips[-1], cast(RefinementHead, self.refinement)
        features: list[Tensor] = []
        for up, stage, skip in zip(decoder.transpconvs, decoder.stages, skips[-2::-1], strict=True):
            below = stage(torch.cat((up(below), skip), 1))
            features.insert(0, below)
        logits = refinement(features, decoder.seg_layers[-1](below))
        if not decoder.deep_supervision:
            return logits
        coarser = zip(list(decoder.seg_layers)[-2::-1], features[1:], strict=True)
        return [logits, *(layer(feature) for layer, feature in coarser)]


def _decoded_first(decoded: Tensor, frames: int) -> Tensor:
    """Order the indices 0 .. ``frames`` - 1 of each clip so that the decoded ones come first: (B, T)."""
    is_context = torch.ones(decoded.shape[0], frames, dtype=torch.long, device=decoded.device)
    return torch.argsort(is_context.scatter(1, decoded, 0), dim=1, stable=True)


def _take(frames: Tensor, index: Tensor) -> Tensor:
    """Pick the frames ``index`` (B, D) of (B, T, ...): (B, D, ...)."""
    index = index.view(*index.shape, *[1] * (frames.ndim - 2))
    return torch.take_along_dim(frames, index, 1)


def _one_blank(frames: Tensor) -> Tensor:
    """Make one zero frame (B, 1, ...) from no frames (B, 0, ...): the stock layers reject an empty batch."""
    return frames.new_zeros(frames.shape[0], 1, *frames.shape[2:])
