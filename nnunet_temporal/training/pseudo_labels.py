"""Dynamic offset correction: the memory of pseudo-labels, which changes only as fast as its predictions agree.

Pseudo-labels live in the coordinates of the preprocessed case, before any augmentation, so that two rounds compare
predictions and not crops. Both maps of a case are kept compressed.

Source: memory, deviation and acceptance are those of MSSNet's public sketch. Ours are the threshold of the whole round
(the sketch's is the mean of its last batch), the integration of accepted predictions, the escape of pseudo-labels that
nothing resembles any more, and the weights.
"""

import math
import statistics
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import blosc2
import numpy as np
import torch
from torch import Tensor

from nnunet_temporal.errors import InputError
from nnunet_temporal.losses.memberships import memberships_of
from nnunet_temporal.training.pseudo_label_maps import LEVELS, PackedMaps, deviation, integrate

REFUSALS = 3
"""After so many refusals in a row a more confident prediction takes the place of the pseudo-label."""
FIRST_WEIGHT = math.exp(-1)
"""Weight of a first prediction: nothing tells how stable it is, so it counts as one of average deviation."""

_EPSILON = 1e-6
_VERSION = 1


def label_map(
    probabilities: Tensor, *, regions: Sequence[int | Sequence[int]] | None, regions_class_order: Sequence[int] | None
) -> tuple[np.ndarray, np.ndarray]:
    """Turn a network's answer for a whole sequence into labels and how sure they are.

    Exclusive labels: the likeliest, and its probability. Regions: nnU-Net's rule, later regions overwrite, and the
    probability of the least certain region, p inside it and 1 - p outside: a pixel's label is wrong as soon as one of
    its regions is. That is at least 0.5 unless the regions contradict each other, as an inner one without its outer.

    Args:
        probabilities: (K, T, Y, X) after softmax or sigmoid.
        regions: Labels of each region; None for exclusive labels.
        regions_class_order: Label that each region writes, with ``regions``.

    Returns:
        Labels (T, Y, X) uint8 and confidence (T, Y, X) float32, 0..1.
    """
    if regions is None or regions_class_order is None:
        confidence, labels = probabilities.max(0)
    else:
        labels = torch.zeros_like(probabilities[0], dtype=torch.int16)
        for probability, label in zip(probabilities, regions_class_order, strict=True):
            labels = labels.masked_fill(probability > 0.5, label)
        inside, _ = memberships_of(labels[None, None], len(probabilities), ignore_label=None, regions=regions)
        confidence = torch.where(inside[0] > 0, probabilities, 1 - probabilities).amin(0)
    return labels.to(torch.uint8).cpu().numpy(), confidence.float().cpu().numpy()


class PseudoLabel(NamedTuple):
    """What is remembered of a case.

    Attributes:
        maps: The pseudo-label.
        weight: How much it counts in a loss, 0..1; less the more the latest prediction deviates.
        refusals: Number of predictions refused since the last one that was taken.
        mean_confidence: Of the last prediction that was taken, over unlabelled frames, 0..1. Not that of the maps:
            integration lowers theirs wherever two rounds differ.
    """

    maps: PackedMaps
    weight: float
    refusals: int
    mean_confidence: float


class Prediction(NamedTuple):
    """A case's prediction in a round that is still open.

    Attributes:
        maps: The prediction.
        deviation: From the pseudo-label, over unlabelled frames; None for the first prediction of a case.
        mean_confidence: Over unlabelled frames, 0..1.
    """

    maps: PackedMaps
    deviation: float | None
    mean_confidence: float


