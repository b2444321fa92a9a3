"""Volumes of stacks of slices along the heartbeat and what follows: ejection fraction, stroke volume, mass."""

import math
from collections.abc import Sequence

import numpy as np

from nnunet_temporal.metrics.overlap import check_masks

_MM3_PER_ML = 1000.0
_MYOCARDIUM_G_PER_ML = 1.05


def volume_ml(mask: np.ndarray, spacing_mm: tuple[float, float, float]) -> float:
    """Compute the volume of one mask as the sum of its slices (Simpson's rule for short-axis stacks).

    Args:
        mask: (Z, Y, X) boolean mask; an empty one has a volume of 0.
        spacing_mm: Spacing of (Z, Y, X). The first entry is the distance between slice centres (thickness plus gap),
            not the slice thickness.

    Returns:
        The volume in ml, >= 0.

    Raises:
        ValueError: If the mask is not a boolean (Z, Y, X) array or a spacing is not positive.
    """
    if mask.ndim != 3:
        raise ValueError(f"mask must have the axes (Z, Y, X), got shape {mask.shape}")
    return float(volume_curve_ml(mask[None], spacing_mm)[0])


def volume_curve_ml(masks: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Compute the volume in every frame.

    Args:
        masks: (T, Z, Y, X) boolean masks.
        spacing_mm: Spacing of (Z, Y, X), as for :func:`volume_ml`.

    Returns:
        (T,) float64 volumes in ml.

    Raises:
        ValueError: If the masks are not a boolean (T, Z, Y, X) array or a spacing is not positive.
    """
    if masks.ndim != 4:
        raise ValueError(f"masks must have the axes (T, Z, Y, X), got shape {masks.shape}")
    if masks.dtype != np.bool_:
        raise ValueError(f"masks must be boolean, got dtype {masks.dtype}")
    if len(spacing_mm) != 3 or not all(math.isfinite(entry) and entry > 0 for entry in spacing_mm):
        raise ValueError(f"spacing_mm must be three positive numbers (Z, Y, X), got {spacing_mm}")
    return masks.sum(axis=(1, 2, 3), dtype=np.int64) * (math.prod(spacing_mm) / _MM3_PER_ML)


def ejection_fraction_percent(edv_ml: float, esv_ml: float) -> float:
    """Compute the ejection fraction, 100 (EDV - ESV) / EDV.

    Args:
        edv_ml: End-diastolic volume in ml.
        esv_ml: End-systolic volume in ml.

    Returns:
        The ejection fraction in percent, at most 100. It is negative when ``esv_ml`` exceeds ``edv_ml``, which is
        reported as found, and NaN when ``edv_ml`` is 0 (nothing was segmented, so there is no fraction).

    Raises:
        ValueError: If a volume is negative.
    """
    if edv_ml < 0 or esv_ml < 0:
        raise ValueError(f"volumes must not be negative, got edv_ml = {edv_ml} and esv_ml = {esv_ml}")
    if edv_ml == 0:
        return float("nan")
    return 100.0 * (edv_ml - esv_ml) / edv_ml


def ed_es_frames(volumes_ml: np.ndarray) -> tuple[int, int]:
    """Choose end diastole and end systole as the frames of the largest and the smallest volume.

    Args:
        volumes_ml: (T,) volumes of one heartbeat.

    Returns:
        The 0-based frames (ED, ES), each the first of its kind; both 0 when the curve is flat.

    Raises:
        ValueError: If the curve is empty, has more than one axis or holds a value that is not finite.
    """
    if volumes_ml.ndim != 1 or volumes_ml.size == 0:
        raise ValueError(f"volumes_ml must be a non-empty curve (T,), got shape {volumes_ml.shape}")
    if not np.isfinite(volumes_ml).all():
        raise ValueError("volumes_ml must be finite in every frame")
    return int(np.argmax(volumes_ml)), int(np.argmin(volumes_ml))


def slice_heights_mm(positions_mm: np.ndarray) -> np.ndarray:
    """Compute how much of the stack's axis each slice stands for, from where the slices really lie.

    A slice reaches half-way to its neighbours; the outer slices reach as far outwards as inwards. Thickness and gap
    are both inside, and a slice that is missing from the stack is made up for by its neighbours.

    Args:
        positions_mm: (Z,) positions of the slice centres along the normal of the slices, in any order.

    Returns:
        (Z,) float64 heights, in the order of the positions. For equal steps each height is the step.

    Raises:
        ValueError: If there are fewer than two slices (one slice has no spacing), a position is not finite or two
            slices share one.
    """
    if positions_mm.ndim != 1 or positions_mm.size < 2:
        raise ValueError(f"positions_mm must be (Z,) with at least two slices, got shape {positions_mm.shape}")
    order = np.argsort(positions_mm)
    steps = np.diff(positions_mm[order].astype(np.float64))
    if not (np.isfinite(steps).all() and (steps > 0).all()):
        raise ValueError(f"positions_mm must be finite and different from each other, got {positions_mm.tolist()}")
    heights = np.empty(positions_mm.size)
    heights[order] = (np.concatenate((steps[:1], steps)) + np.concatenate((steps, steps[-1:]))) / 2
    return heights


def stack_volumes_ml(masks: np.ndarray, pixel_spacing_mm: tuple[float, float], heights_mm: np.ndarray) -> np.ndarray:
    """Compute the volume in every frame as the sum of area times height of the slices.

    Args:
        masks: (T, Z, Y, X) boolean masks.
        pixel_spacing_mm: Spacing of (Y, X).
        heights_mm: (Z,) height of each slice, from :func:`slice_heights_mm`; equal heights give the same as
            :func:`volume_curve_ml`.

    Returns:
        (T,) float64 volumes in ml.

    Raises:
        ValueError: If the masks are not a boolean (T, Z, Y, X) array with one slice per height, or a spacing or a
            height is not positive.
    """
    if masks.dtype != np.bool_ or masks.ndim != 4 or masks.shape[1:2] != heights_mm.shape:
        raise ValueError(
            f"masks must be boolean (T, Z, Y, X) with heights_mm (Z,), got {masks.dtype} of shape {masks.shape} with "
            f"heights of shape {heights_mm.shape}"
        )
    if len(pixel_spacing_mm) != 2 or not all(math.isfinite(entry) and entry > 0 for entry in pixel_spacing_mm):
        raise ValueError(f"pixel_spacing_mm must be two positive numbers (Y, X), got {pixel_spacing_mm}")
    if not (np.isfinite(heights_mm).all() and (heights_mm > 0).all()):
        raise ValueError(f"heights_mm must be positive, got {heights_mm.tolist()}")
    areas_mm2 = masks.sum(axis=(2, 3), dtype=np.int64) * math.prod(pixel_spacing_mm)  # (T, Z)
    return areas_mm2 @ heights_mm / _MM3_PER_ML


def compared_slices(labelled: np.ndarray, frames: Sequence[int]) -> np.ndarray:
    """Find the slices over which volumes of a prediction and a reference may be compared.

    Volumes of a stack are only comparable when they are summed over the same slices: in the prediction and in the
    reference, and in every frame that enters the figure (ED and ES for an ejection fraction). Otherwise a slice that
    an expert left out at ES counts as contraction.

    Args:
        labelled: (T, Z) boolean; whether the reference says what is in this slice of this frame.
        frames: The frames that enter the figure.

    Returns:
        (Z,) boolean, true for the slices labelled in all these frames. Restrict prediction and reference alike to it.

    Raises:
        ValueError: If the array is not boolean (T, Z), no frame is given or no slice is labelled in all of them.
    """
    if labelled.dtype != np.bool_ or labelled.ndim != 2:
        raise ValueError(f"labelled must be boolean (T, Z), got {labelled.dtype} of shape {labelled.shape}")
    if not len(frames):
        raise ValueError("frames must name at least one frame")
    slices: np.ndarray = np.all(labelled[list(frames)], axis=0)
    if not slices.any():
        raise ValueError(f"no slice is labelled in all of the frames {list(frames)}")
    return slices


def compared_volumes_ml(
    prediction: np.ndarray,
    reference: np.ndarray,
    labelled: np.ndarray,
    frames: Sequence[int],
    pixel_spacing_mm: tuple[float, float],
    heights_mm: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the volumes of a prediction and of its reference over the same slices and in the same frames.

    Args:
        prediction: (T, Z, Y, X) boolean masks.
        reference: (T, Z, Y, X) boolean masks; looked at only where ``labelled``.
        labelled: (T, Z) boolean, as for :func:`compared_slices`.
        frames: The frames to measure, usually the reference's (ED, ES).
        pixel_spacing_mm: Spacing of (Y, X).
        heights_mm: (Z,) height of each slice of the whole stack, from :func:`slice_heights_mm`.

    Returns:
        Two (len(frames),) float64 arrays of volumes in ml: the prediction's and the reference's.

    Raises:
        ValueError: If the arrays do not fit each other, or no slice is labelled in all of the frames.
    """
    check_masks(prediction=prediction, reference=reference)
    if labelled.shape != prediction.shape[:2]:
        raise ValueError(f"labelled must have the shape (T, Z) = {prediction.shape[:2]}, got {labelled.shape}")
    if heights_mm.shape != labelled.shape[1:]:
        raise ValueError(f"heights_mm must have one entry per slice {labelled.shape[1:]}, got {heights_mm.shape}")
    slices = compared_slices(labelled, frames)
    places = np.ix_(np.array(frames), np.flatnonzero(slices))
    predicted_ml, reference_ml = (
        stack_volumes_ml(masks[places], pixel_spacing_mm, heights_mm[slices]) for masks in (prediction, reference)
    )
    return predicted_ml, reference_ml


def stroke_volume_ml(edv_ml: float, esv_ml: float) -> float:
    """Compute the stroke volume EDV - ESV in ml; negative, as found, when ``esv_ml`` is the larger one."""
    return edv_ml - esv_ml


def myocardial_mass_g(myocardium_ml: float) -> float:
    """Compute the mass in g of a myocardial volume in ml, with the usual density of 1.05 g/ml.

    Raises:
        ValueError: If the volume is negative.
    """
    if myocardium_ml < 0:
        raise ValueError(f"myocardium_ml must not be negative, got {myocardium_ml}")
    return _MYOCARDIUM_G_PER_ML * myocardium_ml
