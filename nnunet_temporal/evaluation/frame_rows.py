"""One row of figures per frame and structure of a stack."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.evaluation.label_scheme import EPI, LabelScheme, structure_mask
from nnunet_temporal.evaluation.options import MEDPY_POOLED, ROWWISE_DICE, Options
from nnunet_temporal.evaluation.phase_frames import PhaseFrames
from nnunet_temporal.evaluation.stack import Stack
from nnunet_temporal.metrics.overlap import (
    OverlapCounts,
    legacy_rowwise_dice,
    legacy_rowwise_iou,
    overlap_counts,
)
from nnunet_temporal.metrics.surface import surface_distances
from nnunet_temporal.metrics.validity import count_holes, count_parts, ring_opening_share
from nnunet_temporal.sequences import Sequence

# Figures that a table does not have for a row are absent from it.
Row = dict[str, str | int | float]


@dataclass(frozen=True, eq=False)
class StructureMovie:
    """One structure in one sequence.

    Attributes:
        name: Name of the structure.
        sequence: The sequence's entry in the manifest.
        prediction: (T, Y, X) bool, all that was predicted.
        scored: (T, Y, X) bool, the prediction where somebody labelled.
        reference: (T, Y, X) bool, meaningful where somebody labelled.
        labelled: (T,) bool.
    """

    name: str
    sequence: Sequence
    prediction: np.ndarray
    scored: np.ndarray
    reference: np.ndarray
    labelled: np.ndarray

    @property
    def is_dense(self) -> bool:
        """Whether every frame is labelled."""
        return bool(self.labelled.all())

    def counts(self) -> dict[int, OverlapCounts]:
        """Return the overlap in each labelled frame."""
        frames = np.flatnonzero(self.labelled).tolist()
        return {frame: overlap_counts(self.scored[frame], self.reference[frame]) for frame in frames}


def structure_movies(stack: Stack, labels: LabelScheme) -> Iterator[StructureMovie]:
    """Yield every structure of every sequence of a stack, by slice, then structure."""
    scored_labels = stack.scored_prediction
    for z, sequence in enumerate(stack.sequences):
        for name, values in labels.structures().items():
            prediction, scored, reference = (
                structure_mask(masks[:, z], values) for masks in (stack.prediction, scored_labels, stack.reference)
            )
            yield StructureMovie(name, sequence, prediction, scored, reference, stack.labelled[:, z])


def measure_frames(
    stack: Stack, movie: StructureMovie, phases: PhaseFrames, labels: LabelScheme, options: Options
) -> list[Row]:
    """Measure one structure in every frame of one sequence.

    Overlap and distances are there for labelled frames only, area and validity of the prediction for all.

    Returns:
        One row per frame, in order.
    """
    counts = movie.counts()
    validity = {"predicted": _validity(stack, movie, labels, "prediction")}
    if counts:
        validity["reference"] = _validity(stack, movie, labels, "reference")
    pixel_area = float(np.prod(stack.pixel_spacing))
    rows = []
    for frame in range(stack.n_frames):
        row: Row = {
            "case": movie.sequence.case,
            "study": movie.sequence.study,
            "frame": frame,
            "phase": phases.name(frame),
            "label": movie.name,
            "labelled": int(movie.labelled[frame]),
        }
        if frame in counts:
            row |= {"dice": counts[frame].dice(), "iou": counts[frame].iou()}
            row |= _distances(stack, movie, frame, options)
        for side, masks in (("predicted", movie.prediction), ("reference", movie.reference)):
            if side == "predicted" or frame in counts:
                row[f"area_{side}_{stack.unit}2"] = float(np.count_nonzero(masks[frame])) * pixel_area
                row |= {name.format(side=side): float(values[frame]) for name, values in validity[side].items()}
        rows.append(row)
    return rows


def _distances(stack: Stack, movie: StructureMovie, frame: int, options: Options) -> Row:
    """Return the surface distances of one labelled frame, and what the compatibility modes add."""
    prediction, reference = movie.scored[frame], movie.reference[frame]
    surfaces = surface_distances(prediction, reference, stack.pixel_spacing)
    row: Row = {
        f"hd_{stack.unit}": surfaces.hausdorff(),
        f"hd95_{stack.unit}": surfaces.hausdorff95(),
        f"assd_{stack.unit}": surfaces.assd(),
        f"masd_{stack.unit}": surfaces.masd(),
        f"nsd_{options.nsd_tolerance:g}{stack.unit}": surfaces.nsd(options.nsd_tolerance),
    }
    if MEDPY_POOLED in options.compat:
        row[f"hd95_medpy_pooled_{stack.unit}"] = surfaces.hausdorff95_pooled()
    if ROWWISE_DICE in options.compat:
        # These count empty rows, so that the rows without labels have to be put back.
        margin = ((0, stack.image_rows - len(reference)), (0, 0))
        whole = np.pad(prediction, margin), np.pad(reference, margin)
        row |= {"dice_rowwise": legacy_rowwise_dice(*whole), "iou_rowwise": legacy_rowwise_iou(*whole)}
    return row


def _validity(stack: Stack, movie: StructureMovie, labels: LabelScheme, side: str) -> dict[str, np.ndarray]:
    """Return the (T,) validity figures of ``prediction`` or ``reference``, with ``{side}`` in their names."""
    masks = getattr(movie, side)
    figures: dict[str, np.ndarray] = {"parts_{side}": count_parts(masks)}
    wall_is_judged_with_cavity = EPI in labels.structures() and movie.name == labels.roles.get("MYO")
    if not wall_is_judged_with_cavity:
        figures["holes_{side}"] = count_holes(masks)
    slice_labels = getattr(stack, side)[:, stack.sequences.index(movie.sequence)]
    wall = labels.role_mask(slice_labels, "MYO")
    if movie.name == labels.roles.get("LV") and wall is not None:
        atrium = labels.role_mask(slice_labels, "LA") if stack.is_apical else None
        figures["ring_opening_{side}_share"] = ring_opening_share(masks, wall, atrium)
    return figures
