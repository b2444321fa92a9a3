"""One row of figures per structure of a study: its phases, its volumes, and its movie as a whole."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from nnunet_temporal.evaluation.frame_rows import Row
from nnunet_temporal.evaluation.label_scheme import LabelScheme, structure_mask
from nnunet_temporal.evaluation.options import Options
from nnunet_temporal.evaluation.phase_frames import PhaseFrames, phase_errors
from nnunet_temporal.evaluation.stack import Stack
from nnunet_temporal.evaluation.volumes import (
    SLICE_SUMMATION,
    apical_volume_columns,
    slice_volume_rows,
    volume_method,
)
from nnunet_temporal.metrics.overlap import dice
from nnunet_temporal.metrics.surface import surface_distances
from nnunet_temporal.metrics.temporal import (
    area_roughness_percent,
    cyclicity_error_percent,
    mass_variation_percent,
    pixel_flicker_percent,
    temporal_dice_gain,
)


def measure_study_rows(
    study: str, stacks: Sequence[Stack], phases: Sequence[PhaseFrames], labels: LabelScheme, options: Options
) -> list[Row]:
    """Measure every structure of a study.

    In a stack of slices Dice and distances at ED and ES are those of the 3D masks; in a study of views they are the
    means over the views. Volumes and the temporal figures use the slices labelled at both phases.

    Args:
        study: Name of the study.
        stacks: Its stacks. Beside one with several slices, others (long-axis views) enter the other tables only.
        phases: ED and ES of each stack.
        labels: The labels of the dataset.
        options: What to measure.

    Returns:
        One row per structure, in the order of the labels.
    """
    method, places = volume_method(stacks, phases)
    measured = [stacks[place] for place in places], [phases[place] for place in places]
    volumes = _volumes(method, *measured, labels, options)
    main = places if method == SLICE_SUMMATION else _main_places(stacks)
    shown = [(stacks[place], phases[place]) for place in main]
    common: Row = {
        "phase_source": " ".join(sorted({phase.source for _, phase in shown})),
        "slices": sum(len(stack.sequences) for stack, _ in shown),
        "compared_slices": sum(int(phase.slices.sum()) for _, phase in shown),
    }
    rows = []
    for name, values in labels.structures().items():
        row: Row = {"study": study, "label": name, "volume_method": method if name in volumes else "", **common}
        row |= _mean_of_rows(_phase_scores(stack, phase, values) for stack, phase in shown)
        row |= volumes.get(name, {})
        if name == labels.roles.get("LV"):
            row |= _mean_of_rows(phase_errors(stack, phase, labels) for stack, phase in shown)
        is_wall = name == labels.roles.get("MYO")
        row |= _mean_of_rows(_movie_scores(stack, phase, values, is_wall) for stack, phase in shown)
        rows.append(row)
    return rows


def _volumes(
    method: str, stacks: Sequence[Stack], phases: Sequence[PhaseFrames], labels: LabelScheme, options: Options
) -> dict[str, Row]:
    """Return label name to its volumes, by the method that was chosen for these stacks."""
    if method == SLICE_SUMMATION:
        return slice_volume_rows(stacks[0], phases[0], labels)
    if method and "LV" in labels.roles:
        return {labels.roles["LV"]: apical_volume_columns(stacks, phases, labels, options)}
    return {}


def _main_places(stacks: Sequence[Stack]) -> list[int]:
    """Return the place of the first stack with several slices; without one, the places of all stacks."""
    several = [place for place, stack in enumerate(stacks) if len(stack.sequences) > 1]
    return several[:1] or list(range(len(stacks)))


def _phase_scores(stack: Stack, phases: PhaseFrames, values: tuple[int, ...]) -> dict[str, float]:
    """Return Dice and surface distances of one structure at ED and at ES, over the slices labelled there."""
    scores = {}
    for name, frame in (("ed", phases.ed), ("es", phases.es)):
        if frame is None or not stack.labelled[frame].any():
            continue
        prediction, reference = (
            structure_mask(masks[frame], values) for masks in (stack.scored_prediction, stack.reference)
        )
        scores[f"dice_{name}"] = dice(prediction, reference)
        spacing = _spacing_3d(stack)
        if spacing is None:
            continue
        if len(stack.sequences) == 1:
            prediction, reference, spacing = prediction[0], reference[0], spacing[1:]
        surfaces = surface_distances(prediction, reference, spacing)
        scores[f"hd_{name}_{stack.unit}"] = surfaces.hausdorff()
        scores[f"hd95_{name}_{stack.unit}"] = surfaces.hausdorff95()
        scores[f"assd_{name}_{stack.unit}"] = surfaces.assd()
    return scores


def _spacing_3d(stack: Stack) -> tuple[float, ...] | None:
    """Return the spacing of (Z, Y, X); None where slices are missing in between, or distances are unknown."""
    if len(stack.sequences) == 1:
        return (1.0, *stack.pixel_spacing)
    slices = np.array([-1 if sequence.slice is None else sequence.slice for sequence in stack.sequences])
    if stack.slice_mm is None or stack.pixel_mm is None or (np.diff(slices) != 1).any():
        return None
    return (stack.slice_mm, *stack.pixel_mm)


def _movie_scores(stack: Stack, phases: PhaseFrames, values: tuple[int, ...], is_wall: bool) -> dict[str, float]:
    """Return how one structure moves in the compared slices; of the reference only where it is labelled throughout."""
    cyclic = stack.first.cyclic
    sides = {"predicted": structure_mask(stack.prediction[:, phases.slices], values)}
    if stack.labelled[:, phases.slices].all():
        sides["reference"] = structure_mask(stack.reference[:, phases.slices], values)
    scores = {}
    for side, masks in sides.items():
        areas = masks.sum(axis=(2, 3))  # (T, Z)
        scores[f"area_roughness_{side}_percent"] = area_roughness_percent(areas, cyclic=cyclic)
        scores[f"pixel_flicker_{side}_percent"] = pixel_flicker_percent(masks, cyclic=cyclic)
        if cyclic and len(masks) > 1:
            scores[f"cyclicity_error_{side}_percent"] = cyclicity_error_percent(areas.sum(axis=1))
        if is_wall and masks.shape[1] > 1 and len(masks) > 1:
            scores[f"mass_variation_{side}_percent"] = mass_variation_percent(areas.sum(axis=1))
    if "reference" in sides:
        scores["temporal_dice_gain"] = temporal_dice_gain(sides["predicted"], sides["reference"], cyclic=cyclic)
    return scores


def _mean_of_rows(rows: Iterable[dict[str, float]]) -> Row:
    """Return the mean of each column over the rows that have a number there; infinite if one of them is."""
    columns: dict[str, list[float]] = {}
    for row in rows:
        for name, value in row.items():
            columns.setdefault(name, [])
            if not math.isnan(value):
                columns[name].append(value)
    return {name: sum(values) / len(values) if values else math.nan for name, values in columns.items()}
