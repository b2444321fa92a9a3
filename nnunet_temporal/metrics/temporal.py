"""How restless masks are from frame to frame, and whether they obey what every heart obeys.

A frozen mask scores a perfect 0 on roughness, flicker, jitter, cyclicity and mass conservation: quote them only beside
an accuracy, beside :func:`area_change_against_truth`, and beside the value of the reference where it is known in every
frame. Motion itself costs something on most of them.
"""

import math

import numpy as np

from nnunet_temporal.metrics.overlap import check_masks
from nnunet_temporal.metrics.surface import surface_distances


def area_roughness_percent(areas: np.ndarray, *, cyclic: bool = False) -> float:
    """Compute how rough area curves are: mean absolute second difference over mean area, in percent.

    100 * mean_t |a[t - 1] - 2 a[t] + a[t + 1]| / mean_t a[t]. The slices of a study are pooled (both means are summed
    over the slices), so that a slice with a few pixels does not outweigh the others. A steady change of the area costs
    nothing; a mask that grows and shrinks between neighbouring frames does. The value falls with the square of the
    frame interval, so compare it only between results on the same sequences.

    Args:
        areas: (T,) or (T, Z) areas, in any unit, none negative.
        cyclic: Whether the first frame follows the last one (a gated heartbeat). If not, the outer frames are only
            neighbours.

    Returns:
        A value in percent, 0 for straight curves, at most 400 for cyclic ones and 400 T / (T - 2) for others. NaN when
        there are fewer than three frames or no area at all.

    Raises:
        ValueError: If the array has neither one nor two axes or holds a negative area.
    """
    if areas.ndim not in (1, 2):
        raise ValueError(f"areas must have the axes (T,) or (T, Z), got shape {areas.shape}")
    areas = areas.astype(np.float64).reshape(areas.shape[0], -1)  # (T, Z)
    if (areas < 0).any():
        raise ValueError(f"areas must not be negative, the smallest is {areas.min()}")
    if areas.shape[0] < 3 or not areas.any():
        return float("nan")
    before, here, after = _neighbouring_frames(areas, cyclic)
    roughness = np.abs(before - 2.0 * here + after).mean(axis=0).sum()
    return float(100.0 * roughness / areas.mean(axis=0).sum())


def pixel_flicker_percent(masks: np.ndarray, *, cyclic: bool = False) -> float:
    """Compute the share of pixels that change and change back within three frames, relative to the mask, in percent.

    A pixel flickers in frame t when it differs from frame t - 1 and frame t + 1 equals frame t - 1 again. The value is
    100 * (mean number of flickering pixels per frame) / (mean number of mask pixels per frame).

    Args:
        masks: (T, ...) boolean masks, usually (T, Y, X) or (T, Z, Y, X); slices are pooled.
        cyclic: Whether the first frame follows the last one. If not, the outer frames are only neighbours.

    Returns:
        A value in percent, >= 0, and 0 when no pixel flickers. NaN when there are fewer than three frames or all masks
        are empty.

    Raises:
        ValueError: If the masks are not a boolean array with a frame axis and at least one more.
    """
    if masks.dtype != np.bool_ or masks.ndim < 2:
        raise ValueError(f"masks must be boolean with the axes (T, ...), got {masks.dtype} of shape {masks.shape}")
    if masks.shape[0] < 3 or not masks.any():
        return float("nan")
    before, here, after = _neighbouring_frames(masks, cyclic)
    flickering_per_frame = np.count_nonzero((before != here) & (before == after)) / here.shape[0]
    mask_pixels_per_frame = np.count_nonzero(masks) / masks.shape[0]
    return float(100.0 * flickering_per_frame / mask_pixels_per_frame)