@dataclass(frozen=True)
class RoundSummary:
    """What a round did.

    Attributes:
        threshold: Mean deviation of all cases that had a pseudo-label; NaN if none had.
        first: Cases that got their first pseudo-label.
        accepted: Cases whose prediction was integrated: those that deviate by the threshold at most.
        refused: Cases that deviate more and keep their pseudo-label.
        replaced: Cases that deviate more, but once too often: their pseudo-label gave way to the prediction.
    """

    threshold: float
    first: tuple[str, ...]
    accepted: tuple[str, ...]
    refused: tuple[str, ...]
    replaced: tuple[str, ...]

    @property
    def accept_rate(self) -> float:
        """Share of accepted cases among those that had a pseudo-label, 0..1; NaN if none had."""
        judged = len(self.accepted) + len(self.refused) + len(self.replaced)
        return len(self.accepted) / judged if judged else math.nan


class PseudoLabels:
    """The pseudo-labels of all cases, and how they change."""

    def __init__(self) -> None:
        """Start without any."""
        self._labels: dict[str, PseudoLabel] = {}

    def read(self, case: str) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Return labels and confidence (T, Y, X) uint8 and the weight of a case, None for a case without them.

        Frames that a person labelled hold predictions too, which have to give way to the person's.
        """
        stored = self._labels.get(case)
        return None if stored is None else (*stored.maps.unpack(), stored.weight)

    def start_round(self) -> "PseudoLabelRound":
        """Begin to collect new predictions; nothing changes before the round is closed."""
        return PseudoLabelRound(self._labels)

    def state_dict(self) -> dict[str, Any]:
        """Return everything as tensors and plain types."""
        cases = {
            case: {
                "labels": torch.frombuffer(bytearray(stored.maps.labels), dtype=torch.uint8),
                "confidence": torch.frombuffer(bytearray(stored.maps.confidence), dtype=torch.uint8),
                "shape": stored.maps.shape,
                **{name: getattr(stored, name) for name in ("weight", "refusals", "mean_confidence")},
            }
            for case, stored in self._labels.items()
        }
        return {"version": _VERSION, "cases": cases}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace everything by what ``state_dict`` returned.

        Raises:
            InputError: The state is of another version or broken; nothing has changed then.
        """
        if state.get("version") != _VERSION:
            raise InputError(
                f"pseudo-labels of version {_VERSION} expected, found {state.get('version')!r}. Continue the training "
                "with the version of nnunet_temporal that began it, or start it anew"
            )
        self._labels = {case: _parsed(case, entry) for case, entry in state["cases"].items()}


