"""How restless masks are from frame to frame.

A frozen mask scores a perfect 0 on every measure here: quote them only beside an accuracy, and beside the value of
the reference where it is known in every frame.
"""

import numpy as np


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


def _neighbouring_frames(frames: np.ndarray, cyclic: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (before, here, after) along axis 0: T frames each when cyclic, the T - 2 inner ones when not."""
    if cyclic:
        return np.roll(frames, 1, axis=0), frames, np.roll(frames, -1, axis=0)
    return frames[:-2], frames[1:-1], frames[2:]
