"""Loads batches of clips whose frames nobody labelled, with what a teacher thinks of them."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Sequence
from nnunet_temporal.training.clip_sampling import WindowSampler
from nnunet_temporal.training.pseudo_label_maps import confident_labels
from nnunet_temporal.training.sequence_loader import (
    LoaderOptions,
    SequenceLoader,
    crop_frames,
    foreground_pixel,
)


class PseudoLabelReader(Protocol):
    """Where pseudo-labels come from."""

    def read(self, case: str) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Return labels and confidence of a preprocessed case, uint8 (T, Y, X), and its weight, 0 to 1.

        A confidence of 255 is a probability of 1. None where there is no pseudo-label yet.
        """


class UnlabelledLoader(SequenceLoader):
    """Draws clips around windows of consecutive frames, which are decoded, of sequences with unlabelled frames.

    A batch holds ``data``, ``valid``, ``decoded`` (B, W) and ``keys`` as in ``SequenceLoader``; no ``target``, but for
    all T frames ``labels`` (B, 1, T, Y, X) int16, ``weight`` (B, T) float32 and ``labelled`` (B, T) bool, and ``view``
    (B,) int64, a number for each view of the dataset. A frame that a person labelled has these labels and weight 1; any
    other has the pseudo-label of its sequence where that is confident, and its weight. Everything else is
    ``ignore_label``: unsure pixels, padding, all outside the image; frames nobody knows anything of have weight 0.
    """

    def __init__(
        self,
        dataset: nnUNetBaseDataset,
        sequences: Mapping[str, Sequence],
        options: LoaderOptions,
        sampler: WindowSampler,
        *,
        pseudo_labels: PseudoLabelReader,
        confidence_threshold: float,
    ) -> None:
        """Prepare to draw.

        Args:
            dataset: Preprocessed cases of the training side, labelled or not.
            sequences: Manifest entry of every case.
            options: Its transforms return a single segmentation, of labels; the crops of its foreground share are
                centred on a foreground pixel of labels or pseudo-labels.
            sampler: Chooses the frames of a clip.
            pseudo_labels: Read anew for every clip. Loaders in other processes see those of their start.
            confidence_threshold: Pixels below this probability, 0 to 1, are ignored.

        Raises:
            InputError: Every frame of every sequence is labelled.
        """
        super().__init__(dataset, sequences, options)
        self.sampler = sampler
        self.pseudo_labels = pseudo_labels
        self.confidence_threshold = confidence_threshold
        self.views = sorted({sequence.view or "" for sequence in sequences.values()})

    def choose_cases(self, cases: Iterable[str]) -> list[str]:
        """Choose the cases that have unlabelled frames.

        Raises:
            InputError: There is none.
        """
        cases = list(cases)
        chosen = [case for case in cases if len(self.sequences[case].labelled_frames) < self.sequences[case].n_frames]
        if not chosen:
            raise InputError(
                f"Every frame of the {len(cases)} training sequences of this fold is labelled according to "
                "sequences.json, so there is nothing to learn from unlabelled ones. Take the supervised trainer."
            )
        return chosen

    def draw_clip(self, case: str, force_foreground: bool, rng: np.random.Generator) -> dict[str, Any]:
        """See ``SequenceLoader``."""
        data, segmentation, _, properties = self._data.load_case(case)
        sequence, n_frames = self.sequences[case], data.shape[1]
        clip = self.sampler.sample(n_frames, sequence.cyclic and n_frames == sequence.n_frames, rng)
        true_frames = self.labelled_frames(case, n_frames, properties)
        labelled = np.isin(clip.frames, true_frames)
        labels, weight = self._labels(case, segmentation, clip.frames, labelled)
        centre = None
        if force_foreground:
            centre = self._foreground_pixel(labels, rng)
            if centre is None:  # no pseudo-label yet: a heart hardly moves, so labels of other frames tell where it is
                centre = foreground_pixel(properties["class_locations"], true_frames, rng)
        box = self.draw_box(data.shape[2:], None if centre is None else centre[1:], rng)
        valid = torch.from_numpy(clip.frames >= 0)
        sample = self.options.transforms(
            image=torch.from_numpy(crop_frames(data, clip.frames, box, 0)).float(),
            segmentation=self.crop_labels(labels, np.arange(len(clip.frames)), box),
        )
        sample["image"][:, ~valid] = 0
        return {
            "data": sample["image"],
            "valid": valid,
            "decoded": torch.from_numpy(clip.decoded),
            "labels": sample["segmentation"],
            "weight": torch.from_numpy(weight),
            "labelled": torch.from_numpy(labelled),
            "view": torch.tensor(self.views.index(sequence.view or "")),
        }

    def _labels(
        self, case: str, segmentation: np.ndarray, frames: np.ndarray, labelled: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels (1, T, Y, X) int16 and weights (T,) float32 of a clip's frames, uncropped."""
        labels = np.full((1, len(frames), *segmentation.shape[2:]), self.options.ignore_label, np.int16)
        weight = np.zeros(len(frames), np.float32)
        pseudo_label = self.pseudo_labels.read(case)
        if pseudo_label is not None:
            pseudo, confidence, certainty = pseudo_label
            if pseudo.shape != segmentation.shape[1:]:
                raise ValueError(
                    f"{case}: found a pseudo-label of shape {pseudo.shape}, expected (T, Y, X) {segmentation.shape[1:]}"
                )
            known = frames >= 0
            shown = frames[known]
            labels[0, known] = confident_labels(
                pseudo[shown], confidence[shown], self.confidence_threshold, ignore_label=self.options.ignore_label
            )
            weight[known] = certainty
        for position in np.flatnonzero(labelled):
            labels[0, position] = segmentation[0, frames[position]]
            weight[position] = 1
        return labels, weight

    def _foreground_pixel(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray | None:
        """Pick a foreground pixel (t, y, x) of a clip's labels: first a label, then a pixel of it; None without any."""
        known = np.unique(labels)
        known = known[(known > 0) & (known != self.options.ignore_label)]
        if len(known) == 0:
            return None
        pixels = np.argwhere(labels[0] == rng.choice(known))
        return pixels[rng.integers(len(pixels))]
