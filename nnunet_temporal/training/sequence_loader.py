"""What every loader of training batches does: cases, crops, seeds, and nothing unlabelled as background."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgenerators.dataloading.data_loader import DataLoader
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch import Tensor

from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Sequence

Box = list[list[int]]
"""Bounds [lower, upper) along Y and X."""

_OUTSIDE_NONZERO_MASK = -1
"""nnU-Net's preprocessing marks background outside the image's nonzero region with this label."""


@dataclass(frozen=True)
class LoaderOptions:
    """What the batches of all loaders have in common.

    Attributes:
        batch_size: Clips per batch.
        crop_size: (Y, X) that is cut out, larger than ``final_size`` where a rotation needs margin.
        final_size: (Y, X) the transforms return.
        transforms: Applied to each clip's ``image`` (C, T, Y, X) and ``segmentation`` (1, D, Y, X).
        ignore_label: Label of everything nobody labelled.
        foreground_share: Share of the batch whose crop is centred on a labelled foreground pixel.
        seed: Seed of all draws.
    """

    batch_size: int
    crop_size: tuple[int, int]
    final_size: tuple[int, int]
    transforms: BasicTransform
    ignore_label: int
    foreground_share: float
    seed: int


class SequenceLoader(DataLoader, ABC):
    """Draws clips of sequences, cropped in plane, as a batch of tensors.

    A batch holds ``data`` (B, C, T, Y, X) float32, ``target`` (B, 1, D, Y, X) int16 or its deep supervision list,
    ``valid`` (B, T) bool, ``decoded`` (B, D) int64 and ``keys``. Which frames are labelled comes from the manifest,
    never from pixel values. Every pixel a person did not label is ``ignore_label`` in the target: context is not in
    it at all, padding in time and in plane is ignored, and transforms have to fill with the same label.

    Batch n of worker w depends on the seed, w and n only.
    """

    def __init__(self, dataset: nnUNetBaseDataset, sequences: Mapping[str, Sequence], options: LoaderOptions) -> None:
        """Prepare to draw from the sequences of a dataset.

        Args:
            dataset: Preprocessed cases.
            sequences: Manifest entry of every case.
            options: Size, geometry and seed of the batches.

        Raises:
            InputError: No case of the dataset can be drawn.
        """
        super().__init__(dataset, options.batch_size, 1, None, True, False, True, None)
        self.sequences = sequences
        self.options = options
        self.indices = self.choose_cases(dataset.identifiers)
        self._drawn = 0

    def choose_cases(self, cases: Iterable[str]) -> list[str]:
        """Choose the cases that are drawn: those that have labelled frames.

        Raises:
            InputError: There is none.
        """
        cases = list(cases)
        chosen = [case for case in cases if self.sequences[case].labelled_frames]
        if not chosen:
            raise InputError(
                f"None of the {len(cases)} sequences of this fold has a labelled frame according to "
                "sequences.json. Check labelled_frames there and splits_final.json."
            )
        return chosen

    def generate_train_batch(self) -> dict[str, Any]:
        """Draw the next batch."""
        rng = self._seed_next_batch()
        # Distinct sequences as long as there are enough: a clip's frames are alike, its batch should not be.
        few = self.batch_size > len(self.indices)
        keys = rng.choice(self.indices, self.batch_size, replace=few).tolist()
        foreground_from = round(self.batch_size * (1 - self.options.foreground_share))
        with torch.no_grad(), _one_thread():
            clips = [self.draw_clip(key, number >= foreground_from, rng) for number, key in enumerate(keys)]
            return {**_collate(clips), "keys": keys}

    def _seed_next_batch(self) -> np.random.Generator:
        sequence = np.random.SeedSequence([self.options.seed, self.thread_id, self._drawn])
        self._drawn += 1
        # The transforms draw from the global generators of NumPy and torch.
        for_numpy, for_torch = sequence.generate_state(2)
        np.random.seed(for_numpy)
        torch.manual_seed(int(for_torch))
        return np.random.default_rng(sequence)

    @abstractmethod
    def draw_clip(self, case: str, force_foreground: bool, rng: np.random.Generator) -> dict[str, Any]:
        """Draw one clip of a sequence: the entries of a batch but ``keys``, without the axis B.

        Args:
            case: The sequence, one of those chosen.
            force_foreground: Whether the crop is centred on a labelled foreground pixel, if there is one.
            rng: Source of randomness.
        """

    def labelled_frames(self, case: str, n_frames: int, properties: Mapping[str, Any]) -> np.ndarray:
        """Return the labelled frames of a preprocessed case, as indices into its frames, without those cropped away."""
        return kept_labelled_frames(self.sequences[case], n_frames, properties)

    def some_labelled_frames(self, case: str, n_frames: int, properties: Mapping[str, Any]) -> np.ndarray:
        """Do as ``labelled_frames`` for a case that has them.

        Raises:
            InputError: Preprocessing has cropped them all away.
        """
        labelled = self.labelled_frames(case, n_frames, properties)
        if len(labelled) == 0:
            raise InputError(
                f"{case}: its labelled frames {self.sequences[case].labelled_frames} lie outside the {n_frames} frames "
                "that preprocessing kept (empty frames at either end are cropped). Remove them from sequences.json."
            )
        return labelled

    def crop_labels(self, segmentation: np.ndarray, frames: np.ndarray, box: Box) -> Tensor:
        """Crop the masks of labelled frames, (1, D, Y, X) int16; frame -1 and all outside the image is ignored."""
        padding = _OUTSIDE_NONZERO_MASK - 1  # distinct from a labelled background outside the nonzero mask
        labels = crop_frames(segmentation, frames, box, padding).astype(np.int16)
        labels[labels == _OUTSIDE_NONZERO_MASK] = 0
        labels[labels == padding] = self.options.ignore_label
        return torch.from_numpy(labels)

    def draw_box(self, shape: tuple[int, int], centre: np.ndarray | None, rng: np.random.Generator) -> Box:
        """Place the crop (Y and X bounds): anywhere the final patch stays inside, or around a pixel."""
        box = []
        crop_size, final_size = self.options.crop_size, self.options.final_size
        for axis, (size, crop, final) in enumerate(zip(shape, crop_size, final_size, strict=True)):
            margin = max(crop - final, crop - size)
            lowest, highest = -(margin // 2), size + margin - margin // 2 - crop
            if centre is None:
                start = int(rng.integers(lowest, highest + 1))
            else:
                start = int(np.clip(centre[axis] - crop // 2, lowest, highest))
            box.append([start, start + crop])
        return box


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch compute in one thread.

    In a forked worker whose parent has computed in parallel before, a second thread never starts, and torch waits for
    it forever. Limits set from outside torch do not reach all of its thread pools.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _collate(clips: list[dict[str, Any]]) -> dict[str, Any]:
    """Stack the tensors of the clips; a target list (deep supervision) scale by scale."""
    return {name: _stack([clip[name] for clip in clips]) for name in clips[0]}


def _stack(values: list[Any]) -> Tensor | list[Tensor]:
    if isinstance(values[0], list):
        return [torch.stack(scale) for scale in zip(*values, strict=True)]
    return torch.stack(values)


def first_kept_frame(properties: Mapping[str, Any]) -> int:
    """Return how many frames nnU-Net's crop to nonzero removed at the start of the sequence."""
    return int(properties["bbox_used_for_cropping"][0][0])


