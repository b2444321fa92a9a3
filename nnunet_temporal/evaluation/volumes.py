"""Volumes of the ventricles at ED and ES, by slice summation in stacks and by Simpson's rule in apical views."""

import math
from collections.abc import Sequence

import numpy as np

from nnunet_temporal.evaluation.frame_rows import Row
from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.evaluation.options import CAMUS_SCRIPT, Options
from nnunet_temporal.evaluation.phase_frames import PhaseFrames
from nnunet_temporal.evaluation.stack import Stack
from nnunet_temporal.metrics.clinical import (
    compared_volumes_ml,
    ejection_fraction_percent,
    myocardial_mass_g,
    slice_heights_mm,
    stroke_volume_ml,
)
from nnunet_temporal.metrics.long_axis import ApicalShape, measure_apical_shape
from nnunet_temporal.metrics.simpson import (
    area_length_volume_ml,
    biplane_volume_ml,
    camus_script_volumes_ml,
    monoplane_volume_ml,
)
from nnunet_temporal.metrics.temporal import mass_mismatch_percent, stroke_volume_gap_percent

# Shapes of one view at (ED, ES).
_ViewShapes = tuple[ApicalShape, ApicalShape]

SLICE_SUMMATION, BIPLANE, MONOPLANE = "slice_summation", "simpson_biplane", "simpson_monoplane"


def volume_method(stacks: Sequence[Stack], phases: Sequence[PhaseFrames]) -> tuple[str, list[int]]:
    """Choose how the volumes of a study are computed.

    Args:
        stacks: The stacks of the study.
        phases: ED and ES of each.

    Returns:
        The method and the stacks it uses, as places in ``stacks``: a stack with at least two slices at known distances,
        else the apical views. Where of none of these the pixel spacing is known, one of them alone, 4CH if there is a
        choice: two need not be of one scale. Empty text and list when there is nothing of these, or ED and ES are not
        labelled.
    """
    measurable = [
        place
        for place, (stack, phase) in enumerate(zip(stacks, phases, strict=True))
        if phase.pair is not None and stack.labelled[list(phase.pair)].all(axis=0).any()
    ]
    for place in measurable:
        if stacks[place].positions_mm is not None and stacks[place].pixel_mm is not None:
            return SLICE_SUMMATION, [place]
    apical = [place for place in measurable if stacks[place].is_apical]
    in_mm = [place for place in apical if stacks[place].pixel_mm is not None]
    two_chamber, four_chamber = (
        [place for place in in_mm or apical if stacks[place].apical_view == view][:1] for view in ("2CH", "4CH")
    )
    if two_chamber and four_chamber and in_mm:
        return BIPLANE, two_chamber + four_chamber
    used = four_chamber or two_chamber
    return (f"{MONOPLANE}_{stacks[used[0]].apical_view}", used) if used else ("", [])


def slice_volume_rows(stack: Stack, phases: PhaseFrames, labels: LabelScheme) -> dict[str, Row]:
    """Measure ventricles and myocardial mass of a stack, reference and prediction over the same slices.

    Returns:
        Label name to its columns: volumes for LV and RV, mass for MYO.
    """
    rows: dict[str, Row] = {}
    millilitres = {role: _slice_volumes_ml(stack, phases, labels, role) for role in labels.roles}
    for role in {"LV", "RV"} & set(millilitres):
        rows[labels.roles[role]] = _ventricle_columns(*millilitres[role])
    if "MYO" in millilitres:
        predicted_ml, reference_ml = millilitres["MYO"]
        rows[labels.roles["MYO"]] = {
            **_compared("mass", "g", myocardial_mass_g(predicted_ml[0]), myocardial_mass_g(reference_ml[0])),
            "mass_mismatch_predicted_percent": mass_mismatch_percent(*predicted_ml),
            "mass_mismatch_reference_percent": mass_mismatch_percent(*reference_ml),
        }
    if {"LV", "RV"} <= set(millilitres):
        for side, place in (("predicted", 0), ("reference", 1)):
            left_ml, right_ml = (stroke_volume_ml(*millilitres[role][place]) for role in ("LV", "RV"))
            rows[labels.roles["LV"]][f"sv_gap_to_rv_{side}_percent"] = stroke_volume_gap_percent(left_ml, right_ml)
    return rows


