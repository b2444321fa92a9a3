"""What stands on the page about one study, ready to be laid out: texts, charts and the film."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.report.charts import Line, curve_chart
from nnunet_temporal.report.cohort import StudySources
from nnunet_temporal.report.colours import colour_places
from nnunet_temporal.report.confidence import read_confidence
from nnunet_temporal.report.curves import Curve, measure_curves
from nnunet_temporal.report.film import Film, make_film
from nnunet_temporal.report.overlay_movie import Painter
from nnunet_temporal.report.quality_flags import Flag, flag_study
from nnunet_temporal.report.segmented_study import SegmentedStack, SegmentedStudy
from nnunet_temporal.report.stills import make_stills
from nnunet_temporal.report.study_figures import Compared, StudyFigures, measure_study_figures

_SMALL_BUDGET_BYTES = 120_000
"""A page of about a hundred studies; their stills are small, too."""
MISSING = "\u2013"
_METHODS = {
    "slice_summation": "the sum of the slices' areas times their distance",
    "simpson_biplane": "Simpson's rule in two apical views",
    "area": "the area of the left ventricle, for want of distances between slices; so there are no volumes",
    "": "nothing: there is no left ventricle, or no ED and ES",
}
_SOURCES = {
    "manifest": "the manifest",
    "labelled_frames": "the frames that the expert drew",
    "reference_curve": "the expert's curve",
    "predicted_curve": "the predicted curve: the largest and the smallest ventricle",
    "unknown": "nowhere: they are not known",
}


@dataclass(frozen=True)
class StudyContent:
    """One study on the page.

    Attributes:
        name: Its name.
        figures: Its figures.
        flags: What was flagged.
        layout: What the template is filled with.
    """

    name: str
    figures: StudyFigures
    flags: list[Flag]
    layout: dict[str, Any]


def describe_study(
    study: SegmentedStudy, sources: StudySources, labels: LabelScheme, budget_bytes: int
) -> StudyContent:
    """Measure a study, look for what is wrong with it, and make its pictures.

    Args:
        study: The study.
        sources: Its files.
        labels: The labels of the dataset.
        budget_bytes: What its film may take in the page.

    Returns:
        Its part of the page.

    Raises:
        InputError: A file of confidences does not fit.
    """
    curves = [measure_curves(stack, labels) for stack in study.stacks]
    figures = measure_study_figures(study, curves, labels)
    confidences = [
        read_confidence(files.masks[0].parent / files.name, files.sequences, stack.stack.prediction)
        for files, stack in zip(sources.stacks, study.stacks, strict=True)
    ]
    flags = flag_study(study.stacks, confidences, figures, labels)
    films = [make_film(stack, labels, budget_bytes // len(study.stacks)) for stack in study.stacks]
    is_sure = any(confidence is not None for confidence in confidences)
    layout = {
        "name": study.name,
        "cells": _cells(figures, flags),
        "figures": _headline(figures),
        "stacks": [
            _stack(stack, of_stack, labels, small=budget_bytes < _SMALL_BUDGET_BYTES)
            for stack, of_stack in zip(study.stacks, curves, strict=True)
        ],
        "flags": [_flag(flag, study.stacks) for flag in flags],
        "unflagged": "" if is_sure else "; how sure the model was is not known",
        "notes": _notes(study, figures, films, is_sure),
        "film": json.dumps(
            [_film(place, study, film, flags) for place, film in enumerate(films)], separators=(",", ":")
        ),
    }
    return StudyContent(study.name, figures, flags, layout)


def number(value: float, digits: int = 0) -> str:
    """Return a number as text; a dash where there is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else MISSING


def _cells(figures: StudyFigures, flags: Sequence[Flag]) -> list[dict[str, Any]]:
    """Return the cells of the study's row in the table, after its name; see ``page.COLUMNS``."""
    values = [
        (figures.ef_percent.predicted, 0), (figures.ef_percent.truth, 0), (figures.edv_ml.predicted, 0),
        (figures.esv_ml.predicted, 0), (figures.mean_dice, 3),
    ]  # fmt: skip
    cells = [{"value": f"{v:.6g}" if math.isfinite(v) else "", "text": number(v, d), "warns": False} for v, d in values]
    return [*cells, {"value": len(flags), "text": len(flags), "warns": bool(flags)}]


def _headline(figures: StudyFigures) -> list[dict[str, Any]]:
    """Return the numbers above the movie; what does not exist is left out."""
    is_area = math.isfinite(figures.area_change_percent.predicted)
    main = ("Area change", figures.area_change_percent) if is_area else ("Ejection fraction", figures.ef_percent)
    facts = [_fact(*main, "%", main=True)]
    if math.isfinite(figures.edv_ml.predicted):
        facts += [_fact("EDV", figures.edv_ml, "ml"), _fact("ESV", figures.esv_ml, "ml")]
    facts += [_fact(f"Dice {label}", Compared(value), digits=3) for label, value in figures.dice.items()]
    if math.isfinite(figures.roughness_percent):
        facts.append(_fact("Area roughness", Compared(figures.roughness_percent), "%", digits=1))
    return facts


