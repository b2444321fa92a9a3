"""The masks of one stack of slices in memory, checked, with everything that tells how to measure them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import read_header, read_labels
from nnunet_temporal.datasets.problems import raise_problems
from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.evaluation.pairs import StackFiles, StudyFiles
from nnunet_temporal.sequences import Sequence as SequenceEntry

# Views that show the long axis of the left ventricle, in which Simpson's rule applies, by the names they go by.
APICAL_VIEWS = {"2CH": "2CH", "A2C": "2CH", "AP2": "2CH", "4CH": "4CH", "A4C": "4CH", "AP4": "4CH"}


@dataclass(frozen=True, eq=False)
class Stack:
    """Reference and prediction of one stack of slices; a view is a stack of one.

    Attributes:
        sequences: The entries of its Z sequences in the manifest.
        prediction: (T, Z, Y, X) label values, uint8 or uint16.
        reference: (T, Z, Y, X) label values; background where nobody labelled.
        valid: (T, Z, Y, X) bool; the pixels that somebody labelled.
        labelled: (T, Z) bool; the frames of each slice in which somebody labelled anything.
        pixel_mm: Spacing of (Y, X) in mm; None when unknown.
        slice_mm: Distance between slice centres in mm; None when unknown.
        image_rows: Number of rows of the whole image, of which the masks hold the part with labels.
    """

    sequences: tuple[SequenceEntry, ...]
    prediction: np.ndarray
    reference: np.ndarray
    valid: np.ndarray
    labelled: np.ndarray
    pixel_mm: tuple[float, float] | None
    slice_mm: float | None
    image_rows: int

    @property
    def first(self) -> SequenceEntry:
        """The entry that speaks for the whole stack: its slices share ED, ES and frame interval."""
        return self.sequences[0]

    @property
    def n_frames(self) -> int:
        """Number of frames, T."""
        return len(self.prediction)

    @property
    def apical_view(self) -> str | None:
        """``2CH`` or ``4CH``, the views that show the long axis; None for any other, and for several slices."""
        return APICAL_VIEWS.get((self.first.view or "").upper()) if len(self.sequences) == 1 else None

    @property
    def is_apical(self) -> bool:
        """Whether this is one slice that shows the long axis."""
        return self.apical_view is not None

    @property
    def unit(self) -> str:
        """Unit of lengths: mm, or px where the spacing is unknown. Areas have its square."""
        return "px" if self.pixel_mm is None else "mm"

    @property
    def pixel_spacing(self) -> tuple[float, float]:
        """Spacing of (Y, X) in :attr:`unit`."""
        return (1.0, 1.0) if self.pixel_mm is None else self.pixel_mm

    @cached_property
    def scored_prediction(self) -> np.ndarray:
        """The prediction with background where nobody labelled: what the reference may be compared with."""
        return np.where(self.valid, self.prediction, 0).astype(self.prediction.dtype)

    @property
    def positions_mm(self) -> np.ndarray | None:
        """(Z,) positions of the slices along the stack; None for a single slice or an unknown distance."""
        slices = [sequence.slice for sequence in self.sequences]
        if len(slices) < 2 or self.slice_mm is None or None in slices:
            return None
        return np.array(slices, np.float64) * self.slice_mm


def check_study(study: StudyFiles, labels: LabelScheme) -> list[str]:
    """Read all files of a study and return every problem found; empty when all is well."""
    return [problem for files in study.stacks for problem in _read_both(files, labels)[1]]


def read_stack(files: StackFiles, labels: LabelScheme) -> Stack:
    """Read one stack and cut it to the box that holds all its labels, since nothing outside counts for any metric.

    Args:
        files: Its files.
        labels: The labels of the dataset.

    Returns:
        The masks.

    Raises:
        InputError: A file is unreadable, lies on another grid than its counterpart or holds an unknown label value.
    """
    sides, problems = _read_both(files, labels)
    raise_problems(problems)
    reference, prediction = sides
    first, header = files.sequences[0], read_header(files.reference[0])
    valid: np.ndarray = np.ones(reference.shape, bool) if labels.ignore is None else reference != labels.ignore
    reference = np.where(valid, reference, 0)
    occupied: np.ndarray = (reference > 0) | (prediction > 0)
    y, x = (_extent(occupied, axis) for axis in (2, 3))
    box = np.s_[:, :, y, x]
    known = first.pixel_spacing_known and header.spacing.pixel_known
    return Stack(
        files.sequences,
        np.ascontiguousarray(prediction[box]),
        np.ascontiguousarray(reference[box]),
        np.ascontiguousarray(valid[box]),
        np.asarray(valid.any(axis=(2, 3))),
        header.spacing.pixel_mm if known else None,
        first.slice_spacing_mm or header.spacing.slice_mm,
        reference.shape[2],
    )


def _extent(occupied: np.ndarray, axis: int) -> slice:
    """Return the smallest part of an axis that holds all true entries, and one entry where there is none."""
    places = np.flatnonzero(occupied.any(axis=tuple(other for other in range(occupied.ndim) if other != axis)))
    return slice(int(places[0]), int(places[-1]) + 1) if places.size else slice(0, 1)


def read_masks(
    paths: Sequence[Path], sequences: Sequence[SequenceEntry], allowed: set[int], like: Path
) -> tuple[np.ndarray, list[str]]:
    """Read the masks of a stack and say what is wrong with them.

    Args:
        paths: One file (x, y, t) per sequence, or a single file (x, y, z, t) with all of them.
        sequences: Their entries in the manifest, by slice.
        allowed: The label values that may occur.
        like: A file with the pixel spacing that is expected.

    Returns:
        (T, Z, Y, X) label values, whole only without problems, and the problems.
    """
    problems: list[str] = []
    masks = []
    for path in paths:
        try:
            masks.append(_read_mask(path, allowed))
            _check_spacing(path, like)
        except InputError as error:
            problems.append(str(error))
    try:
        return _stacked(masks, sequences, paths), problems
    except InputError as error:
        return np.empty(0), [*problems, str(error)]


def _read_both(files: StackFiles, labels: LabelScheme) -> tuple[list[np.ndarray], list[str]]:
    """Read reference and prediction, (T, Z, Y, X) each, and say what is wrong with them.

    Returns:
        The two sides, whole only without problems, and the problems.
    """
    known = {0, *labels.values.values()}
    ignored = set() if labels.ignore is None else {labels.ignore}
    like = files.reference[0]
    reference, problems = read_masks(files.reference, files.sequences, known | ignored, like)
    prediction, more = read_masks(files.prediction, files.sequences, known, like)
    problems += more
    if not problems and reference.shape != prediction.shape:
        problems.append(
            f"{files.prediction[0]}: found the shape (T, Z, Y, X) {prediction.shape}, expected {reference.shape} as in "
            f"{files.reference[0]}"
        )
    return [reference, prediction], problems


def _read_mask(path: Path, allowed: set[int]) -> np.ndarray:
    """Read a mask and refuse label values that the dataset does not have."""
    mask = read_labels(path)
    found = set(np.flatnonzero(np.bincount(mask.ravel())).tolist())
    if unknown := sorted(found - allowed):
        raise InputError(f"{path}: found label values {unknown}, expected only {sorted(allowed)} as in dataset.json")
    return mask


def _check_spacing(path: Path, other: Path) -> None:
    """Refuse a file whose pixels have another size than those of another file."""
    found, expected = (read_header(each).spacing.pixel_mm for each in (path, other))
    if not np.allclose(found, expected, rtol=1e-3):
        raise InputError(f"{path}: found pixel spacing {found} mm (y, x), expected {expected} as in {other}")


def _stacked(masks: list[np.ndarray], sequences: Sequence[SequenceEntry], paths: Sequence[Path]) -> np.ndarray:
    """Return the masks of one merged file or of each sequence as (T, Z, Y, X), as long as the manifest says.

    Where files could not be read there is nothing to check.
    """
    if len(masks) < len(paths):
        return np.empty(0)
    if len({mask.shape for mask in masks}) > 1:
        shapes = {path.name: mask.shape for path, mask in zip(paths, masks, strict=True)}
        raise InputError(f"{paths[0].parent}: found slices of different shapes (T, Y, X) in one study: {shapes}")
    stack = masks[0] if masks[0].ndim == 4 else np.stack(masks, axis=1)
    expected = (sequences[0].n_frames, len(sequences))
    if stack.shape[:2] != expected:
        raise InputError(
            f"{paths[0]}: found {stack.shape[0]} frames of {stack.shape[1]} slices, expected {expected[0]} of "
            f"{expected[1]} as in sequences.json"
        )
    return stack
