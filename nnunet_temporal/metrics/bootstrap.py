"""How sure a mean over many frames is, given that the frames of one study resemble each other.

The bootstrap draws whole studies with replacement and keeps all items of each (a cluster bootstrap): drawing frames as
if they were independent makes intervals far too narrow.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Resamples drawn at a time, so that memory does not grow with their number.
_BLOCK = 500


@dataclass(frozen=True)
class MeanInterval:
    """A mean over items with its bootstrap interval.

    Attributes:
        mean: Mean over the items that are not NaN; NaN without any.
        lower: Lower end of the percentile interval; NaN for fewer than two studies.
        upper: Upper end of the percentile interval; NaN for fewer than two studies.
        items: Number of items that are not NaN.
        studies: Number of studies with at least one such item.
    """

    mean: float
    lower: float
    upper: float
    items: int
    studies: int


@dataclass(frozen=True)
class PairedComparison:
    """The mean difference of two methods on the same items.

    Attributes:
        difference: Mean of the first minus the second over the items that both score, with its interval.
        p_value: Two-sided: twice the share of resamples whose mean difference is 0 or on the other side of 0, at most
            1. The observed data count as one more resample, so that it is never 0. NaN for fewer than two studies.
        unpaired: Items that are NaN in exactly one of the two. They are left out of the comparison, so a number above
            0 must be reported beside it.
    """

    difference: MeanInterval
    p_value: float
    unpaired: int


def bootstrap_mean(
    values: np.ndarray, studies: Sequence[str], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> MeanInterval:
    """Compute a mean over items and its percentile interval from resampled studies.

    Args:
        values: (N,) one value per item; NaN items are left out, and studies without any other item with them.
        studies: (N,) the study of each item.
        confidence: Share of resampled means between the two ends of the interval.
        resamples: Number of resamples.
        seed: Seed of the draws; one seed draws the same studies for every metric of the same studies.

    Returns:
        The mean and its interval.

    Raises:
        ValueError: If the arguments differ in length, a value is infinite (count missing structures instead of
            averaging them), the confidence is not between 0 and 1 or there is not one resample.
    """
    values = _check_items("values", values, studies)
    means = _resampled_means(values, studies, resamples, seed)
    return _interval(values, studies, means, confidence)


def compare_paired(
    first: np.ndarray,
    second: np.ndarray,
    studies: Sequence[str],
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> PairedComparison:
    """Compare two methods that were run on the same items.

    Args:
        first: (N,) values of the first method.
        second: (N,) values of the second one, in the same order.
        studies: (N,) the study of each item.
        confidence: Share of resampled mean differences between the two ends of the interval.
        resamples: Number of resamples.
        seed: Seed of the draws.

    Returns:
        The mean difference, first minus second, its interval, its p-value and the number of items left out.

    Raises:
        ValueError: As for :func:`bootstrap_mean`.
    """
    first, second = _check_items("first", first, studies), _check_items("second", second, studies)
    differences = first - second
    means = _resampled_means(differences, studies, resamples, seed)
    p_value = math.nan
    if means.size:
        fewer_side = min(np.count_nonzero(means <= 0), np.count_nonzero(means >= 0))
        p_value = min(1.0, 2.0 * (fewer_side + 1) / (resamples + 1))
    return PairedComparison(
        difference=_interval(differences, studies, means, confidence),
        p_value=p_value,
        unpaired=int(np.count_nonzero(np.isnan(first) != np.isnan(second))),
    )


def _check_items(name: str, values: np.ndarray, studies: Sequence[str]) -> np.ndarray:
    """Return values as float64, or raise ValueError unless they are (N,), not infinite and as many as the studies."""
    values = np.asarray(values, np.float64)
    if values.shape != (len(studies),):
        raise ValueError(f"{name} must have one value for each of the {len(studies)} studies, got shape {values.shape}")
    if np.isinf(values).any():
        raise ValueError(
            f"{name} must not be infinite, got {np.count_nonzero(np.isinf(values))} infinite values: "
            "count missing structures, do not average them"
        )
    return values


def _resampled_means(values: np.ndarray, studies: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """Return (resamples,) means over the items of studies drawn with replacement; (0,) for fewer than two studies."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    counted = ~np.isnan(values)
    names, study_of_item = np.unique(np.asarray(studies)[counted], return_inverse=True)
    if names.size < 2:
        return np.empty(0)
    items = np.bincount(study_of_item)
    sums = np.bincount(study_of_item, weights=values[counted])
    generator = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, _BLOCK):
        drawn = generator.integers(names.size, size=(min(_BLOCK, resamples - start), names.size))
        means.append(sums[drawn].sum(axis=1) / items[drawn].sum(axis=1))
    return np.concatenate(means)


def _interval(values: np.ndarray, studies: Sequence[str], means: np.ndarray, confidence: float) -> MeanInterval:
    """Return the mean of the items that are not NaN between the outer percentiles of the resampled means."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1, got {confidence}")
    counted = ~np.isnan(values)
    lower, upper = (math.nan, math.nan)
    if means.size:
        lower, upper = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return MeanInterval(
        mean=float(values[counted].mean()) if counted.any() else math.nan,
        lower=float(lower),
        upper=float(upper),
        items=int(np.count_nonzero(counted)),
        studies=np.unique(np.asarray(studies)[counted]).size,
    )