def dice_to_next_frame(masks: np.ndarray, *, cyclic: bool = False) -> np.ndarray:
    """Compute the Dice coefficient of each frame with the next one.

    Args:
        masks: (T, ...) boolean masks.
        cyclic: Whether the first frame follows the last one.

    Returns:
        (T - 1,) float64, (T,) for cyclic sequences; 0 where exactly one of the frames is empty, NaN where both are.

    Raises:
        ValueError: If the masks are not a boolean array with a frame axis and at least one more.
    """
    _check_movie(masks)
    frames = masks.reshape(len(masks), -1)
    following = np.roll(frames, -1, axis=0)
    sizes = frames.sum(axis=1)
    both = sizes + np.roll(sizes, -1)
    overlap = 2.0 * (frames & following).sum(axis=1)
    scores = np.divide(overlap, both, out=np.full(len(frames), math.nan), where=both > 0)
    return scores if cyclic else scores[:-1]


def temporal_dice_gain(prediction: np.ndarray, reference: np.ndarray, *, cyclic: bool = False) -> float:
    """Compute the Dice between neighbouring frames of a prediction minus that of the reference.

    Motion lowers the overlap of neighbouring frames, in the reference as well; only what goes beyond it is flicker.

    Args:
        prediction: (T, ...) boolean masks.
        reference: (T, ...) boolean masks of the same shape, known in every frame.
        cyclic: Whether the first frame follows the last one.

    Returns:
        The mean difference in [-1, 1] over the pairs of frames: below 0 for masks that change more than the truth,
        above 0 for masks that change less, which is no merit either. Pairs of empty frames, in prediction or
        reference, are left out; NaN when no pair remains.

    Raises:
        ValueError: If a mask is not a boolean array with a frame axis and at least one more, or the shapes differ.
    """
    check_masks(prediction=prediction, reference=reference)
    differences = dice_to_next_frame(prediction, cyclic=cyclic) - dice_to_next_frame(reference, cyclic=cyclic)
    differences = differences[np.isfinite(differences)]
    return float(differences.mean()) if differences.size else math.nan


def boundary_jitter(masks: np.ndarray, spacing: tuple[float, ...], *, cyclic: bool = False) -> np.ndarray:
    """Compute how far the boundary moves from frame to frame: the mean Hausdorff distance to both neighbours.

    Args:
        masks: (T, Y, X) or (T, Z, Y, X) boolean masks.
        spacing: Spacing of the axes after T; the result has its unit.
        cyclic: Whether the first frame follows the last one. If not, the outer frames are compared with their only
            neighbour.

    Returns:
        (T,) float64. Infinite where exactly one of a pair is empty: the structure is missing there, which must be
        counted, not averaged. A pair of empty frames is left out; NaN where no pair remains.

    Raises:
        ValueError: If the masks are not boolean, have no frame axis, or the spacing does not fit.
    """
    _check_movie(masks)
    n_frames = len(masks)
    distances = np.full(n_frames + 1, math.nan)  # entry t: from frame t - 1 to frame t
    for frame in range(1, n_frames):
        distances[frame] = surface_distances(masks[frame - 1], masks[frame], spacing).hausdorff()
    if cyclic and n_frames > 1:
        distances[0] = distances[-1] = surface_distances(masks[-1], masks[0], spacing).hausdorff()
    pairs = np.stack((distances[:-1], distances[1:]))  # (2, T)
    n_pairs = np.count_nonzero(~np.isnan(pairs), axis=0)
    return np.divide(np.nansum(pairs, axis=0), n_pairs, out=np.full(n_frames, math.nan), where=n_pairs > 0)


