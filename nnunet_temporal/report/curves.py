"""How large each structure is in every frame, and what an expert drew of it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.metrics.clinical import slice_heights_mm, stack_volumes_ml
from nnunet_temporal.metrics.long_axis import measure_apical_shape
from nnunet_temporal.metrics.simpson import monoplane_volume_ml
from nnunet_temporal.report.segmented_study import SegmentedStack

_MM2_PER_CM2 = 100.0
VOLUME, APICAL_VOLUME, AREA = "volume", "volume by Simpson's rule in one view", "area"


@dataclass(frozen=True)
class Curve:
    """One structure over time.

    Attributes:
        structure: Name of its label.
        quantity: What was measured: a volume by summing slices, one by Simpson's rule in an apical view, or an area.
        unit: ``ml`` or ``cm²``; where the spacing is unknown ``10³ px³`` or ``px``.
        values: (T,) float64; NaN where a frame is not measurable.
        truth: The same of the expert's masks, by frame; only frames in which all measured slices were drawn.
    """

    structure: str
    quantity: str
    unit: str
    values: np.ndarray
    truth: dict[int, float]


def measure_curves(stack: SegmentedStack, labels: LabelScheme) -> list[Curve]:
    """Measure every structure in every frame, over the slices that volumes are compared over.

    Args:
        stack: The stack or view.
        labels: The labels of the dataset.

    Returns:
        One curve per label, in their order: volumes in a stack of slices at known distances and of the ventricle in an
        apical view, areas elsewhere.
    """
    drawn = np.flatnonzero(stack.drawn[:, stack.phases.slices].all(axis=1)).tolist()
    curves = []
    for name in labels.values:
        quantity, unit, measure = _way(stack, labels, name)
        truth = measure(stack.truth[drawn]).tolist() if drawn else []
        values = measure(stack.stack.prediction)
        curves.append(Curve(name, quantity, unit, values, dict(zip(drawn, truth, strict=True))))
    return curves


def _way(stack: SegmentedStack, labels: LabelScheme, name: str) -> tuple[str, str, Callable[[np.ndarray], np.ndarray]]:
    """Return what is measured of a structure, its unit, and how, from label maps (T, Z, Y, X) to (T,)."""
    masks, slices, value = stack.stack, stack.phases.slices, labels.values[name]
    if masks.is_apical and name == labels.roles.get("LV"):
        # With pixels for mm the formula, which divides by a thousand, has this unit.
        unit = "ml" if masks.pixel_mm is not None else "10³ px³"
        return APICAL_VOLUME, unit, lambda maps: _apical_volumes(maps, masks.pixel_spacing, labels)
    if masks.pixel_mm is None:
        return AREA, "px", lambda maps: _pixels(maps[:, slices], value)
    pixel_mm = masks.pixel_mm
    if masks.positions_mm is not None:
        heights_mm = slice_heights_mm(masks.positions_mm)[slices]
        return VOLUME, "ml", lambda maps: stack_volumes_ml(maps[:, slices] == value, pixel_mm, heights_mm)
    pixel_cm2 = math.prod(pixel_mm) / _MM2_PER_CM2
    return AREA, "cm²", lambda maps: _pixels(maps[:, slices], value) * pixel_cm2


def _pixels(maps: np.ndarray, value: int) -> np.ndarray:
    """Return the number of pixels (T,) of a label, as floats."""
    return np.count_nonzero(maps == value, axis=(1, 2, 3)).astype(np.float64)


def _apical_volumes(maps: np.ndarray, pixel_spacing: tuple[float, float], labels: LabelScheme) -> np.ndarray:
    """Return the volumes (T,) of the ventricle in an apical view (T, 1, Y, X); NaN where its axis cannot be found."""
    ventricle = labels.values[labels.roles["LV"]]
    return np.array(
        [
            monoplane_volume_ml(measure_apical_shape(frame == ventricle, pixel_spacing, labels.role_mask(frame, "LA")))
            for frame in maps[:, 0]
        ]
    )
