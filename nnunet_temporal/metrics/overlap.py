"""How much two masks overlap."""

from collections.abc import Iterable

import numpy as np


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
    _check_masks(prediction=prediction, reference=reference, valid=valid)
    if valid is not None:
        prediction, reference = prediction & valid, reference & valid
    total = int(np.count_nonzero(prediction)) + int(np.count_nonzero(reference))
    if total == 0:
        return float("nan")
    return 2.0 * int(np.count_nonzero(prediction & reference)) / total


def dice_per_label(
    prediction: np.ndarray, reference: np.ndarray, labels: Iterable[int], ignore_label: int | None = None
) -> dict[int, float]:
    """Compute the Dice coefficient of each label of two label maps.

    Args:
        prediction: Integer label map of any shape.
        reference: Integer label map of the same shape.
        labels: The label values to score.
        ignore_label: Voxels with this value in ``reference`` are not counted. None counts all.

    Returns:
        Label value to Dice, with the rules of :func:`dice` for empty masks.

    Raises:
        ValueError: If the shapes differ.
    """
    valid = None if ignore_label is None else reference != ignore_label
    return {label: dice(prediction == label, reference == label, valid) for label in labels}


def _check_masks(**masks: np.ndarray | None) -> None:
    """Raise ValueError unless all given masks are boolean and have the shape of the first one."""
    given = {name: mask for name, mask in masks.items() if mask is not None}
    first_name, first = next(iter(given.items()))
    for name, mask in given.items():
        if mask.dtype != np.bool_:
            raise ValueError(f"{name} must be a boolean mask, got dtype {mask.dtype}")
        if mask.shape != first.shape:
            raise ValueError(f"{name} must have the shape of {first_name}, {first.shape}, got {mask.shape}")
