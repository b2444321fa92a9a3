"""How far apart the surfaces of two masks lie: Hausdorff distances, mean surface distances, surface Dice."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from nnunet_temporal.metrics.overlap import check_masks

# Short distances are looked up, longer ones searched for. What counts as short (in smallest spacings, and how many
# steps at most) changes the speed only; these are the quickest values for frames of 112x112 and stacks of 10x216x256.
_LONGEST_SHORT_STEP = 12
_MOST_SHORT_STEPS = 512
_STEPS_AT_A_TIME = 32


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """The distances between the surfaces of a prediction and a reference, from which every metric is read.

    All distances have the unit of the spacing they were computed with: mm, or pixels for a spacing of ones. Where both
    masks are empty every metric is NaN: there is nothing to find, so the pair is left out of means. Where exactly one
    is empty every distance is infinite, which says that the structure is missing (or invented) and must be counted
    rather than averaged.

    Attributes:
        prediction_to_reference: (N,) float64; from each surface element of the prediction to the nearest of the
            reference, all infinite when the reference is empty.
        reference_to_prediction: (M,) float64; the other way round.
    """

    prediction_to_reference: np.ndarray
    reference_to_prediction: np.ndarray

    def hausdorff(self) -> float:
        """Return the Hausdorff distance: the largest of all distances."""
        return self._summarise(lambda there, back: max(there.max(), back.max()))

    def hausdorff95(self) -> float:
        """Return the larger of the 95th percentiles of the two directions (as MONAI and surface-distance define HD95).

        Percentiles are interpolated linearly.
        """
        return self._summarise(lambda there, back: max(_percentile_95(there), _percentile_95(back)))

    def hausdorff95_pooled(self) -> float:
        """Return the 95th percentile of both directions thrown together (as MedPy defines HD95).

        An error that only one of the surfaces shows weighs less here than in :meth:`hausdorff95`: the two must not be
        compared with each other.
        """
        return self._summarise(lambda there, back: _percentile_95(np.concatenate((there, back))))

    def assd(self) -> float:
        """Return the average symmetric surface distance: the mean over the elements of both surfaces together."""
        return self._summarise(lambda there, back: np.concatenate((there, back)).mean())

    def masd(self) -> float:
        """Return the mean of the two directed mean distances, so that the longer surface does not outweigh the other.

        CAMUS calls it the mean absolute distance.
        """
        return self._summarise(lambda there, back: (there.mean() + back.mean()) / 2)

    def nsd(self, tolerance: float) -> float:
        """Return the normalised surface Dice: the share of both surfaces that lies within a tolerance of the other.

        Args:
            tolerance: The largest distance that still counts as agreement, in the unit of the spacing.

        Returns:
            A value in [0, 1]; 0 when exactly one of the masks is empty, NaN when both are.

        Raises:
            ValueError: If the tolerance is negative or not finite.
        """
        if not (math.isfinite(tolerance) and tolerance >= 0):
            raise ValueError(f"tolerance must be a finite number >= 0, got {tolerance}")
        distances = np.concatenate((self.prediction_to_reference, self.reference_to_prediction))
        return float(np.mean(distances <= tolerance)) if distances.size else math.nan

    def _summarise(self, statistic: Callable[[np.ndarray, np.ndarray], float]) -> float:
        """Return a statistic of the two directions, or what stands for it when a surface is missing."""
        surfaces = (self.prediction_to_reference.size > 0) + (self.reference_to_prediction.size > 0)
        if surfaces == 2:
            return float(statistic(self.prediction_to_reference, self.reference_to_prediction))
        return math.inf if surfaces == 1 else math.nan


def surface_distances(prediction: np.ndarray, reference: np.ndarray, spacing: Sequence[float]) -> SurfaceDistances:
    """Measure the distances between the surfaces of two masks, in both directions.

    A surface is made of the mask's own elements that touch the background across a face (4 neighbours in 2D, 6 in 3D);
    what lies outside the image is background, so that a mask cut off by the border has a surface there. Distances run
    between the centres of elements. MONAI and MedPy draw surfaces in the same way.

    Args:
        prediction: Boolean mask of any number of axes, usually (Y, X) or (Z, Y, X).
        reference: Boolean mask of the same shape.
        spacing: Distance between neighbouring elements along each axis, in the order of the axes. The results have its
            unit; spacings of one give pixels.

    Returns:
        The directed distances.

    Raises:
        ValueError: If a mask is not boolean, the shapes differ, or the spacing is not one positive number per axis.
    """
    check_masks(prediction=prediction, reference=reference)
    if len(spacing) != prediction.ndim or not all(math.isfinite(step) and step > 0 for step in spacing):
        raise ValueError(f"spacing must be {prediction.ndim} positive numbers, one per axis, got {tuple(spacing)}")
    spacing = tuple(float(step) for step in spacing)
    box = _bounding_box(prediction | reference)
    prediction_surface = _surface(_cut_out(prediction, box, spacing))
    reference_surface = _surface(_cut_out(reference, box, spacing))
    return SurfaceDistances(
        _directed_distances(prediction_surface, reference_surface, spacing),
        _directed_distances(reference_surface, prediction_surface, spacing),
    )


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    """Return the smallest box that holds all true elements, empty if there is none."""
    box = []
    for axis in range(mask.ndim):
        occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(occupied[0], occupied[-1] + 1) if occupied.size else slice(0))
    return tuple(box)


def _cut_out(mask: np.ndarray, box: tuple[slice, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Return the mask within a box, in a margin of background that no short step leaves."""
    margin = _short_steps(spacing)[0].max(axis=0)
    inside = mask[box]
    padded = np.zeros(np.add(inside.shape, 2 * margin), bool)
    padded[tuple(slice(width, width + length) for width, length in zip(margin, inside.shape, strict=True))] = inside
    return padded


