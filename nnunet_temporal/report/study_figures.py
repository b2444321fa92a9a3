"""What a reader wants to know of a study at a glance: volumes, ejection fraction, overlap, flicker."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.evaluation.frame_rows import Row
from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.evaluation.options import Options
from nnunet_temporal.evaluation.study_rows import measure_study_rows
from nnunet_temporal.evaluation.volumes import volume_method
from nnunet_temporal.metrics.clinical import ejection_fraction_percent
from nnunet_temporal.metrics.overlap import dice
from nnunet_temporal.report.curves import AREA, Curve
from nnunet_temporal.report.segmented_study import SegmentedStack, SegmentedStudy


@dataclass(frozen=True)
class Compared:
    """One quantity of the prediction, and of the expert over the same slices; NaN where there is none."""

    predicted: float = math.nan
    truth: float = math.nan


@dataclass(frozen=True)
class StudyFigures:
    """The figures of one study; those that do not exist are NaN.

    Attributes:
        edv_ml: Volume of the left ventricle at ED.
        esv_ml: Volume of the left ventricle at ES.
        ef_percent: Ejection fraction of the left ventricle.
        area_change_percent: Where there are no volumes, how much smaller its area is at ES than at ED.
        method: How volumes were found, in the words of ``nnunet_temporal evaluate``; ``area`` without volumes, empty
            without a left ventricle or without ED and ES.
        phase_source: Where ED and ES are from: ``manifest``, ``labelled_frames``, ``reference_curve`` or, where no
            expert drew them, ``predicted_curve``.
        phases: Frames (ED, ES) of the stack or view that volumes, or else the area change, are of; None where they are
            not known, and for two views, each of which has its own.
        dice: Label name to its Dice over all drawn frames, the mean over frames; empty without an expert.
        roughness_percent: Area roughness of the left ventricle, or of the first label.
        rows: The study's rows in the tables of ``nnunet_temporal evaluate``. Without an expert the prediction stands in
            for one, and only what concerns the prediction alone means anything.
    """

    edv_ml: Compared
    esv_ml: Compared
    ef_percent: Compared
    area_change_percent: Compared
    method: str
    phase_source: str
    phases: tuple[int, int] | None
    dice: dict[str, float]
    roughness_percent: float
    rows: list[Row]

    @property
    def mean_dice(self) -> float:
        """Mean over the labels; NaN without an expert."""
        values = [value for value in self.dice.values() if not math.isnan(value)]
        return sum(values) / len(values) if values else math.nan


def measure_study_figures(
    study: SegmentedStudy, curves: Sequence[Sequence[Curve]], labels: LabelScheme
) -> StudyFigures:
    """Measure a study.

    Args:
        study: The study.
        curves: Of each of its stacks, one per label.
        labels: The labels of the dataset.

    Returns:
        The figures.
    """
    stacks = study.stacks
    rows = measure_study_rows(
        study.name, [stack.stack for stack in stacks], [stack.phases for stack in stacks], labels, Options()
    )
    ventricle = labels.roles.get("LV")
    row = next((row for row in rows if row["label"] == ventricle), rows[0])
    # With an expert in some views only, the prediction stands in for the others.
    compared = all(stack.is_compared for stack in stacks)
    has_volumes = ventricle is not None and bool(row["volume_method"])
    volumes = row if has_volumes else {}
    area_change, phases = Compared(), stacks[0].phases.pair
    if has_volumes:
        _, measured = volume_method([stack.stack for stack in stacks], [stack.phases for stack in stacks])
        phases = stacks[measured[0]].phases.pair if len(measured) == 1 else None
    elif ventricle is not None:
        area_change, phases = _area_change(stacks, curves, ventricle)
    method = str(row["volume_method"]) if has_volumes else "" if math.isnan(area_change.predicted) else AREA
    source = str(row["phase_source"])
    return StudyFigures(
        _column(volumes, "edv", "ml", compared),
        _column(volumes, "esv", "ml", compared),
        _column(volumes, "ef", "percent", compared),
        area_change,
        method,
        source if compared or source == "manifest" else source.replace("reference_curve", "predicted_curve"),
        phases,
        _dice_by_label(stacks, labels),
        float(row.get("area_roughness_predicted_percent", math.nan)),
        rows,
    )


def _column(row: Row, name: str, unit: str, compared: bool) -> Compared:
    """Take a quantity from a row of the table of studies."""
    predicted = float(row.get(f"{name}_predicted_{unit}", math.nan))
    return Compared(predicted, float(row.get(f"{name}_reference_{unit}", math.nan)) if compared else math.nan)


def _area_change(
    stacks: Sequence[SegmentedStack], curves: Sequence[Sequence[Curve]], ventricle: str
) -> tuple[Compared, tuple[int, int] | None]:
    """Return by how many percent the ventricle's area shrinks from ED to ES in the first stack with both, and these."""
    for stack, of_stack in zip(stacks, curves, strict=True):
        curve = next(curve for curve in of_stack if curve.structure == ventricle)
        if stack.phases.pair is None or curve.quantity != AREA:
            continue
        ed, es = stack.phases.pair
        truth = [curve.truth.get(frame, math.nan) for frame in (ed, es)]
        drawn = math.nan if any(map(math.isnan, truth)) else ejection_fraction_percent(*truth)
        return Compared(ejection_fraction_percent(curve.values[ed], curve.values[es]), drawn), (ed, es)
    return Compared(), None


def _dice_by_label(stacks: Sequence[SegmentedStack], labels: LabelScheme) -> dict[str, float]:
    """Return label name to the mean Dice of the drawn frames, each over its drawn slices."""
    scores = {}
    for name, value in labels.values.items():
        of_frames = [
            dice(stack.stack.prediction[frame, slices] == value, stack.truth[frame, slices] == value)
            for stack in stacks
            for frame, slices in enumerate(stack.drawn)
            if slices.any()
        ]
        measured = [score for score in of_frames if not math.isnan(score)]
        if of_frames:
            scores[name] = float(np.mean(measured)) if measured else math.nan
    return scores
