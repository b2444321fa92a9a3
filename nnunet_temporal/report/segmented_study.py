"""A study with its masks in memory: what figures, pictures and movies are made from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import read_header, read_image
from nnunet_temporal.datasets.problems import raise_problems
from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.evaluation.phase_frames import PhaseFrames, find_phase_frames
from nnunet_temporal.evaluation.stack import Stack, read_masks
from nnunet_temporal.inference.job import Job
from nnunet_temporal.inference.movie_jobs import InKindJob
from nnunet_temporal.report.cohort import StackSources, StudySources
from nnunet_temporal.sequences import Sequence as SequenceEntry


@dataclass(frozen=True, eq=False)
class SegmentedStack:
    """One stack of slices with its masks; a view is a stack of one.

    Attributes:
        name: Name of the study and, where it has several, of the view.
        image: (T, Z, Y, X) intensities.
        stack: The masks on the image's grid. Where nobody drew ED and ES, the prediction stands in for the reference,
            so that what concerns the prediction alone is measured as it always is.
        phases: ED and ES, from the manifest, the expert or the predicted curve, and the slices volumes are summed over.
        drawn: (T, Z) bool; what an expert drew.
        truth: (T, Z, Y, X) the expert's label values, background where nobody drew.
    """

    name: str
    image: np.ndarray
    stack: Stack
    phases: PhaseFrames
    drawn: np.ndarray
    truth: np.ndarray

    @property
    def is_compared(self) -> bool:
        """Whether an expert drew ED and ES, so that volumes can be compared."""
        return self.phases.pair is not None and bool(self.drawn[list(self.phases.pair)].all(axis=0).any())

    @property
    def n_frames(self) -> int:
        """Number of frames, T."""
        return self.stack.n_frames

    @property
    def cyclic(self) -> bool:
        """Whether the first frame follows the last one."""
        return self.stack.first.cyclic

    @property
    def frame_interval_s(self) -> float | None:
        """Time from one frame to the next in seconds; None when unknown."""
        return self.stack.first.frame_interval_s


@dataclass(frozen=True, eq=False)
class SegmentedStudy:
    """One study: its stacks, each with the movie and the masks."""

    name: str
    stacks: tuple[SegmentedStack, ...]


def read_study(sources: StudySources, labels: LabelScheme) -> SegmentedStudy:
    """Read a study.

    Args:
        sources: Its files.
        labels: The labels of the dataset.

    Returns:
        The study.

    Raises:
        InputError: A file is unreadable, lies on another grid than the movie or holds an unknown label value.
    """
    stacks = []
    for stack in sources.stacks:
        view = stack.sequences[0].view if len(sources.stacks) > 1 else None
        stacks.append(_read_stack(f"{sources.name} {view or ''}".strip(), stack, labels))
    return SegmentedStudy(sources.name, tuple(stacks))


def segmented_stack(name: str, image: np.ndarray, stack: Stack, labels: LabelScheme) -> SegmentedStack:
    """Put a movie and its masks together, and find ED and ES.

    Args:
        name: What to call it.
        image: (T, Z, Y, X) intensities.
        stack: Masks of the same grid; ``labelled`` says what an expert drew, which may be nothing.
        labels: The labels of the dataset.

    Returns:
        The stack. Without an expert's ED and ES they are those of the predicted curve.
    """
    drawn, truth = stack.labelled, stack.reference
    phases = find_phase_frames(stack, labels)
    if phases.pair is None or not drawn[list(phases.pair)].all(axis=0).any():
        everywhere = np.ones_like(stack.valid)
        stack = replace(stack, reference=stack.prediction, valid=everywhere, labelled=np.ones_like(drawn))
        phases = find_phase_frames(stack, labels)
    return SegmentedStack(name, image, stack, phases, drawn, truth)


def _read_stack(name: str, sources: StackSources, labels: LabelScheme) -> SegmentedStack:
    image = read_pixels(sources.images)
    known = {0, *labels.values.values()}
    masks, problems = read_masks(sources.masks, sources.sequences, known, sources.masks[0])
    if not problems and masks.shape != image.shape:
        problems.append(
            f"{sources.masks[0]}: found the shape (T, Z, Y, X) {masks.shape}, expected {image.shape} as in "
            f"{sources.images[0].files[0]}"
        )
    raise_problems(problems)
    truth, valid = _read_truth(sources, labels, masks.shape)
    first, spacing = sources.sequences[0], read_header(sources.masks[0]).spacing
    stack = Stack(
        sources.sequences,
        masks,
        truth,
        valid,
        np.asarray(valid.any(axis=(2, 3))),
        spacing.pixel_mm if first.pixel_spacing_known and spacing.pixel_known else None,
        first.slice_spacing_mm or spacing.slice_mm,
        masks.shape[2],
    )
    return segmented_stack(name, image, stack, labels)


def read_pixels(jobs: Sequence[Job]) -> np.ndarray:
    """Read the intensities of a stack from its movie or its sequences.

    Args:
        jobs: One movie, or one sequence per slice, of which the first channel is read.

    Returns:
        (T, Z, Y, X) intensities.

    Raises:
        InputError: A file is unreadable, or sequences differ in shape.
    """
    movies = [job.load()[0] if isinstance(job, InKindJob) else read_image(job.files[0]) for job in jobs]
    if len({movie.shape for movie in movies}) > 1:
        shapes = {job.files[0].name: movie.shape for job, movie in zip(jobs, movies, strict=True)}
        raise InputError(f"{jobs[0].files[0].parent}: found slices of different shapes in one study: {shapes}")
    if movies[0].ndim == 4:
        return movies[0]
    return np.stack(movies, axis=1)


def _read_truth(sources: StackSources, labels: LabelScheme, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the expert's masks (T, Z, Y, X) and where somebody drew; all background where nobody did."""
    truth, valid = np.zeros(shape, np.uint16), np.zeros(shape, bool)
    ignored = set() if labels.ignore is None else {labels.ignore}
    for places, paths, sequences in _drawn_slices(sources):
        drawn, problems = read_masks(paths, sequences, {0, *labels.values.values()} | ignored, sources.masks[0])
        if not problems and (drawn.shape[0], *drawn.shape[2:]) != (shape[0], *shape[2:]):
            problems.append(f"{paths[0]}: found the shape (T, Z, Y, X) {drawn.shape}, expected {shape} as in the movie")
        raise_problems(problems)
        valid[:, places] = True if labels.ignore is None else drawn != labels.ignore
        truth[:, places] = np.where(valid[:, places], drawn, 0)
    return truth, valid


def _drawn_slices(sources: StackSources) -> list[tuple[list[int], list[Path], Sequence[SequenceEntry]]]:
    """Return what to read together: the slices, their files and their entries in the manifest."""
    entries = sources.sequences
    if len(sources.truth) == 1 and sources.truth[0]:
        return [(list(range(len(entries))), [sources.truth[0]], entries)]
    return [([place], [path], entries[place : place + 1]) for place, path in enumerate(sources.truth) if path]
