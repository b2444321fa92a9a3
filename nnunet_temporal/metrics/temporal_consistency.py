"""Frames whose shape does not lie between those of their neighbours (Painchaud et al., IEEE TMI 2022).

The error of an attribute a in frame t is e[t] = a[t] - (a[t - 1] + a[t + 1]) / 2, in units of the range that the
attribute has in a population. A beating heart has such an error too: it grows with the square of the frame interval.
Thresholds measured at one frame rate are therefore scaled to the rate of the sequence, and never fall below what
drawing a smooth shape on pixels already causes. A frozen mask has no error at all: quote the figures only beside an
accuracy and beside :func:`~nnunet_temporal.metrics.temporal.area_change_against_truth`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.metrics.long_axis import check_pixel_spacing
from nnunet_temporal.metrics.shape_curves import ShapeCurves

Bounds = Mapping[str, tuple[float, float]]

# Smallest and largest value in the experts' masks of CAMUS, as published with the vital library in native pixels;
# converted with the native pixel of 0.308 mm (x) by 0.154 mm (y), lengths along the direction they mostly run in.
CAMUS_BOUNDS: Bounds = {
    "ventricle_area_mm2": (931.2, 5331.5),
    "base_width_mm": (16.6, 53.2),
    "length_mm": (46.4, 94.4),
    "orientation_degrees": (-13.9, 28.6),
    "myocardium_area_mm2": (1101.8, 3042.0),
    "centre_x_mm": (56.5, 147.6),
    "centre_y_mm": (44.0, 93.8),
}
# Largest error of the experts' masks, in units of these ranges (published with the same library).
CAMUS_THRESHOLDS: Mapping[str, float] = {
    "ventricle_area_mm2": 0.0160,
    "base_width_mm": 0.0969,
    "length_mm": 0.0262,
    "orientation_degrees": 0.0229,
    "myocardium_area_mm2": 0.0321,
    "centre_x_mm": 0.00456,
    "centre_y_mm": 0.0110,
}
# Not published: half sequences of CAMUS hold about 19 frames from ED to ES, some three eighths of a cycle.
CAMUS_FRAMES_PER_CYCLE = 50.0

# Largest error of a smoothly moving shape that comes from drawing it on pixels (a level base jumps by a whole row), in
# pixels. Areas: in pixels times the square root of the area. Orientation: in pixels over the square root of the area.
_PIXEL_ERRORS: Mapping[str, float] = {
    "ventricle_area_mm2": 0.6,
    "base_width_mm": 1.25,
    "length_mm": 1.25,
    "orientation_degrees": 0.5,
    "myocardium_area_mm2": 0.6,
    "centre_x_mm": 0.35,
    "centre_y_mm": 0.35,
}


@dataclass(frozen=True)
class Consistency:
    """How many frames of one sequence do not fit between their neighbours. Shares are in [0, 1].

    Attributes:
        inconsistent_share: Attribute to the share of its judged frames above the threshold; NaN when none was judged.
        any_inconsistent_share: Share of the judged frames with at least one attribute above its threshold.
        judged_share: Attribute to the share of the frames with two neighbours in which it could be judged. A method
            whose masks often cannot be measured shows here, not in the other shares.
        error_to_threshold: Attribute to the mean of |error| / threshold over its judged frames.
    """

    inconsistent_share: dict[str, float]
    any_inconsistent_share: float
    judged_share: dict[str, float]
    error_to_threshold: dict[str, float]


def neighbour_interpolation_errors(
    curves: ShapeCurves, bounds: Bounds = CAMUS_BOUNDS, *, cyclic: bool = False
) -> dict[str, np.ndarray]:
    """Compute by how much each frame misses the mean of its neighbours.

    Args:
        curves: The attributes of a sequence.
        bounds: Attribute to its (smallest, largest) value in a population, never in the sequence itself: a range of
            its own would hide how large the errors are.
        cyclic: Whether the first frame follows the last one. If not, the outer frames have one neighbour only and are
            left out (the published code counts them as consistent).

    Returns:
        Attribute to the errors in units of the population's range: (T,) for cyclic sequences, (T - 2,) for others,
        none for fewer than three frames. NaN in a frame that was not measurable and in its neighbours.

    Raises:
        ValueError: If an attribute has no bounds, or a range that is not positive.
    """
    errors = {}
    for attribute, values in curves.values.items():
        if cyclic and len(values) >= 3:
            values = np.concatenate((values[-1:], values, values[:1]))
        steps = np.diff(values)
        if attribute == "orientation_degrees":
            steps = (steps + 180.0) % 360.0 - 180.0  # the short way round
        errors[attribute] = (steps[:-1] - steps[1:]) / 2.0 / _range(bounds, attribute)
    return errors


def consistency_thresholds(
    curves: ShapeCurves,
    spacing_mm: tuple[float, float],
    frames_per_cycle: float,
    *,
    reference_frames_per_cycle: float = CAMUS_FRAMES_PER_CYCLE,
    bounds: Bounds = CAMUS_BOUNDS,
) -> dict[str, float]:
    """Scale the thresholds of CAMUS to the frame rate and the pixels of a sequence.

    threshold = CAMUS threshold * (reference_frames_per_cycle / frames_per_cycle)^2, at least the error that pixels
    cause.

    Args:
        curves: The attributes of the sequence; its mean area says how many pixels the ventricle has.
        spacing_mm: Spacing of (Y, X).
        frames_per_cycle: Frames per heartbeat of the sequence.
        reference_frames_per_cycle: Frames per heartbeat at which the thresholds were measured.
        bounds: As for :func:`neighbour_interpolation_errors`.

    Returns:
        Attribute to threshold, in units of the population's range.

    Raises:
        ValueError: If a number of frames or a spacing is not positive, or bounds are missing or empty.
    """
    for name, value in (
        ("frames_per_cycle", frames_per_cycle),
        ("reference_frames_per_cycle", reference_frames_per_cycle),
    ):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, got {value}")
    check_pixel_spacing(spacing_mm)
    rate = (reference_frames_per_cycle / frames_per_cycle) ** 2
    pixel_errors = _pixel_errors(curves, spacing_mm)
    return {
        attribute: max(CAMUS_THRESHOLDS[attribute] * rate, pixel_errors[attribute] / _range(bounds, attribute))
        for attribute in curves.values
    }


def judge_consistency(errors: Mapping[str, np.ndarray], thresholds: Mapping[str, float]) -> Consistency:
    """Count the frames of a sequence whose error exceeds the threshold.

    Args:
        errors: Attribute to (T,) errors, from :func:`neighbour_interpolation_errors`.
        thresholds: Attribute to threshold, from :func:`consistency_thresholds`.

    Returns:
        The shares, per attribute and for any of them.
    """
    ratios = {attribute: np.abs(values) / thresholds[attribute] for attribute, values in errors.items()}
    judged = {attribute: values[np.isfinite(values)] for attribute, values in ratios.items()}
    # fmax takes the larger of two numbers and any number before NaN.
    largest = np.fmax.reduce(list(ratios.values()))
    return Consistency(
        inconsistent_share={attribute: _mean(values > 1) for attribute, values in judged.items()},
        any_inconsistent_share=_mean(largest[np.isfinite(largest)] > 1),
        judged_share={attribute: _mean(np.isfinite(values)) for attribute, values in ratios.items()},
        error_to_threshold={attribute: _mean(values) for attribute, values in judged.items()},
    )


def _pixel_errors(curves: ShapeCurves, spacing_mm: tuple[float, float]) -> dict[str, float]:
    """Return the error of each attribute, in its own unit, that drawing the ventricle on pixels may cause."""
    pixel_mm = math.sqrt(math.prod(spacing_mm))
    size_mm = math.sqrt(curves.values["ventricle_area_mm2"].mean())
    errors = {}
    for attribute in curves.values:
        errors[attribute] = _PIXEL_ERRORS[attribute] * pixel_mm
        if attribute.endswith("_mm2"):
            errors[attribute] *= size_mm
        elif attribute == "orientation_degrees":
            errors[attribute] = math.degrees(errors[attribute] / size_mm) if size_mm else math.inf
    return errors


def _range(bounds: Bounds, attribute: str) -> float:
    """Return the range of an attribute in the population."""
    if attribute not in bounds:
        raise ValueError(f"bounds must name the attribute {attribute!r}, got {sorted(bounds)}")
    low, high = bounds[attribute]
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"the bounds of {attribute!r} must be (smallest, largest), got {(low, high)}")
    return high - low


def _mean(values: np.ndarray) -> float:
    """Return the mean, NaN for no values."""
    return float(values.mean()) if values.size else math.nan
