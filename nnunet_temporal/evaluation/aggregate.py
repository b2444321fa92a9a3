"""From tables to figures: means with intervals, agreement of volumes, paired comparison of two predictions."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict

import numpy as np

from nnunet_temporal.evaluation.frame_rows import Row
from nnunet_temporal.evaluation.measure import Measurements
from nnunet_temporal.evaluation.options import Options
from nnunet_temporal.metrics.agreement import measure_agreement
from nnunet_temporal.metrics.bootstrap import bootstrap_mean, compare_paired

Summary = dict[str, dict[str, dict[str, dict[str, float]]]]

TABLES = ("frames", "sequences", "studies")
_KEYS = {"frames": ("case", "frame", "label"), "sequences": ("case", "label"), "studies": ("study", "label")}
# Columns that say what a row is about.
_DESCRIPTIONS = {"frame", "frames", "labelled", "labelled_frames", "slices", "compared_slices"}
_QUANTITIES = ("edv", "esv", "sv", "ef", "mass")


def summarise(measured: Measurements, options: Options) -> Summary:
    """Average every figure of every structure, with an interval from resampled studies.

    Args:
        measured: The tables.
        options: Seed and number of resamples.

    Returns:
        Table, structure and column to mean, interval, number of items and of studies averaged, and the number of
        infinite values that could not be: structures missing on one side.
    """
    summary: Summary = {}
    for table in TABLES:
        rows: list[Row] = getattr(measured, table)
        summary[table] = {}
        for label, group in _by_label(rows).items():
            studies = [str(row["study"]) for row in group]
            summary[table][label] = {}
            for column in numeric_columns(group):
                values, missing = _finite(_values(group, column))
                if missing or not np.isnan(values).all():
                    mean = bootstrap_mean(values, studies, resamples=options.resamples, seed=options.seed)
                    summary[table][label][column] = {**asdict(mean), "missing": missing}
    return summary


def agreement(measured: Measurements) -> dict[str, dict[str, dict[str, float]]]:
    """Compare predicted with reference volumes, ejection fractions and masses of all studies.

    Returns:
        Structure and quantity (with its unit) to the measures of agreement, and ``left_out``: the studies in which one
        side could not be measured though the quantity belongs to the study.
    """
    result: dict[str, dict[str, dict[str, float]]] = {}
    for label, rows in _by_label(measured.studies).items():
        for column in numeric_columns(rows):
            quantity, side, unit = (*column.split("_"), "", "")[:3]
            if quantity not in _QUANTITIES or side != "predicted":
                continue
            with_quantity = [row for row in rows if column in row]
            predicted = _values(with_quantity, column)
            reference = _values(with_quantity, f"{quantity}_reference_{unit}")
            usable = np.isfinite(predicted) & np.isfinite(reference)
            measures = asdict(measure_agreement(predicted[usable], reference[usable]))
            measures["left_out"] = int(np.count_nonzero(~usable))
            result.setdefault(label, {})[f"{quantity}_{unit}"] = measures
    return result


def compare(first: Measurements, second: Measurements, options: Options) -> list[Row]:
    """Compare two predictions of the same studies, figure by figure.

    Infinite values cannot be averaged: these items are left out of the difference and counted for each side. Of
    differences from the reference (volumes, ejection fractions) the sizes are compared.

    Args:
        first: The tables of the first prediction.
        second: Those of the second one.
        options: Seed and number of resamples.

    Returns:
        One row per table, structure and column: the mean difference (first minus second) with its interval, p-value,
        the means of both, and what was left out.
    """
    result: list[Row] = []
    for table in TABLES:
        others = {_key(row, table): row for row in getattr(second, table)}
        rows = [row for row in getattr(first, table) if _key(row, table) in others]
        for label, group in _by_label(rows).items():
            partners = [others[_key(row, table)] for row in group]
            for column in numeric_columns(group):
                row = {} if "reference" in column else _compare_column(group, partners, column, options)
                if row:
                    result.append({"table": table, "label": label, **row})
    return result


def _compare_column(rows: Sequence[Row], partners: Sequence[Row], column: str, options: Options) -> Row:
    """Compare one column of the first prediction's rows with that of the second's; empty where neither has figures."""
    is_error = "_difference_" in column
    values, missing = _finite(_values(rows, column, absolute=is_error))
    other_values, other_missing = _finite(_values(partners, column, absolute=is_error))
    studies = [str(row["study"]) for row in rows]
    paired = compare_paired(values, other_values, studies, resamples=options.resamples, seed=options.seed)
    if not paired.difference.items and not missing + other_missing:
        return {}
    both = ~np.isnan(values) & ~np.isnan(other_values)
    return {
        "metric": column.replace("_difference_", "_absolute_difference_"),
        "first": _mean(values[both]),
        "second": _mean(other_values[both]),
        "difference": paired.difference.mean,
        "lower": paired.difference.lower,
        "upper": paired.difference.upper,
        "p_value": paired.p_value,
        "items": paired.difference.items,
        "studies": paired.difference.studies,
        "unpaired": paired.unpaired,
        "missing_first": missing,
        "missing_second": other_missing,
    }


def numeric_columns(rows: Sequence[Row]) -> list[str]:
    """Return the columns that hold figures, in the order in which they first appear."""
    columns = dict.fromkeys(column for row in rows for column, value in row.items() if not isinstance(value, str))
    return [column for column in columns if column not in _DESCRIPTIONS]


def _by_label(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """Group rows by structure."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(str(row["label"]), []).append(row)
    return groups


def _key(row: Row, table: str) -> tuple[str | int | float, ...]:
    """Return what identifies a row in its table."""
    return tuple(row[column] for column in _KEYS[table])


def _values(rows: Sequence[Row], column: str, *, absolute: bool = False) -> np.ndarray:
    """Return a column as (N,) float64, NaN where a row has no such figure."""
    values = np.array([row.get(column, math.nan) for row in rows], np.float64)
    return np.abs(values) if absolute else values


def _finite(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the values with NaN for infinite ones, and the number of these."""
    infinite = np.isinf(values)
    return np.where(infinite, math.nan, values), int(np.count_nonzero(infinite))


def _mean(values: np.ndarray) -> float:
    """Return the mean, NaN for no values."""
    return float(values.mean()) if values.size else math.nan