def apical_volume_columns(
    stacks: Sequence[Stack], phases: Sequence[PhaseFrames], labels: LabelScheme, options: Options
) -> Row:
    """Measure the left ventricle in one or two apical views.

    Args:
        stacks: The views; two are 2CH and 4CH in this order.
        phases: ED and ES of each view.
        labels: The labels of the dataset.
        options: Whether to repeat the CAMUS script as well, which needs both views.

    Returns:
        The columns of the left ventricle; volumes are NaN where a shape could not be measured, with the reason. Of one
        view by area-length as well, which studies of the four-chamber view alone publish. Where the pixel spacing is
        unknown, the ejection fraction alone, which has no scale; pixels are taken for square then.
    """
    if "LV" not in labels.roles:
        return {}
    pairs = list(zip(stacks, phases, strict=True))
    predicted = [_shapes(stack, stack.scored_prediction, phase, labels) for stack, phase in pairs]
    reference = [_shapes(stack, stack.reference, phase, labels) for stack, phase in pairs]
    columns = _ventricle_columns(_apical_volumes_ml(predicted), _apical_volumes_ml(reference))
    if len(stacks) == 1:
        areas = [(area_length_volume_ml(ed), area_length_volume_ml(es)) for ((ed, es),) in (predicted, reference)]
        columns |= {f"area_length_{name}": value for name, value in _ventricle_columns(*areas).items()}
    reasons = [
        f"{side} {stack.first.view} {name}: {shape.reason}"
        for side, views in (("predicted", predicted), ("reference", reference))
        for stack, view in zip(stacks, views, strict=True)
        for name, shape in zip(("ED", "ES"), view, strict=True)
        if shape.reason
    ]
    if stacks[0].pixel_mm is None:
        columns = {name: value for name, value in columns.items() if name.endswith("_percent")}
    columns["not_measurable"] = "; ".join(reasons)
    if CAMUS_SCRIPT in options.compat and len(stacks) == 2 and not reasons:
        script = [camus_script_volumes_ml((a[0], b[0]), (a[1], b[1])) for a, b in (predicted, reference)]
        columns |= {f"camus_script_{name}": value for name, value in _ventricle_columns(*script).items()}
    return columns


def _slice_volumes_ml(
    stack: Stack, phases: PhaseFrames, labels: LabelScheme, role: str
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the volumes at (ED, ES): the prediction's and the reference's."""
    positions_mm, pair = stack.positions_mm, phases.pair
    prediction, reference = (labels.role_mask(masks, role) for masks in (stack.scored_prediction, stack.reference))
    if positions_mm is None or pair is None or stack.pixel_mm is None or prediction is None or reference is None:
        raise ValueError(f"slice volumes of {role} need its label, spacings, ED and ES: see volume_method")
    predicted_ml, reference_ml = compared_volumes_ml(
        prediction, reference, stack.labelled, pair, stack.pixel_mm, slice_heights_mm(positions_mm)
    )
    return (float(predicted_ml[0]), float(predicted_ml[1])), (float(reference_ml[0]), float(reference_ml[1]))


def _shapes(stack: Stack, masks: np.ndarray, phases: PhaseFrames, labels: LabelScheme) -> _ViewShapes:
    """Return the shapes of the ventricle at ED and ES in label maps (T, 1, Y, X) of a view."""
    shapes = []
    for frame in phases.pair or ():
        image = masks[frame, 0]
        ventricle = image == labels.values[labels.roles["LV"]]
        shapes.append(measure_apical_shape(ventricle, stack.pixel_spacing, labels.role_mask(image, "LA")))
    return shapes[0], shapes[1]


def _apical_volumes_ml(views: Sequence[_ViewShapes]) -> tuple[float, float]:
    """Return the volumes at (ED, ES) from one or two views."""
    if len(views) == 1:
        return monoplane_volume_ml(views[0][0]), monoplane_volume_ml(views[0][1])
    two_chamber, four_chamber = views
    return biplane_volume_ml(two_chamber[0], four_chamber[0]), biplane_volume_ml(two_chamber[1], four_chamber[1])


def _ventricle_columns(predicted_ml: tuple[float, float], reference_ml: tuple[float, float]) -> Row:
    """Return EDV, ESV, SV and EF of both sides, from their volumes at (ED, ES)."""
    columns: Row = {}
    for name, place in (("edv", 0), ("esv", 1)):
        columns |= _compared(name, "ml", predicted_ml[place], reference_ml[place])
    columns |= _compared("sv", "ml", stroke_volume_ml(*predicted_ml), stroke_volume_ml(*reference_ml))
    return columns | _compared("ef", "percent", _ef_percent(predicted_ml), _ef_percent(reference_ml))


def _ef_percent(volumes_ml: tuple[float, float]) -> float:
    """Return the ejection fraction, NaN when a volume could not be measured."""
    return math.nan if any(map(math.isnan, volumes_ml)) else ejection_fraction_percent(*volumes_ml)


def _compared(name: str, unit: str, predicted: float, reference: float) -> Row:
    """Return the three columns of one quantity."""
    return {
        f"{name}_predicted_{unit}": predicted,
        f"{name}_reference_{unit}": reference,
        f"{name}_difference_{unit}": predicted - reference,
    }
