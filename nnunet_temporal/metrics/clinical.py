"""Volumes of a cavity along the heartbeat and the ejection fraction."""

import math

import numpy as np

_MM3_PER_ML = 1000.0


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
