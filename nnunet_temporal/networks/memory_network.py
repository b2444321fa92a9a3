"""A network that remembers what it segmented: the order in which frames are read, segmented and remembered."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_temporal.networks.memory_bank import MemoryBank, Scales, remember
from nnunet_temporal.networks.temporal_unet import FRAMES_PER_CHUNK, Clip


class SeededClip(NamedTuple):
    """Training clips whose first frame may be remembered with a given mask instead of the predicted one.

    Attributes:
        clip: The frames.
        seeds: (B, K, Y, X), the first frame's mask as probabilities of the output channels; negative where the
            prediction counts.
    """

    clip: Clip
    seeds: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "SeededClip":
        """Return the clip on another device."""
        return SeededClip(self.clip.to(device, non_blocking), self.seeds.to(device, non_blocking=non_blocking))


class MemoryNetwork(nn.Module, ABC):
    """Segments frame by frame; each frame's features are keys, its image and soft mask the values they recall.

    A subclass says what the four verbs mean: ``encode_key``, ``encode_value``, ``read`` and ``decode``. They keep no
    state: what is remembered goes in and comes out as a ``MemoryBank``. The first frame is segmented without memory,
    unless ``propagate`` is given its mask. Frames that are zero everywhere are padding and are never remembered.

    Attributes:
        encoder: nnU-Net's 2D encoder.
        decoder: nnU-Net's 2D decoder.
        memory_frames: Largest number of frames in the memory: the first, and the ones just before.
        overlapping: Whether output channels are regions that may overlap, or classes. It is saved with the weights,
            because nnU-Net does not tell a network that it builds for prediction.
    """

    encoder: nn.Module
    decoder: nn.Module
    overlapping: Tensor

    def __init__(self, memory_frames: int) -> None:
        """Remember up to ``memory_frames`` frames.

        Raises:
            ValueError: ``memory_frames`` is not positive.
        """
        super().__init__()
        if memory_frames < 1:
            raise ValueError(f"memory_frames must be 1 or more, got {memory_frames}")
        self.memory_frames = memory_frames
        self.register_buffer("overlapping", torch.tensor(False))

    @abstractmethod
    def encode_key(self, frames: Tensor) -> tuple[list[Tensor], Scales]:
        """Encode frames (B, C, Y, X) into the decoder's skips, full resolution first, and keys (B, C, Y, X)."""

    @abstractmethod
    def encode_value(self, frames: Tensor, masks: Tensor) -> Scales:
        """Encode frames (B, C, Y, X) with their masks (B, K, Y, X), probabilities, into values (B, C_v, Y, X)."""

    @abstractmethod
    def read(self, keys: Scales, bank: MemoryBank) -> Scales:
        """Look the keys of a frame up in the memory: (B, C_v, Y, X) per scale, zero where the bank is empty."""

    @abstractmethod
    def decode(self, skips: list[Tensor], readouts: Scales | None) -> Tensor | list[Tensor]:
        """Segment a frame, with what it recalls or without: logits (B, K, Y, X), or nnU-Net's list of them."""

    def forward(self, x: SeededClip | Clip | Tensor) -> Tensor | list[Tensor]:
        """Segment training clips, or every frame of whole sequences.

        Args:
            x: A ``Clip``, with seeds or without, or sequences (B, C, T, Y, X) of any length.

        Returns:
            Logits (B, K, D, Y, X) for a clip and (B, K, T, Y, X) for sequences; with deep supervision a list of
            them, full resolution first.
        """
        if isinstance(x, Tensor):
            return self._segment_sequence(x)
        clip, seeds = x if isinstance(x, SeededClip) else (x, None)
        scales, _ = self._segment(clip.frames, None, clip.valid, seeds)
        index = clip.decoded[:, None, :, None, None]
        return self._as_nnunet([torch.take_along_dim(logits, index, 2) for logits in scales])

    def forward_chunk(
        self, frames: Tensor, state: MemoryBank | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor | list[Tensor], MemoryBank]:
        """Segment the next frames of sequences.

        Args:
            frames: (B, C, T, Y, X).
            state: What the call for the preceding frames returned; None at the start of a sequence.
            valid: (B, T) bool, False for padding frames; None: all valid.

        Returns:
            Logits as ``forward``, and the memory to carry on with. It does not grow with the number of frames.
        """
        if valid is None:
            valid = frames.new_ones((frames.shape[0], frames.shape[2]), dtype=torch.bool)
        scales, bank = self._segment(frames, state, valid)
        return self._as_nnunet(scales), bank

    def propagate(self, frames: Tensor, mask: Tensor, seed_frame: int = 0) -> Tensor:
        """Segment sequences of which one frame's mask is known, forwards and backwards from there.

        Args:
            frames: (B, C, T, Y, X).
            mask: (B, K, Y, X), the mask of the seed frame as probabilities of the output channels, 0 or 1 if certain.
            seed_frame: Index of the frame that the mask belongs to.

        Returns:
            Probabilities (B, K, T, Y, X); those of the seed frame are ``mask``, bit for bit.

        Raises:
            ValueError: The mask has another shape, is no mask of probabilities, or its frame does not exist.
        """
        self._check_seed(frames, mask, seed_frame)
        seed = frames[:, :, seed_frame]
        _, keys = self.encode_key(seed)
        everywhere = seed.new_ones(len(seed), dtype=torch.bool)
        bank = remember(None, keys, self.encode_value(seed, mask), everywhere, self.memory_frames)
        earlier, later = frames[:, :, :seed_frame].flip(2), frames[:, :, seed_frame + 1 :]
        before = [self.probabilities(scales[0]).flip(2) for scales in self._stream(earlier, bank)]
        after = [self.probabilities(scales[0]) for scales in self._stream(later, bank)]
        return torch.cat((*reversed(before), mask.unsqueeze(2), *after), 2)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Turn logits (B, K, ...) into float32 probabilities of classes, or of regions that may overlap."""
        logits = logits.float()
        return torch.where(self.overlapping, logits.sigmoid(), logits.softmax(1))

    def _segment(
        self, frames: Tensor, bank: MemoryBank | None, valid: Tensor, seeds: Tensor | None = None
    ) -> tuple[list[Tensor], MemoryBank]:
        """Segment (B, C, T, Y, X) one frame after the other: logits per scale, and the bank after the last frame."""
        batch, number = valid.shape
        skips, keys = self.encode_key(frames.transpose(1, 2).flatten(0, 1))
        skips = [skip.unflatten(0, (batch, number)) for skip in skips]
        keys = tuple(key.unflatten(0, (batch, number)) for key in keys)
        segmented = []
        for t in range(number):
            now = tuple(key[:, t] for key in keys)
            logits = self.decode([skip[:, t] for skip in skips], None if bank is None else self.read(now, bank))
            segmented.append(logits if isinstance(logits, list) else [logits])
            masks = self.probabilities(segmented[-1][0])
            if seeds is not None and t == 0:
                masks = torch.where(seeds < 0, masks, seeds)
            bank = remember(bank, now, self.encode_value(frames[:, :, t], masks), valid[:, t], self.memory_frames)
        assert bank is not None  # there is at least one frame
        return [torch.stack(scale, 2) for scale in zip(*segmented, strict=True)], bank

    def _stream(self, frames: Tensor, bank: MemoryBank | None) -> list[list[Tensor]]:
        """Segment (B, C, T, Y, X) in chunks, whose features need not fit in memory together; logits per scale each."""
        chunks = []
        for part in frames.split(FRAMES_PER_CHUNK, 2) if frames.shape[2] else ():
            scales, bank = self._segment(part, bank, _is_frame(part))
            chunks.append(scales)
        return chunks

    @torch.compiler.disable
    def _segment_sequence(self, frames: Tensor) -> Tensor | list[Tensor]:
        # Eager on purpose: the number of frames differs from sequence to sequence, and every new one would recompile.
        inside = _is_frame(frames).any(0).nonzero()
        first, last = (0, 1) if len(inside) == 0 else (int(inside[0]), int(inside[-1]) + 1)
        margins = (0, 0, 0, 0, first, frames.shape[2] - last)
        chunks = self._stream(frames[:, :, first:last], None)
        return self._as_nnunet([nn.functional.pad(torch.cat(scale, 2), margins) for scale in zip(*chunks, strict=True)])

    def _as_nnunet(self, scales: list[Tensor]) -> Tensor | list[Tensor]:
        return scales if self.decoder.deep_supervision else scales[0]

    def _check_seed(self, frames: Tensor, mask: Tensor, seed_frame: int) -> None:
        expected = (frames.shape[0], self.decoder.num_classes, *frames.shape[3:])
        if tuple(mask.shape) != expected:
            raise ValueError(f"mask must be (B, K, Y, X) = {expected}, got {tuple(mask.shape)}")
        if not 0 <= seed_frame < frames.shape[2]:
            raise ValueError(f"seed_frame must lie in 0..{frames.shape[2] - 1}, got {seed_frame}")
        exclusive = self.overlapping or torch.allclose(mask.sum(1), torch.ones_like(mask[:, 0]), atol=1e-3)
        if not (exclusive and mask.min() >= 0 and mask.max() <= 1):
            raise ValueError(
                "mask must hold probabilities in 0..1, which add up to 1 over classes; one-hot encode labels"
            )


def _is_frame(frames: Tensor) -> Tensor:
    """Tell frames of (B, C, T, Y, X) from padding, which is zero everywhere: (B, T) bool."""
    return frames.flatten(3).any(3).any(1)