def kept_labelled_frames(sequence: Sequence, n_frames: int, properties: Mapping[str, Any]) -> np.ndarray:
    """Return the labelled frames of a preprocessed case of ``n_frames`` frames, without those cropped away."""
    labelled = np.array(sequence.labelled_frames, dtype=np.int64) - first_kept_frame(properties)
    return labelled[(labelled >= 0) & (labelled < n_frames)]


def foreground_pixel(
    class_locations: Mapping[Any, np.ndarray], labelled: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Pick a labelled foreground pixel (t, y, x): first a class, then a pixel of it; None if there is none."""
    candidates = []
    for label, locations in class_locations.items():
        # The tuple of all labels stands for "annotated at all", background included.
        if (isinstance(label, tuple) and -1 in label) or len(locations) == 0:
            continue
        pixels = np.asarray(locations)[:, 1:]
        pixels = pixels[np.isin(pixels[:, 0], labelled)]
        if len(pixels):
            candidates.append(pixels)
    if not candidates:
        return None
    pixels = candidates[rng.integers(len(candidates))]
    return pixels[rng.integers(len(pixels))]


def crop_frames(array: np.ndarray, frames: np.ndarray, box: Box, padding: float) -> np.ndarray:
    """Cut the frames out of a (C, T, Y, X) case, in plane to ``box``; frame -1 and all outside is ``padding``."""
    shape = (array.shape[0], len(frames), *(upper - lower for lower, upper in box))
    cropped = np.full(shape, padding, dtype=np.float32)
    for position, frame in enumerate(frames):
        if frame >= 0:
            # One frame at a time: the file's chunks are single frames.
            cropped[:, position] = crop_and_pad_nd(array, [[frame, frame + 1], *box], padding)[:, 0]
    return cropped
