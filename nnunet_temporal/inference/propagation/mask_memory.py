"""All folds of a model that remembers masks, in step: frames and what they recall in, masks and memories out."""

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.label_values import mask_type, to_labels
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.windows import Windows
from nnunet_temporal.networks.cstm import CSTM
from nnunet_temporal.networks.memory_bank import MemoryBank, Scales
from nnunet_temporal.networks.mixed_precision import mixed_precision

FRAMES_PER_PASS = 4
"""Frames that pass the networks together, over all windows and mirrored copies."""


Folds: TypeAlias = tuple[Scales, ...]
"""For each fold and scale a map (W, C, Y, X) of a frame in W windows."""


class Entry(NamedTuple):
    """What all folds remember of a frame."""

    keys: Folds
    values: Folds


class MaskMemory:
    """Segments frames with what they recall, and makes memories of segmented frames.

    Folds see each other's opinion at every frame: their logits are averaged, and each remembers the averaged mask.
    It keeps no state, so that threads may share it.

    Attributes:
        model: The model.
        device: Where its networks are.
        overlapping: Whether output channels are regions that may overlap, not classes.
    """

    def __init__(
        self,
        model: TrainedModel,
        device: torch.device,
        *,
        mirror: bool = False,
        patch: int | None = None,
        top_k: int | None = None,
        stages: tuple[int, ...] | None = None,
    ) -> None:
        """Move the networks to the device.

        Args:
            model: The model.
            device: Where to compute.
            mirror: Whether to average over mirrored copies, where the training mirrored.
            patch: See ``CSTM.match_as``, as for the two others.
            top_k: Patches to read from.
            stages: Stages at which the memory is read.

        Raises:
            InputError: The networks are no CSTM, or cannot match in this way.
        """
        self.model, self.device = model, device
        self.overlapping = model.labels.has_regions
        self._mirror_axes = model.mirror_axes if mirror else ()
        networks = []
        for network in model.networks:
            if not isinstance(network, CSTM):
                raise InputError(
                    f"masks are propagated through a study by CSTM only, found {type(network).__name__}; use a model "
                    "of nnUNetTrainerCSTM, or predict without --seed"
                )
            network = copy(network)  # the same weights: other predictors of the model go on matching as they do
            network.match_as(patch=patch, top_k=top_k, stages=stages)
            networks.append(network.to(device))
        self._networks = tuple(networks)

    @property
    def patch_pixels(self) -> int:
        """Side of a matched patch, in pixels of the frames."""
        network = self._networks[0]
        strides = network.encoder.strides[: network.matching.stage + 1]  # type: ignore[index]  # set by nnU-Net
        return network.matching.patch * int(np.prod([stride[0] for stride in strides]))

    def windows(self, size: tuple[int, int]) -> Windows:
        """Plan the windows for frames of a size (Y, X) on the networks' grid."""
        return Windows(size, self.model.patch, self._mirror_axes)

    @torch.inference_mode()
    def segment(
        self, frames: np.ndarray, recalled: Sequence[Sequence[Entry]], windows: Windows
    ) -> tuple[Tensor, list[Folds]]:
        """Segment frames, each with memories of its own.

        Args:
            frames: (C, N, Y, X) float32, prepared.
            recalled: For each frame what it recalls, as many others for each; nothing for a start.
            windows: The windows to cut the frames into.

        Returns:
            Probabilities (K, N, Y, X) float32, and the keys of each frame.
        """
        total: Tensor | None = None
        keys = []
        with mixed_precision(self.device):
            cut = self._cut(frames, windows)
            for fold, network in enumerate(self._networks):
                skips, key = network.encode_key(cut)
                bank = _bank(recalled, fold)
                logits = network.decode(skips, None if bank is None else network.read(key, bank))
                assert isinstance(logits, Tensor)  # no deep supervision outside training
                total = logits.float() if total is None else total + logits.float()
                keys.append(key)
        assert total is not None  # there is at least one network
        logits = (total / len(self._networks)).unflatten(0, (len(recalled), -1))  # (N, W, K, Y, X)
        joined = windows.join(logits.permute(1, 2, 0, 3, 4))
        return (joined.sigmoid() if self.overlapping else joined.softmax(0)), _per_frame(keys, len(recalled))

    @torch.inference_mode()
    def keys(self, frames: np.ndarray, windows: Windows) -> list[Folds]:
        """Return the keys of prepared frames (C, N, Y, X), of each frame, without segmenting them."""
        with mixed_precision(self.device):
            cut = self._cut(frames, windows)
            return _per_frame([network.encode_key(cut)[1] for network in self._networks], frames.shape[1])

    @torch.inference_mode()
    def values(self, frames: np.ndarray, masks: Tensor, windows: Windows) -> list[Folds]:
        """Return the values of prepared frames (C, N, Y, X) with their masks (K, N, Y, X), probabilities, of each."""
        with mixed_precision(self.device):
            cut, cut_masks = self._cut(frames, windows), self._cut_masks(masks, windows)
            return _per_frame([network.encode_value(cut, cut_masks) for network in self._networks], frames.shape[1])

    def labels_of(self, probabilities: Tensor) -> np.ndarray:
        """Turn probabilities (K, ...) into label values (...), as nnU-Net does."""
        labels = self.model.labels
        if self.overlapping:
            found = labels.convert_probabilities_to_segmentation(probabilities.cpu())
        else:
            found = to_labels(probabilities, labels).cpu()  # the largest, as of logits
        return np.asarray(found).astype(mask_type(labels))

    def _cut(self, frames: np.ndarray, windows: Windows) -> Tensor:
        """Cut frames (C, N, Y, X) into windows (N * W, C, *patch)."""
        return _as_batch(windows.cut(torch.from_numpy(frames).to(self.device)))

    def _cut_masks(self, masks: Tensor, windows: Windows) -> Tensor:
        """Cut masks (K, N, Y, X) into windows (N * W, K, *patch); beyond the frame there is background."""
        if self.overlapping:
            return _as_batch(windows.cut(masks))
        foreground = _as_batch(windows.cut(masks[1:]))
        return torch.cat((1 - foreground.sum(1, keepdim=True), foreground), 1)


def _as_batch(cut: Tensor) -> Tensor:
    """Turn windows (W, C, N, Y, X) of frames into a batch (N * W, C, Y, X)."""
    return cut.movedim(2, 0).flatten(0, 1)


def _per_frame(folds: list[Scales], number: int) -> list[Folds]:
    """Take maps (N * W, C, Y, X), per fold and scale, of N frames apart."""
    apart = [tuple(scale.unflatten(0, (number, -1)) for scale in scales) for scales in folds]
    return [tuple(tuple(scale[n] for scale in scales) for scales in apart) for n in range(number)]


def _bank(recalled: Sequence[Sequence[Entry]], fold: int) -> MemoryBank | None:
    """Put what N frames recall, as many each, into one bank of N * W samples; None if they recall nothing."""
    numbers = {len(entries) for entries in recalled}
    if len(numbers) != 1:
        raise ValueError(f"frames that are segmented together must recall as many others, got {sorted(numbers)}")
    if numbers == {0}:
        return None

    def stack(part: str) -> Scales:
        per_frame = [
            [torch.stack(slots, 1) for slots in zip(*(getattr(entry, part)[fold] for entry in entries), strict=True)]
            for entries in recalled
        ]
        return tuple(torch.cat(scale) for scale in zip(*per_frame, strict=True))

    keys = stack("keys")
    return MemoryBank(keys, stack("values"), torch.ones(keys[0].shape[:2], dtype=torch.bool, device=keys[0].device))