def _surface(mask: np.ndarray) -> np.ndarray:
    """Return the elements of a mask that touch the background, or the border of the array, across a face."""
    centre = (slice(1, -1),) * mask.ndim
    surface = mask.copy()
    interior = mask[centre]
    for axis in range(mask.ndim):
        for neighbour in (slice(None, -2), slice(2, None)):
            interior = interior & mask[(*centre[:axis], neighbour, *centre[axis + 1 :])]
    surface[centre] &= ~interior
    return surface


@functools.lru_cache(maxsize=16)
def _short_steps(spacing: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the shortest steps between elements, in order of their length: (S, axes) int64 and (S,) lengths."""
    longest = _LONGEST_SHORT_STEP * min(spacing)
    reach = [int(longest / step) for step in spacing]
    grid = np.meshgrid(*(np.arange(-elements, elements + 1) for elements in reach), indexing="ij")
    steps = np.stack([axis.ravel() for axis in grid], axis=1)
    lengths = np.linalg.norm(steps * spacing, axis=1)
    # Beyond the longest step the grid has corners only; of the rest any number from the shortest on is complete.
    order = np.argsort(lengths)[: np.count_nonzero(lengths <= longest)][:_MOST_SHORT_STEPS]
    return steps[order], lengths[order]


def _directed_distances(start: np.ndarray, target: np.ndarray, spacing: tuple[float, ...]) -> np.ndarray:
    """Return the distance of each element of ``start`` to the nearest of ``target``, infinite without a target.

    Most surfaces lie close together. Each element therefore first looks for a target at the ends of the short steps,
    from the shortest on, so that the first one found is the nearest; a tree is searched for the few that find none.
    """
    points, targets = np.flatnonzero(start), np.flatnonzero(target)
    distances = np.full(points.size, math.inf)
    if not targets.size:
        return distances
    steps, lengths = _short_steps(spacing)
    flat_target, flat_steps = target.ravel(), steps @ target.strides  # a bool has one byte, so strides count elements
    far = np.arange(points.size)
    for first in range(0, lengths.size, _STEPS_AT_A_TIME):
        hits = flat_target[points[far, None] + flat_steps[first : first + _STEPS_AT_A_TIME]]  # (far, steps)
        found = hits.any(axis=1)
        distances[far[found]] = lengths[first + hits[found].argmax(axis=1)]
        far = far[~found]
        if not far.size:
            return distances
    # The tree is asked only once, so one that is quick to build beats one that is quick to search.
    tree = KDTree(_positions(targets, target.shape, spacing), leafsize=16, balanced_tree=False, compact_nodes=False)
    distances[far] = tree.query(_positions(points[far], target.shape, spacing))[0]
    return distances


def _positions(indices: np.ndarray, shape: tuple[int, ...], spacing: tuple[float, ...]) -> np.ndarray:
    """Return the (N, axes) positions of elements that are given by their indices into the flattened array."""
    return np.stack(np.unravel_index(indices, shape), axis=1) * spacing


def _percentile_95(distances: np.ndarray) -> float:
    """Return the 95th percentile, interpolated linearly between the sorted distances."""
    # np.percentile returns the same, but takes as long for a small surface as the search for its distances.
    return float(np.interp(0.95 * (distances.size - 1), np.arange(distances.size), np.sort(distances)))
