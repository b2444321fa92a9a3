"""How well predicted numbers, such as volumes or ejection fractions, agree with reference ones."""

import math
from dataclasses import dataclass

import numpy as np

# The limits of agreement span 95 % of normally distributed differences (Bland and Altman, Lancet 1986).
_LIMIT_OF_AGREEMENT_SDS = 1.96


@dataclass(frozen=True)
class Agreement:
    """Agreement of predicted with reference values; differences are prediction minus reference, in the values' unit.

    Attributes:
        count: Number of pairs.
        pearson_r: See :func:`pearson_r`.
        bias: Mean difference; NaN without pairs.
        sd_of_differences: Sample standard deviation of the differences (n - 1); NaN for fewer than two pairs.
        lower_limit: Lower limit of agreement, bias - 1.96 SD; NaN for fewer than two pairs.
        upper_limit: Upper limit of agreement, bias + 1.96 SD; NaN for fewer than two pairs.
        mean_absolute_error: Mean size of the differences; NaN without pairs.
        icc: See :func:`intraclass_correlation`.
        ccc: See :func:`concordance_correlation`.
    """

    count: int
    pearson_r: float
    bias: float
    sd_of_differences: float
    lower_limit: float
    upper_limit: float
    mean_absolute_error: float
    icc: float
    ccc: float


def measure_agreement(prediction: np.ndarray, reference: np.ndarray) -> Agreement:
    """Compute all measures of agreement of paired values.

    Args:
        prediction: (N,) predicted values.
        reference: (N,) reference values, in the same order and unit.

    Returns:
        The measures; those that the pairs do not define are NaN.

    Raises:
        ValueError: If the values are not two curves of one length or one of them is not finite. A pair without a value
            is for the caller to leave out, and to report.
    """
    prediction, reference = _check_pairs(prediction, reference)
    differences = prediction - reference
    bias = float(differences.mean()) if differences.size else math.nan
    sd = float(differences.std(ddof=1)) if differences.size > 1 else math.nan
    return Agreement(
        count=differences.size,
        pearson_r=pearson_r(prediction, reference),
        bias=bias,
        sd_of_differences=sd,
        lower_limit=bias - _LIMIT_OF_AGREEMENT_SDS * sd,
        upper_limit=bias + _LIMIT_OF_AGREEMENT_SDS * sd,
        mean_absolute_error=float(np.abs(differences).mean()) if differences.size else math.nan,
        icc=intraclass_correlation(np.stack((prediction, reference), axis=1)),
        ccc=concordance_correlation(prediction, reference),
    )


def pearson_r(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Compute Pearson's correlation coefficient. It does not see a wrong scale or offset.

    Args:
        prediction: (N,) predicted values.
        reference: (N,) reference values.

    Returns:
        A value in [-1, 1]; NaN for fewer than two pairs or when one side is constant.

    Raises:
        ValueError: As for :func:`measure_agreement`.
    """
    prediction, reference = _check_pairs(prediction, reference)
    if prediction.size < 2 or np.ptp(prediction) == 0 or np.ptp(reference) == 0:
        return math.nan
    return float(np.corrcoef(prediction, reference)[0, 1])


def concordance_correlation(prediction: np.ndarray, reference: np.ndarray) -> float:
    """Compute Lin's concordance correlation coefficient, 2 cov / (var + var + squared difference of the means).

    It is Pearson's r lowered by every departure from the line of identity. Variances and covariance are divided by n,
    as in Lin, Biometrics 1989.

    Args:
        prediction: (N,) predicted values.
        reference: (N,) reference values.

    Returns:
        A value in [-1, 1]; 0 when one side is constant, NaN for fewer than two pairs or when all values are the same.

    Raises:
        ValueError: As for :func:`measure_agreement`.
    """
    prediction, reference = _check_pairs(prediction, reference)
    if prediction.size < 2 or np.ptp(np.concatenate((prediction, reference))) == 0:
        return math.nan
    covariance = np.mean((prediction - prediction.mean()) * (reference - reference.mean()))
    spread = prediction.var() + reference.var() + (prediction.mean() - reference.mean()) ** 2
    return float(2.0 * covariance / spread)


def intraclass_correlation(ratings: np.ndarray) -> float:
    """Compute ICC(2,1): two-way random effects, absolute agreement, a single rating.

    With the mean squares of a two-way analysis of variance without replication, between targets (B), between raters
    (J) and residual (E): (B - E) / (B + (k - 1) E + k (J - E) / n), as in Shrout and Fleiss, Psychol. Bull. 1979.

    Args:
        ratings: (n, k) values of n targets by k raters, for example (prediction, reference).

    Returns:
        A value up to 1, negative when raters differ more than targets do; NaN for fewer than two targets, when all
        ratings are the same, and when the denominator is 0, as in two targets whose ratings are exchanged.

    Raises:
        ValueError: If the ratings have not two axes with at least two raters or are not all finite.
    """
    ratings = np.asarray(ratings, np.float64)
    if ratings.ndim != 2 or ratings.shape[1] < 2:
        raise ValueError(f"ratings must have the axes (targets, raters) with two or more raters, got {ratings.shape}")
    if not np.isfinite(ratings).all():
        raise ValueError("ratings must be finite")
    targets, raters = ratings.shape
    if targets < 2 or np.ptp(ratings) == 0:
        return math.nan
    target_effects = ratings.mean(axis=1, keepdims=True) - ratings.mean()  # (n, 1)
    rater_effects = ratings.mean(axis=0, keepdims=True) - ratings.mean()  # (1, k)
    residuals = ratings - ratings.mean() - target_effects - rater_effects
    between_targets = raters * np.sum(target_effects**2) / (targets - 1)
    between_raters = targets * np.sum(rater_effects**2) / (raters - 1)
    residual = np.sum(residuals**2) / ((targets - 1) * (raters - 1))
    spread = between_targets + (raters - 1) * residual + raters * (between_raters - residual) / targets
    return float((between_targets - residual) / spread) if spread > 0 else math.nan


def _check_pairs(prediction: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both sides as float64, or raise ValueError unless they are finite and of one shape (N,)."""
    prediction, reference = np.asarray(prediction, np.float64), np.asarray(reference, np.float64)
    if prediction.ndim != 1 or prediction.shape != reference.shape:
        raise ValueError(
            f"prediction and reference must have one shape (N,), got {prediction.shape} and {reference.shape}"
        )
    for name, values in (("prediction", prediction), ("reference", reference)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got {np.count_nonzero(~np.isfinite(values))} values that are not")
    return prediction, reference
