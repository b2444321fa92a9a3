"""What a reader should look at before trusting a study: frames and figures that hearts do not show."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.metrics.validity import ring_opening_share
from nnunet_temporal.report.segmented_study import SegmentedStack
from nnunet_temporal.report.study_figures import StudyFigures

# Chosen on real cine and echo so that experts' own masks raise hardly a flag; none is a clinical limit.
JUMP_SHARE = 0.15
"""A frame whose area misses the mean of its neighbours by more than this share of the slice's largest area flickers."""
FEWEST_PIXELS = 20
"""Jumps, parts and rings smaller than this are noise of the grid."""
OPEN_SHARE = 0.15
"""A ring of which more than this share of the cavity's outline is not covered by the wall is broken."""
LEAST_CONFIDENCE = 0.85
EF_RANGE_PERCENT = (5.0, 80.0)
EDV_RANGE_ML = (30.0, 450.0)
STROKE_VOLUME_GAP_PERCENT = 50.0
MASS_VARIATION_PERCENT = 15.0


@dataclass(frozen=True)
class Flag:
    """Something to look at.

    Attributes:
        title: What it is, in a word or two.
        detail: What was found, with the number and the limit.
        stack: Index of the stack of the study that it is about; None for a figure of the whole study.
        slice: Index of the slice in the stack; None where it is about all.
        frames: The frames to look at; empty for a figure.
    """

    title: str
    detail: str
    stack: int | None = None
    slice: int | None = None
    frames: tuple[int, ...] = ()


def flag_study(
    stacks: Sequence[SegmentedStack],
    confidences: Sequence[np.ndarray | None],
    figures: StudyFigures,
    labels: LabelScheme,
) -> list[Flag]:
    """Look for everything that may be wrong with a study.

    Args:
        stacks: Its stacks.
        confidences: Of each stack, (T, Z) in 0..1 or None where it is not known.
        figures: Its figures.
        labels: The labels of the dataset.

    Returns:
        The flags, figures first.
    """
    flags = list(_implausible(figures, labels))
    for place, (stack, confidence) in enumerate(zip(stacks, confidences, strict=True)):
        for z, entry in enumerate(stack.stack.sequences):
            masks = stack.stack.prediction[:, z]
            for title, detail, frames in (
                *_in_structures(masks, labels, stack.cyclic),
                *([] if entry.slice is None else _broken_ring(masks, labels)),
                *([] if confidence is None else _unsure(confidence[:, z])),
            ):
                flags.append(Flag(title, detail, place, z, frames))
    return flags


def _implausible(figures: StudyFigures, labels: LabelScheme) -> Iterator[Flag]:
    """Yield what no heart does, or only a rare one."""
    for name, value, (low, high), unit in (
        ("ejection fraction", figures.ef_percent.predicted, EF_RANGE_PERCENT, "%"),
        ("EDV", figures.edv_ml.predicted, EDV_RANGE_ML, "ml"),
    ):  # fmt: skip
        if not math.isnan(value) and not low <= value <= high:
            yield Flag(f"implausible {name}", f"{value:.0f} {unit}, usual are {low:.0f} to {high:.0f} {unit}")
    rows = {str(row["label"]): row for row in figures.rows}
    gap = _number(rows.get(labels.roles.get("LV", ""), {}), "sv_gap_to_rv_predicted_percent")
    if abs(gap) > STROKE_VOLUME_GAP_PERCENT:
        limit = f"more than {STROKE_VOLUME_GAP_PERCENT:.0f} %"
        yield Flag("unequal stroke volumes", f"the ventricles' stroke volumes differ by {gap:.0f} %, {limit}")
    mass = _number(rows.get(labels.roles.get("MYO", ""), {}), "mass_variation_predicted_percent")
    if mass > MASS_VARIATION_PERCENT:
        limit = f"more than {MASS_VARIATION_PERCENT:.0f} %"
        yield Flag("wall mass changes", f"the volume of the wall varies by {mass:.0f} % over the beat, {limit}")


def _in_structures(masks: np.ndarray, labels: LabelScheme, cyclic: bool) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield structures of a slice (T, Y, X) that jump in size or fall apart."""
    for name, value in labels.values.items():
        mask = masks == value
        areas = mask.sum(axis=(1, 2)).astype(np.float64)
        jumps = np.abs(jumps_of(areas, cyclic=cyclic))
        if frames := _frames((jumps > JUMP_SHARE * areas.max(initial=0)) & (jumps >= FEWEST_PIXELS)):
            worst = 100 * jumps.max() / areas.max()
            yield "flicker", f"the area of {name} jumps by up to {worst:.0f} % against its neighbours", frames
        if frames := _frames(np.array([_n_large_parts(frame) > 1 for frame in mask])):
            yield "several parts", f"{name} has more than one part", frames


def jumps_of(areas: np.ndarray, *, cyclic: bool) -> np.ndarray:
    """Compute by how much each frame misses the mean of its neighbours.

    Args:
        areas: (T,) in any unit.
        cyclic: Whether the first frame follows the last one; if not, the outer frames have none.

    Returns:
        (T,) in the same unit, 0 where a frame lacks a neighbour.
    """
    if len(areas) < 3:
        return np.zeros(len(areas))
    jumps = areas - (np.roll(areas, 1) + np.roll(areas, -1)) / 2
    if not cyclic:
        jumps[[0, -1]] = 0
    return jumps


def _n_large_parts(mask: np.ndarray) -> int:
    """Count the connected parts (Y, X) of at least ``FEWEST_PIXELS``; pixels that share a corner are connected."""
    parts, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    return int((np.bincount(parts.ravel())[1:] >= FEWEST_PIXELS).sum())


def _broken_ring(masks: np.ndarray, labels: LabelScheme) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield the frames of a short-axis slice (T, Y, X) in which the wall does not close around the cavity."""
    cavity, wall = labels.role_mask(masks, "LV"), labels.role_mask(masks, "MYO")
    if cavity is None or wall is None:
        return
    share = ring_opening_share(cavity, wall)
    large = (cavity.sum(axis=(1, 2)) >= FEWEST_PIXELS) & wall.any(axis=(1, 2))
    if frames := _frames((np.nan_to_num(share) > OPEN_SHARE) & large):
        yield "broken ring", f"the wall leaves up to {100 * share[list(frames)].max():.0f} % of the cavity open", frames


def _unsure(confidence: np.ndarray) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield the frames (T,) of a slice that the model was not sure of."""
    if frames := _frames(np.nan_to_num(confidence, nan=1.0) < LEAST_CONFIDENCE):
        least = np.nanmin(confidence)
        yield "low confidence", f"down to {least:.2f}, below {LEAST_CONFIDENCE}", frames


def _frames(found: np.ndarray) -> tuple[int, ...]:
    return tuple(np.flatnonzero(found).tolist())


def _number(row: dict[str, str | int | float], column: str) -> float:
    return float(row.get(column, math.nan))
