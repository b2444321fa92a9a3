"""What is measured on one sequence for the fingerprint: how long a beat is, how much changes, how far walls move."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_temporal.datasets.heart_cycle import estimate_cycle
from nnunet_temporal.metrics.surface import surface_distances
from nnunet_temporal.sequences import Sequence


@dataclass(frozen=True)
class SequenceMeasures:
    """Measurements of one sequence, ready for JSON.

    Attributes:
        n_frames: Number of frames.
        labelled_frames: Indices of the frames with a human mask.
        frame_interval_s: Time between two frames in seconds, None when unknown.
        cyclic: Whether the manifest says that the frames cover exactly one beat.
        frames_per_cycle: Frames in one beat, None when the sequence does not show it.
        cycle_confidence: Trust in that, 0 to 1; 1 where the manifest says so.
        interframe_change: Mean absolute change from frame to frame over the standard deviation of the grey values,
            averaged over channels; None for a single frame.
        displacement_mm: How far walls move between the two labelled frames that differ most: the largest HD95 of any
            structure, in the unit of the header's spacing; None without two labelled frames that share a structure.
    """

    n_frames: int
    labelled_frames: tuple[int, ...]
    frame_interval_s: float | None
    cyclic: bool
    frames_per_cycle: float | None
    cycle_confidence: float
    interframe_change: float | None
    displacement_mm: float | None


def measure_sequence(
    image: np.ndarray,
    mask: np.ndarray,
    spacing: Collection[float],
    sequence: Sequence,
    structures: Mapping[str, tuple[int, ...]],
) -> SequenceMeasures:
    """Measure one sequence.

    Args:
        image: Grey values (C, T, Y, X).
        mask: Labels (T, Y, X); only those of labelled frames are read.
        spacing: (Y, X) in mm.
        sequence: Its manifest entry.
        structures: Label values of each structure, see ``foreground_structures``.
    """
    # A cine that the manifest calls one beat is one, whatever a noisy apical slice looks like.
    cycle = None if sequence.cyclic else estimate_cycle(image)
    return SequenceMeasures(
        n_frames=sequence.n_frames,
        labelled_frames=sequence.labelled_frames,
        frame_interval_s=sequence.frame_interval_s,
        cyclic=sequence.cyclic,
        frames_per_cycle=float(sequence.n_frames) if cycle is None else _rounded(cycle.frames_per_cycle),
        cycle_confidence=1.0 if cycle is None else round(cycle.confidence, 3),
        interframe_change=_rounded(interframe_change(image)),
        displacement_mm=_rounded(largest_displacement(mask, sequence.labelled_frames, spacing, structures)),
    )


def foreground_structures(labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Read the structures and their label values from ``labels`` of dataset.json; a region is one of several values."""
    values = {name: tuple(entry) if isinstance(entry, list) else (entry,) for name, entry in labels.items()}
    return {name: entry for name, entry in values.items() if name != "ignore" and any(value != 0 for value in entry)}


def interframe_change(image: np.ndarray) -> float | None:
    """Average the absolute change between neighbouring frames, in standard deviations of each channel's grey values.

    Args:
        image: (C, T, Y, X).

    Returns:
        0 for a frozen sequence, about 1.1 for independent noise; None for a single frame.
    """
    if image.shape[1] < 2:
        return None
    # Frame by frame: a copy of a thousand frames in double precision would be large.
    changes = [np.abs(after - before).mean((-2, -1)) for before, after in zip(_frames(image), _frames(image, 1))]  # noqa: B905 - one shorter
    spread = image.reshape(len(image), -1).std(axis=1, dtype=np.float64)
    return float(np.mean(np.mean(changes, axis=0) / np.maximum(spread, np.finfo(np.float32).tiny)))


def largest_displacement(
    mask: np.ndarray,
    labelled_frames: Collection[int],
    spacing: Collection[float],
    structures: Mapping[str, tuple[int, ...]],
) -> float | None:
    """Measure how far walls move between labelled frames.

    The frames compared are, for each structure, those of its largest and its smallest area: ED and ES for a ventricle.

    Returns:
        The largest 95th percentile Hausdorff distance of any structure, in mm; None where no structure is visible in
        two labelled frames.
    """
    distances = []
    for values in structures.values():
        masks = [np.isin(mask[frame], values) for frame in labelled_frames]
        masks = sorted((m for m in masks if m.any()), key=np.count_nonzero)
        if len(masks) > 1:
            distances.append(surface_distances(masks[0], masks[-1], tuple(spacing)).hausdorff95())
    return max(distances, default=None)


def _frames(image: np.ndarray, first: int = 0) -> np.ndarray:
    """Put frames first, (T, C, Y, X), starting from frame ``first``."""
    return np.moveaxis(image, 1, 0)[first:]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
