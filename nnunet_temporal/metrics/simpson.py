"""Volume of the left ventricle from apical echo views: Simpson's rule with one or two views, and area-length.

The formulas are those of the ASE/EACVI recommendations for chamber quantification (Lang et al., 2015). Volumes are NaN
where a shape could not be measured; the shape says why.
"""

import math

import numpy as np

from nnunet_temporal.metrics.long_axis import ApicalShape

N_DISCS = 20
_MM3_PER_ML = 1000.0
# The published script walks outwards from this distance, in pixels, with this step.
_SCRIPT_START_PIXELS = 8.0
_SCRIPT_STEP_PIXELS = 0.5


def monoplane_volume_ml(shape: ApicalShape) -> float:
    """Compute the volume from one view, taking each disc for a circle: pi/4 * sum of d^2 * L/20.

    Args:
        shape: The ventricle in one frame.

    Returns:
        The volume in ml.
    """
    return _sum_of_discs_ml(shape.disc_diameters_mm(N_DISCS) ** 2, shape.length_mm / N_DISCS)


def biplane_volume_ml(two_chamber: ApicalShape, four_chamber: ApicalShape) -> float:
    """Compute the volume from two views, taking each disc for an ellipse: pi/4 * sum of a * b * L/20.

    L is the longer of the two long axes **in this frame**: end diastole and end systole each have their own.

    Args:
        two_chamber: The ventricle in the two-chamber view.
        four_chamber: The ventricle at the same instant of the cycle in the four-chamber view.

    Returns:
        The volume in ml.
    """
    products = two_chamber.disc_diameters_mm(N_DISCS) * four_chamber.disc_diameters_mm(N_DISCS)
    return _sum_of_discs_ml(products, max(two_chamber.length_mm, four_chamber.length_mm) / N_DISCS)


def area_length_volume_ml(shape: ApicalShape) -> float:
    """Compute the volume from area and length of one view, 8 A^2 / (3 pi L).

    Args:
        shape: The ventricle in one frame.

    Returns:
        The volume in ml.
    """
    return 8.0 * shape.area_mm2**2 / (3.0 * math.pi * shape.length_mm) / _MM3_PER_ML


def camus_script_volumes_ml(
    end_diastole: tuple[ApicalShape, ApicalShape], end_systole: tuple[ApicalShape, ApicalShape]
) -> tuple[float, float]:
    """Compute both biplane volumes with the faults of the widely used CAMUS script, to compare with published figures.

    Repeated here: one disc height, the largest of all four masks, serves both instants, which inflates the
    end-systolic volume by the ratio of the lengths; single chords are measured by walking from the axis outwards from
    8 pixels on, in steps of half a pixel, so that no diameter is below 16 pixels; volumes are rounded to whole ml. The
    landmarks are ours: the script's own search for the base takes the base to lie level in the image.

    Args:
        end_diastole: The ventricle at end diastole in the two views.
        end_systole: The same at end systole.

    Returns:
        The end-diastolic and the end-systolic volume in whole ml.
    """
    height_mm = max(shape.length_mm for shape in (*end_diastole, *end_systole)) / N_DISCS
    edv_ml, esv_ml = (
        float(np.rint(_sum_of_discs_ml(_script_diameters_mm(first) * _script_diameters_mm(second), height_mm)))
        for first, second in (end_diastole, end_systole)
    )
    return edv_ml, esv_ml


def _sum_of_discs_ml(squared_diameters_mm2: np.ndarray, height_mm: float) -> float:
    """Return the volume of discs (N,) of one height."""
    return float(math.pi / 4.0 * squared_diameters_mm2.sum() * height_mm / _MM3_PER_ML)


def _script_diameters_mm(shape: ApicalShape) -> np.ndarray:
    """Return the (20,) diameters of the CAMUS script; its pixels are columns, to which it resamples the rows."""
    if shape.reason:
        return np.full(N_DISCS, math.nan)
    axis = shape.apex_mm - shape.base_mm
    normal = np.array((-axis[1], axis[0])) / shape.length_mm
    starts = shape.base_mm + np.outer(np.arange(N_DISCS) / N_DISCS, axis)  # (20, 2)
    pixel_mm = shape.spacing_mm[1]
    longest = math.hypot(*(np.array(shape.ventricle.shape) * shape.spacing_mm)) / pixel_mm
    steps_mm = np.arange(_SCRIPT_START_PIXELS, longest + _SCRIPT_START_PIXELS + 1, _SCRIPT_STEP_PIXELS) * pixel_mm
    # Beyond the image is outside the ventricle, and no walk inside the image is longer than its diagonal.
    outside = np.pad(~shape.ventricle, 1, constant_values=True)
    diameters = np.zeros(N_DISCS)
    for side in (normal, -normal):
        walk = starts[:, None] + steps_mm[:, None] * side  # (20, S, 2)
        places = np.rint(walk / shape.spacing_mm).astype(int) + 1
        y, x = np.moveaxis(np.clip(places, 0, np.array(outside.shape) - 1), -1, 0)
        diameters += steps_mm[np.argmax(outside[y, x], axis=1)]
    return diameters