def _fact(name: str, compared: Compared, unit: str = "", digits: int = 0, *, main: bool = False) -> dict[str, Any]:
    """Return one number with what the expert found; a main one is set larger."""
    predicted, truth = (
        f"{number(value, digits)} {unit}".rstrip() if math.isfinite(value) else ""
        for value in (compared.predicted, compared.truth)
    )
    return {"name": name, "value": predicted or MISSING, "expert": truth, "main": main}


def _stack(stack: SegmentedStack, curves: Sequence[Curve], labels: LabelScheme, *, small: bool) -> dict[str, Any]:
    """Return the stills and charts of a stack."""
    stills = make_stills(Painter(stack, curves[0], labels), small=small)
    return {"name": stack.name, "stills": stills, "charts": _charts(stack, curves, labels)}


def _charts(stack: SegmentedStack, curves: Sequence[Curve], labels: LabelScheme) -> list[dict[str, Any]]:
    """Return one chart per quantity and unit."""
    colours = colour_places(labels)
    phases = {stack.phases.name(frame): frame for frame in (stack.phases.ed, stack.phases.es) if frame is not None}
    charts = []
    for quantity, unit in dict.fromkeys((curve.quantity, curve.unit) for curve in curves):
        shown = [curve for curve in curves if (curve.quantity, curve.unit) == (quantity, unit)]
        lines = [Line(c.structure, f"c{colours[c.structure]}", c.values, c.truth) for c in shown]
        slices = stack.phases.slices
        part = (
            f" of {int(slices.sum())} of {len(slices)} slices, those that the expert drew" if not slices.all() else ""
        )
        charts.append(
            {
                "svg": curve_chart(lines, unit, stack.frame_interval_s, phases),
                "names": [{"text": line.name, "colour": line.colour} for line in lines],
                "has_truth": any(line.truth for line in lines),
                "note": f"{quantity}{part}",
            }
        )
    return charts


def _flag(flag: Flag, stacks: Sequence[SegmentedStack]) -> dict[str, Any]:
    """Return a line of the list of flags."""
    where = ""
    if flag.stack is not None and flag.slice is not None:
        view = f"{stacks[flag.stack].name}, " if len(stacks) > 1 else ""
        entry = stacks[flag.stack].stack.sequences[flag.slice]
        where = f" ({view}{'whole image' if entry.slice is None else f'slice {entry.slice}'})"
    frames = frame_ranges(flag.frames)
    return {
        "title": flag.title,
        "where": where,
        "detail": flag.detail,
        "named": f"frame{'s' if len(flag.frames) > 1 else ''} {frames}" if frames else "",
        "stack": flag.stack if flag.stack is not None else "",
        "slice": flag.slice if flag.slice is not None else "",
        "frames": " ".join(map(str, flag.frames)),
    }


def frame_ranges(frames: Sequence[int]) -> str:
    """Write increasing frames as "3, 7-9"."""
    runs: list[list[int]] = []
    for frame in frames:
        if runs and frame == runs[-1][-1] + 1:
            runs[-1].append(frame)
        else:
            runs.append([frame])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}\u2013{run[-1]}" for run in runs)


def _film(place: int, study: SegmentedStudy, film: Film, flags: Sequence[Flag]) -> dict[str, Any]:
    """Return what the viewer is given."""
    stack = study.stacks[place]
    entries = stack.stack.sequences
    interval_s = stack.frame_interval_s
    return {
        "name": stack.name,
        "n": stack.n_frames,
        "ms": None if interval_s is None else 1000 * interval_s,
        "ed": stack.phases.ed,
        "es": stack.phases.es,
        "slices": [(entry.view or "") if entry.slice is None else f"z{entry.slice}" for entry in entries],
        "box": film.box.size,
        "columns": film.columns,
        "panel": film.panel_px,
        "frames": film.frames,
        "pictures": film.pictures,
        "outlines": [json.loads(text) for text in film.outlines],
        "truth": {frame: json.loads(text) for frame, text in film.truth.items()},
        "flags": [
            {"title": flag.title, "slice": flag.slice, "frames": flag.frames}
            for flag in flags
            if flag.stack == place and flag.frames
        ],
    }


def _notes(study: SegmentedStudy, figures: StudyFigures, films: Sequence[Film], is_sure: bool) -> list[str]:
    """Return the small print."""
    method = _METHODS.get(figures.method, "Simpson's rule in one apical view")
    notes = [f"Volumes by {method}. ED and ES from {_SOURCES.get(figures.phase_source, figures.phase_source)}."]
    if math.isfinite(figures.ef_percent.predicted) and not math.isfinite(figures.edv_ml.predicted):
        notes.append(
            "The size of a pixel is not known, so there are no millilitres. The ejection fraction needs none where "
            "pixels are square."
        )
    if any(stack.drawn.any() for stack in study.stacks):
        notes.append("Dice: mean over the frames that the expert drew, each over the slices drawn there.")
    notes.append("Area roughness: mean second difference of the areas over their mean; lower is smoother.")
    if not is_sure:
        notes.append("How sure the model was is not known: 'nnunet_temporal predict' records it.")
    for stack, film in zip(study.stacks, films, strict=True):
        if len(film.frames) < stack.n_frames:
            notes.append(
                f"{stack.name}: {len(film.frames)} of {stack.n_frames} frames are shown, to keep the page small."
            )
    return notes
