"""How much two masks overlap."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

# Added to the numerator and the denominator of each row by the published evaluator that the legacy metrics repeat.
_LEGACY_SMOOTHING = 1e-5


@dataclass(frozen=True)
class OverlapCounts:
    """The three counts of voxels from which the overlap of a pair of masks, or of many pairs, is computed.

    Attributes:
        intersection: Voxels in both masks.
        prediction: Voxels in the prediction.
        reference: Voxels in the reference.
    """

    intersection: int
    prediction: int
    reference: int

    def __add__(self, other: "OverlapCounts") -> "OverlapCounts":
        return OverlapCounts(
            self.intersection + other.intersection,
            self.prediction + other.prediction,
            self.reference + other.reference,
        )

    def dice(self) -> float:
        """Return the Dice coefficient, 2 |P and R| / (|P| + |R|), with the rules of :func:`dice`."""
        total = self.prediction + self.reference
        return 2.0 * self.intersection / total if total else math.nan

    def iou(self) -> float:
        """Return the intersection over union, |P and R| / |P or R|, with the rules of :func:`dice`."""
        union = self.prediction + self.reference - self.intersection
        return self.intersection / union if union else math.nan


def overlap_counts(prediction: np.ndarray, reference: np.ndarray, valid: np.ndarray | None = None) -> OverlapCounts:
    """Count the voxels of two masks and of their intersection.

    Args:
        prediction: Boolean mask of any shape.
        reference: Boolean mask of the same shape.
        valid: Boolean mask of the same shape; only voxels where it is true are counted. None counts all.

    Returns:
        The counts.

    Raises:
        ValueError: If a mask is not boolean or the shapes differ.
    """
    check_masks(prediction=prediction, reference=reference, valid=valid)
    if valid is not None:
        prediction, reference = prediction & valid, reference & valid
    return OverlapCounts(
        int(np.count_nonzero(prediction & reference)),
        int(np.count_nonzero(prediction)),
        int(np.count_nonzero(reference)),
    )


def dice(prediction: np.ndarray, reference: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Compute the Dice coefficient of two masks, 2 |P and R| / (|P| + |R|).

    Args:
        prediction: Boolean mask of any shape.
        reference: Boolean mask of the same shape.
        valid: Boolean mask of the same shape; only voxels where it is true are counted. None counts all.

    Returns:
        A value in [0, 1]; 0 when exactly one of the masks is empty, NaN when both are (or nothing is valid): there is
        nothing to find, so the case says nothing about the method and is left out of means.

    Raises:
        ValueError: If a mask is not boolean or the shapes differ.
    """
    return overlap_counts(prediction, reference, valid).dice()


def iou(prediction: np.ndarray, reference: np.ndarray, valid: np.ndarray | None = None) -> float:
    """Compute the intersection over union of two masks (the Jaccard index), |P and R| / |P or R|.

    For one pair it is Dice / (2 - Dice); the means over many pairs do not convert.

    Args:
        prediction: Boolean mask of any shape.
        reference: Boolean mask of the same shape.
        valid: Boolean mask of the same shape; only voxels where it is true are counted. None counts all.

    Returns:
        A value in [0, 1], with the rules of :func:`dice` for empty masks.

    Raises:
        ValueError: If a mask is not boolean or the shapes differ.
    """
    return overlap_counts(prediction, reference, valid).iou()


def pooled_dice(counts: Iterable[OverlapCounts]) -> float:
    """Compute one Dice coefficient over many pairs, 2 sum |P and R| / (sum |P| + sum |R|).

    This is how EchoNet-Dynamic reports its test set. Large structures weigh more than small ones, so that the value
    differs from the mean over the pairs, which most other papers report.

    Args:
        counts: The counts of each pair, for example from a generator over files.

    Returns:
        A value in [0, 1]; NaN when every mask of every pair is empty or there is no pair.
    """
    return sum(counts, OverlapCounts(0, 0, 0)).dice()


def legacy_rowwise_dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Repeat a defect of the published GDKVM evaluator: Dice of each image row, averaged over the rows.

    That evaluator takes the first axis for a batch but is handed single images, and smooths every row by 1e-5 in
    numerator and denominator, so that a row without either mask scores 1. For comparison with its tables only.

    Args:
        prediction: (Y, X) boolean mask.
        reference: (Y, X) boolean mask.

    Returns:
        A value in (0, 1], 1 when both masks are empty.

    Raises:
        ValueError: If a mask is not boolean, the shapes differ or there are not two axes.
    """
    intersection, prediction_size, reference_size = _counts_per_row(prediction, reference)
    total = prediction_size + reference_size
    return float(np.mean((2 * intersection + _LEGACY_SMOOTHING) / (total + _LEGACY_SMOOTHING)))


def legacy_rowwise_iou(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Repeat the defect described at :func:`legacy_rowwise_dice` for the intersection over union.

    It is several points above the true value, far more than the row-wise Dice is.

    Args:
        prediction: (Y, X) boolean mask.
        reference: (Y, X) boolean mask.

    Returns:
        A value in (0, 1], 1 when both masks are empty.

    Raises:
        ValueError: If a mask is not boolean, the shapes differ or there are not two axes.
    """
    intersection, prediction_size, reference_size = _counts_per_row(prediction, reference)
    union = prediction_size + reference_size - intersection
    return float(np.mean((intersection + _LEGACY_SMOOTHING) / (union + _LEGACY_SMOOTHING)))


def _counts_per_row(prediction: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sizes (Y,) of the intersection, the prediction and the reference in each image row."""
    check_masks(prediction=prediction, reference=reference)
    if prediction.ndim != 2:
        raise ValueError(f"prediction must have the axes (Y, X), got shape {prediction.shape}")
    return (prediction & reference).sum(axis=1), prediction.sum(axis=1), reference.sum(axis=1)


def check_masks(**masks: np.ndarray | None) -> None:
    """Check that masks belong together.

    Args:
        masks: Argument name to mask; None stands for a mask that was not given.

    Raises:
        ValueError: If a mask is not boolean or has not the shape of the first one.
    """
    given = {name: mask for name, mask in masks.items() if mask is not None}
    first_name, first = next(iter(given.items()))
    for name, mask in given.items():
        if mask.dtype != np.bool_:
            raise ValueError(f"{name} must be a boolean mask, got dtype {mask.dtype}")
        if mask.shape != first.shape:
            raise ValueError(f"{name} must have the shape of {first_name}, {first.shape}, got {mask.shape}")
