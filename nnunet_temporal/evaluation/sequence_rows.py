"""One row of figures per structure of a sequence: means over its frames, and how they follow each other in time."""

import math
from collections.abc import Iterable

import numpy as np

from nnunet_temporal.evaluation.frame_rows import Row, StructureMovie
from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.evaluation.options import POOLED_DICE, Options
from nnunet_temporal.evaluation.phase_frames import PhaseFrames, frames_per_cycle
from nnunet_temporal.evaluation.stack import Stack
from nnunet_temporal.metrics.overlap import pooled_dice
from nnunet_temporal.metrics.shape_curves import measure_shape_curves
from nnunet_temporal.metrics.temporal import (
    area_change_against_truth,
    area_roughness_percent,
    boundary_jitter,
    cyclicity_error_percent,
    pixel_flicker_percent,
    temporal_dice_gain,
)
from nnunet_temporal.metrics.temporal_consistency import (
    consistency_thresholds,
    judge_consistency,
    neighbour_interpolation_errors,
)

_AVERAGED = ("dice", "iou", "hd", "hd95", "assd", "masd", "nsd")


def measure_sequence(
    stack: Stack,
    movie: StructureMovie,
    frame_rows: list[Row],
    phases: PhaseFrames,
    labels: LabelScheme,
    options: Options,
) -> Row:
    """Measure one structure of one sequence.

    Means run over the labelled frames; for distances over the finite ones, with the number of frames in which the
    structure is missing on one side beside them. Temporal figures of the prediction use all frames, those of the
    reference are there only when every frame is labelled.

    Args:
        stack: The stack the sequence belongs to.
        movie: The structure in the sequence.
        frame_rows: Its rows from :func:`~nnunet_temporal.evaluation.frame_rows.measure_frames`.
        phases: ED and ES of the stack.
        labels: The labels of the dataset.
        options: What to measure.
    """
    row: Row = {"case": movie.sequence.case, "study": movie.sequence.study, "label": movie.name}
    row |= {"frames": stack.n_frames, "labelled_frames": int(movie.labelled.sum()), **_means(frame_rows)}
    if POOLED_DICE in options.compat and movie.labelled.any():
        row["dice_pooled"] = pooled_dice(movie.counts().values())
    if movie.labelled.sum() >= 2:
        areas = (masks[movie.labelled].sum(axis=(1, 2)) for masks in (movie.scored, movie.reference))
        row["area_change_against_truth"] = area_change_against_truth(*areas)
    for side in ("predicted", "reference") if movie.is_dense else ("predicted",):
        masks = movie.prediction if side == "predicted" else movie.reference
        row |= _restlessness(stack, masks, side)
        if movie.name == labels.roles.get("LV"):
            row |= _consistency(stack, movie, side, labels, frames_per_cycle(stack, phases))
    if movie.is_dense:
        row["temporal_dice_gain"] = temporal_dice_gain(movie.prediction, movie.reference, cyclic=stack.first.cyclic)
    return row


def finite_mean(values: Iterable[float]) -> tuple[float, int]:
    """Return the mean of the finite values, NaN without any, and the number of infinite ones."""
    array = np.fromiter(values, np.float64)
    finite = array[np.isfinite(array)]
    return (float(finite.mean()) if finite.size else math.nan), int(np.count_nonzero(np.isinf(array)))


def _means(frame_rows: list[Row]) -> Row:
    """Return the means over the labelled frames, and in how many the structure is missing on one side."""
    scored = [row for row in frame_rows if "dice" in row]
    if not scored:
        return {}
    means: Row = {}
    for column in scored[0]:
        if column.split("_")[0] in _AVERAGED:
            means[column], infinite = finite_mean(float(row[column]) for row in scored)
            if column.startswith("hd_"):
                means["missing_frames"] = infinite
    return means


def _restlessness(stack: Stack, masks: np.ndarray, side: str) -> Row:
    """Return what a movie (T, Y, X) tells about flicker without knowing the truth."""
    cyclic = stack.first.cyclic
    areas = masks.sum(axis=(1, 2))
    jitter, missing = finite_mean(boundary_jitter(masks, stack.pixel_spacing, cyclic=cyclic))
    figures: Row = {
        f"area_roughness_{side}_percent": area_roughness_percent(areas, cyclic=cyclic),
        f"pixel_flicker_{side}_percent": pixel_flicker_percent(masks, cyclic=cyclic),
        f"boundary_jitter_{side}_{stack.unit}": jitter,
        f"boundary_jitter_missing_{side}_frames": missing,
    }
    if cyclic and len(masks) > 1:
        figures[f"cyclicity_error_{side}_percent"] = cyclicity_error_percent(areas)
    return figures


def _consistency(stack: Stack, movie: StructureMovie, side: str, labels: LabelScheme, cycle: float) -> Row:
    """Return the share of frames that do not lie between their neighbours; nothing without mm or a known rate."""
    if stack.pixel_mm is None or math.isnan(cycle):
        return {}
    masks = stack.prediction if side == "predicted" else stack.reference
    slice_labels = masks[:, stack.sequences.index(movie.sequence)]
    curves = measure_shape_curves(
        movie.prediction if side == "predicted" else movie.reference,
        stack.pixel_mm,
        myocardium=labels.role_mask(slice_labels, "MYO"),
        atrium=labels.role_mask(slice_labels, "LA") if stack.is_apical else None,
        apical=stack.is_apical,
    )
    errors = neighbour_interpolation_errors(curves, cyclic=stack.first.cyclic)
    judged = judge_consistency(errors, consistency_thresholds(curves, stack.pixel_mm, cycle))
    figures: Row = {f"inconsistent_{side}_share": judged.any_inconsistent_share}
    for attribute, share in judged.inconsistent_share.items():
        name = attribute.removesuffix("_mm2").removesuffix("_mm").removesuffix("_degrees")
        figures[f"inconsistent_{name}_{side}_share"] = share
        figures[f"judged_{name}_{side}_share"] = judged.judged_share[attribute]
        figures[f"error_to_threshold_{name}_{side}_ratio"] = judged.error_to_threshold[attribute]
    return figures