class PseudoLabelRound:
    """Collects new predictions of all cases, and judges them once all are there.

    Attributes:
        predictions: What was collected, to be sent to other processes.
    """

    def __init__(self, labels: dict[str, PseudoLabel]) -> None:
        """Begin a round over ``labels``, which closing it changes."""
        self.predictions: dict[str, Prediction] = {}
        self._labels = labels

    def add(self, case: str, labels: np.ndarray, confidence: np.ndarray, labelled_frames: Collection[int]) -> None:
        """Add the prediction of a whole case, without augmentation.

        A case without any unlabelled frame needs no pseudo-label and is left out.

        Args:
            case: Name of the case.
            labels: (T, Y, X) uint8.
            confidence: (T, Y, X), 0..1.
            labelled_frames: Frames a person labelled, which are not judged.

        Raises:
            InputError: The remembered pseudo-label has another shape.
            ValueError: Labels or confidence have another form, or the case has another prediction in this round.
        """
        if labels.dtype != np.uint8 or labels.ndim != 3 or labels.shape != confidence.shape:
            raise ValueError(
                f"{case}: labels (T, Y, X) uint8 and their confidence expected, got {labels.dtype} of shape "
                f"{labels.shape} and a confidence of shape {confidence.shape}"
            )
        if not (confidence.min() >= 0 and confidence.max() <= 1):
            raise ValueError(f"{case}: confidence of 0..1 expected, got {confidence.min()}..{confidence.max()}")
        judged = np.setdiff1d(np.arange(len(labels)), list(labelled_frames))
        if not judged.size:
            return
        levels = np.rint(confidence * LEVELS).astype(np.uint8)
        mean_confidence = int(levels[judged].sum(dtype=np.int64)) / (LEVELS * levels[judged].size)
        prediction = Prediction(PackedMaps.pack(labels, levels), self._deviation(case, labels, judged), mean_confidence)
        self.merge({case: prediction})

    def merge(self, predictions: Mapping[str, Prediction]) -> None:
        """Add what another process has collected in the same round; a part that is here already changes nothing.

        The order of parts has no influence on anything.

        Raises:
            ValueError: A case has two different predictions, or the other process does not remember the same cases.
        """
        for case, prediction in predictions.items():
            if self.predictions.get(case, prediction) != prediction:
                raise ValueError(f"{case} has two different predictions in one round; each case is predicted once")
            if (prediction.deviation is None) == (case in self._labels):
                raise ValueError(f"{case} is remembered by one process only; all have to go through the same rounds")
        self.predictions.update(predictions)

    def close(self) -> RoundSummary:
        """Judge all predictions by their mean deviation and change the pseudo-labels accordingly.

        Raises:
            ValueError: Nothing was added.
        """
        if not self.predictions:
            raise ValueError("the round holds no prediction; close it once, after all cases were added")
        deviations = [p.deviation for p in self.predictions.values() if p.deviation is not None]
        # An exact mean: the order of cases does not show, and equal deviations are all accepted.
        threshold = statistics.mean(deviations) if deviations else math.nan
        groups: dict[str, list[str]] = {"first": [], "accepted": [], "refused": [], "replaced": []}
        changed = {}
        for case, prediction in sorted(self.predictions.items()):
            verdict, changed[case] = _judged(self._labels.get(case), prediction, threshold)
            groups[verdict].append(case)
        self._labels.update(changed)
        self.predictions = {}
        return RoundSummary(threshold, **{verdict: tuple(cases) for verdict, cases in groups.items()})

    def _deviation(self, case: str, labels: np.ndarray, judged: np.ndarray) -> float | None:
        stored = self._labels.get(case)
        if stored is None:
            return None
        if stored.maps.shape != labels.shape:
            raise InputError(
                f"{case}: its pseudo-label has shape {stored.maps.shape}, but the preprocessed case has "
                f"{labels.shape}. The dataset was preprocessed anew; start the training anew, too"
            )
        return deviation(stored.maps.unpack()[0][judged], labels[judged])


def _judged(stored: PseudoLabel | None, prediction: Prediction, threshold: float) -> tuple[str, PseudoLabel]:
    """Return the verdict on a prediction, an attribute of ``RoundSummary``, and what is remembered after it."""
    latest = PseudoLabel(prediction.maps, FIRST_WEIGHT, 0, prediction.mean_confidence)
    if stored is None or prediction.deviation is None:
        return "first", latest
    weight = math.exp(-prediction.deviation / (threshold + _EPSILON))
    if prediction.deviation <= threshold:
        maps = PackedMaps.pack(*integrate(*stored.maps.unpack(), *prediction.maps.unpack()))
        return "accepted", latest._replace(maps=maps, weight=weight)
    refusals = stored.refusals + 1
    if refusals >= REFUSALS and prediction.mean_confidence > stored.mean_confidence:
        return "replaced", latest
    return "refused", stored._replace(weight=weight, refusals=refusals)


def _parsed(case: str, entry: Mapping[str, Any]) -> PseudoLabel:
    try:
        labels, confidence = (entry[name].cpu().numpy().tobytes() for name in ("labels", "confidence"))
        shape = tuple(entry["shape"])
        sizes = [blosc2.get_cbuffer_sizes(packed)[:2] for packed in (labels, confidence)]
        numbers = float(entry["weight"]), int(entry["refusals"]), float(entry["mean_confidence"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"the pseudo-label of {case} is broken: {error!r}. Start the training anew") from error
    if sizes != [(math.prod(shape), len(labels)), (math.prod(shape), len(confidence))]:
        raise InputError(f"the pseudo-label of {case} is broken: not whole for shape {shape}. Start the training anew")
    return PseudoLabel(PackedMaps(labels, confidence, shape), *numbers)
