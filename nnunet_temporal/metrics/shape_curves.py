"""Attributes of the left ventricle in every frame of a sequence: sizes, lengths, orientation, centre."""

from dataclasses import dataclass

import numpy as np

from nnunet_temporal.metrics.long_axis import check_pixel_spacing, measure_apical_shape
from nnunet_temporal.metrics.overlap import check_masks

LONG_AXIS_ATTRIBUTES = ("base_width_mm", "length_mm", "orientation_degrees")
ATTRIBUTES = ("ventricle_area_mm2", *LONG_AXIS_ATTRIBUTES, "myocardium_area_mm2", "centre_x_mm", "centre_y_mm")


@dataclass(frozen=True, eq=False)
class ShapeCurves:
    """The attributes of one sequence.

    Attributes:
        values: Attribute to (T,) float64; NaN in frames where it could not be measured.
        reasons: Attribute to T texts: why it could not be measured, empty where it was.
    """

    values: dict[str, np.ndarray]
    reasons: dict[str, tuple[str, ...]]


def measure_shape_curves(
    ventricle: np.ndarray,
    spacing_mm: tuple[float, float],
    *,
    myocardium: np.ndarray | None = None,
    atrium: np.ndarray | None = None,
    apical: bool = True,
) -> ShapeCurves:
    """Measure the seven attributes of Painchaud et al. (TMI 2022) in every frame.

    They are: the area of the ventricle, the width of its base, the length and the orientation of its long axis (see
    :func:`~nnunet_temporal.metrics.long_axis.measure_apical_shape`), the area of the myocardium, and the centre of
    mass (x, y) of ventricle and myocardium together.

    Args:
        ventricle: (T, Y, X) boolean masks of the cavity.
        spacing_mm: Spacing of (Y, X). Ones give pixels where the true spacing is unknown.
        myocardium: (T, Y, X) boolean masks. None where the data have no such label: its area is not measurable then,
            and the centre is that of the cavity alone.
        atrium: (T, Y, X) boolean masks of the left atrium, where the base begins. None finds the base from the
            ventricle alone.
        apical: Whether the view shows the long axis. A short-axis slice has none: these attributes are not measurable.

    Returns:
        The curves. An empty ventricle has the area 0 but no long axis; there is no centre where all is empty.

    Raises:
        ValueError: If a mask is not a boolean (T, Y, X) array, the shapes differ or a spacing is not positive.
    """
    check_masks(ventricle=ventricle, myocardium=myocardium, atrium=atrium)
    if ventricle.ndim != 3:
        raise ValueError(f"ventricle must have the axes (T, Y, X), got shape {ventricle.shape}")
    check_pixel_spacing(spacing_mm)
    curves = ShapeCurves({}, {})
    _add_area(curves, "ventricle_area_mm2", ventricle, spacing_mm)
    _add_long_axis(curves, ventricle, spacing_mm, atrium, apical)
    _add_myocardium_area(curves, myocardium, len(ventricle), spacing_mm)
    _add_centre(curves, ventricle if myocardium is None else ventricle | myocardium, spacing_mm)
    return curves


def _add(curves: ShapeCurves, attribute: str, values: np.ndarray, reasons: list[str]) -> None:
    """Put one attribute into the curves."""
    curves.values[attribute] = values.astype(np.float64)
    curves.reasons[attribute] = tuple(reasons)


def _add_missing(curves: ShapeCurves, attribute: str, n_frames: int, reason: str) -> None:
    """Put an attribute into the curves that cannot be measured in any frame."""
    _add(curves, attribute, np.full(n_frames, np.nan), [reason] * n_frames)


def _add_area(curves: ShapeCurves, attribute: str, masks: np.ndarray, spacing_mm: tuple[float, float]) -> None:
    """Put the area of (T, Y, X) masks into the curves."""
    _add(curves, attribute, masks.sum(axis=(1, 2)) * spacing_mm[0] * spacing_mm[1], [""] * len(masks))


def _add_myocardium_area(
    curves: ShapeCurves, myocardium: np.ndarray | None, n_frames: int, spacing_mm: tuple[float, float]
) -> None:
    """Put the area of the myocardium into the curves, where the data have such a label."""
    if myocardium is None:
        _add_missing(curves, "myocardium_area_mm2", n_frames, "there is no myocardium label")
    else:
        _add_area(curves, "myocardium_area_mm2", myocardium, spacing_mm)


def _add_long_axis(
    curves: ShapeCurves,
    ventricle: np.ndarray,
    spacing_mm: tuple[float, float],
    atrium: np.ndarray | None,
    apical: bool,
) -> None:
    """Put base width, length and orientation into the curves."""
    if not apical:
        for attribute in LONG_AXIS_ATTRIBUTES:
            _add_missing(curves, attribute, len(ventricle), "the view does not show the long axis")
        return
    shapes = [
        measure_apical_shape(ventricle[frame], spacing_mm, None if atrium is None else atrium[frame])
        for frame in range(len(ventricle))
    ]
    for attribute in LONG_AXIS_ATTRIBUTES:
        values = np.array([getattr(shape, attribute) for shape in shapes])
        _add(curves, attribute, values, [shape.reason for shape in shapes])


def _add_centre(curves: ShapeCurves, heart: np.ndarray, spacing_mm: tuple[float, float]) -> None:
    """Put the centre of mass of (T, Y, X) masks into the curves."""
    n_pixels = heart.sum(axis=(1, 2))
    reasons = ["" if count else "the mask is empty" for count in n_pixels]
    for attribute, axis, step_mm in (("centre_y_mm", 1, spacing_mm[0]), ("centre_x_mm", 2, spacing_mm[1])):
        profile = heart.sum(axis=3 - axis)  # (T, Y) or (T, X): pixels per row or per column
        sums = profile @ (np.arange(heart.shape[axis]) * step_mm)
        _add(curves, attribute, np.divide(sums, n_pixels, out=np.full(len(heart), np.nan), where=n_pixels > 0), reasons)