def area_change_against_truth(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Compute how much of the true change of an area (or volume) curve a prediction shows.

    Args:
        predicted: (T,) areas.
        reference: (T,) areas of the reference, in the same unit.

    Returns:
        Largest minus smallest area of the prediction over that of the reference: 1 for a mask that beats as strongly
        as the truth, 0 for a frozen one. NaN when the reference itself does not change.

    Raises:
        ValueError: If a curve is empty, not finite or of another length.
    """
    for name, areas in (("predicted", predicted), ("reference", reference)):
        if areas.ndim != 1 or areas.size == 0 or not np.isfinite(areas).all():
            raise ValueError(f"{name} must be a non-empty finite curve (T,), got shape {areas.shape}")
    if predicted.shape != reference.shape:
        raise ValueError(f"predicted must have the length of reference, {reference.size}, got {predicted.size}")
    true_change = float(np.ptp(reference))
    return float(np.ptp(predicted)) / true_change if true_change > 0 else math.nan


def cyclicity_error_percent(volumes_ml: np.ndarray) -> float:
    """Compute by how much the volume at the end of a heartbeat misses that at its beginning, in percent of EDV.

    Args:
        volumes_ml: (T,) volumes from one end diastole to the next, both included. A gated cine ends one frame before
            the next end diastole: its last step of motion is part of the figure.

    Returns:
        100 * |V_first - V_last| / EDV with EDV the largest volume of the curve; NaN when nothing was segmented.

    Raises:
        ValueError: If the curve has fewer than two frames, or a volume is negative or not finite.
    """
    _check_volumes(volumes_ml)
    edv_ml = float(volumes_ml.max())
    return 100.0 * abs(float(volumes_ml[0] - volumes_ml[-1])) / edv_ml if edv_ml else math.nan


def mass_variation_percent(myocardium_ml: np.ndarray) -> float:
    """Compute the coefficient of variation of the myocardial volume along the heartbeat, in percent.

    Muscle is nearly incompressible, so that its volume should hardly change; no truth is needed to see that it does.
    In a single slice it does change, as muscle moves through the plane: take the whole stack.

    Args:
        myocardium_ml: (T,) myocardial volumes.

    Returns:
        100 * standard deviation (over T) / mean; NaN when there is no myocardium at all.

    Raises:
        ValueError: If the curve has fewer than two frames, or a volume is negative or not finite.
    """
    _check_volumes(myocardium_ml)
    mean_ml = float(myocardium_ml.mean())
    return 100.0 * float(myocardium_ml.std()) / mean_ml if mean_ml else math.nan


def mass_mismatch_percent(myocardium_ed_ml: float, myocardium_es_ml: float) -> float:
    """Compute the difference of the myocardial volumes at ED and ES in percent of their mean; NaN when both are 0.

    Raises:
        ValueError: If a volume is negative.
    """
    if myocardium_ed_ml < 0 or myocardium_es_ml < 0:
        raise ValueError(f"volumes must not be negative, got {myocardium_ed_ml} and {myocardium_es_ml}")
    mean_ml = (myocardium_ed_ml + myocardium_es_ml) / 2
    return 100.0 * abs(myocardium_ed_ml - myocardium_es_ml) / mean_ml if mean_ml else math.nan


def stroke_volume_gap_percent(left_ml: float, right_ml: float) -> float:
    """Compute the gap between the stroke volumes of the two ventricles in percent of the left one.

    Without a shunt or a leaking valve both pump the same volume.

    Args:
        left_ml: Stroke volume of the left ventricle.
        right_ml: Stroke volume of the right ventricle.

    Returns:
        100 * (left - right) / left, positive when the right one is smaller; NaN when ``left_ml`` is not positive, since
        a ventricle that does not eject is no yardstick.
    """
    return 100.0 * (left_ml - right_ml) / left_ml if left_ml > 0 else math.nan


def _check_movie(masks: np.ndarray) -> None:
    """Raise ValueError unless masks are boolean (T, ...) with at least one frame."""
    if masks.dtype != np.bool_ or masks.ndim < 2 or len(masks) == 0:
        raise ValueError(f"masks must be boolean with the axes (T, ...), got {masks.dtype} of shape {masks.shape}")


def _check_volumes(volumes_ml: np.ndarray) -> None:
    """Raise ValueError unless the volumes are a curve (T,) of at least two that are finite and not negative."""
    if volumes_ml.ndim != 1 or volumes_ml.size < 2 or not np.isfinite(volumes_ml).all() or (volumes_ml < 0).any():
        raise ValueError(f"expected a curve (T,) of at least two finite volumes >= 0, got {volumes_ml.tolist()}")


def _neighbouring_frames(frames: np.ndarray, cyclic: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (before, here, after) along axis 0: T frames each when cyclic, the T - 2 inner ones when not."""
    if cyclic:
        return np.roll(frames, 1, axis=0), frames, np.roll(frames, -1, axis=0)
    return frames[:-2], frames[1:-1], frames[2:]
