"""Everything about one study, and all studies of a folder on several processes."""

import multiprocessing
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from nnunet_temporal.evaluation.frame_rows import Row, measure_frames, structure_movies
from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.evaluation.options import Options
from nnunet_temporal.evaluation.pairs import StudyFiles
from nnunet_temporal.evaluation.phase_frames import find_phase_frames
from nnunet_temporal.evaluation.sequence_rows import measure_sequence
from nnunet_temporal.evaluation.stack import check_study, read_stack
from nnunet_temporal.evaluation.study_rows import measure_study_rows
from nnunet_temporal.metrics.overlap import OverlapCounts

Result = TypeVar("Result")


@dataclass
class Measurements:
    """The tables of one study or of many.

    Attributes:
        frames: One row per frame and structure.
        sequences: One row per sequence and structure.
        studies: One row per study and structure.
        counts: Structure to its overlap, added up over all labelled frames.
    """

    frames: list[Row] = field(default_factory=list)
    sequences: list[Row] = field(default_factory=list)
    studies: list[Row] = field(default_factory=list)
    counts: dict[str, OverlapCounts] = field(default_factory=dict)

    def extend(self, other: "Measurements") -> None:
        """Append the tables of another study."""
        self.frames += other.frames
        self.sequences += other.sequences
        self.studies += other.studies
        for name, counts in other.counts.items():
            self.counts[name] = self.counts.get(name, OverlapCounts(0, 0, 0)) + counts


def measure_study(study: StudyFiles, labels: LabelScheme, options: Options) -> Measurements:
    """Read one study and measure everything.

    Args:
        study: Its files, which :func:`~nnunet_temporal.evaluation.stack.check_study` has found to be in order.
        labels: The labels of the dataset.
        options: What to measure.

    Returns:
        Its tables.
    """
    result = Measurements()
    stacks = [read_stack(files, labels) for files in study.stacks]
    phases = [find_phase_frames(stack, labels) for stack in stacks]
    for stack, stack_phases in zip(stacks, phases, strict=True):
        for movie in structure_movies(stack, labels):
            rows = measure_frames(stack, movie, stack_phases, labels, options)
            row = measure_sequence(stack, movie, rows, stack_phases, labels, options)
            counts = {movie.name: sum(movie.counts().values(), OverlapCounts(0, 0, 0))}
            result.extend(Measurements(rows, [row], [], counts))
    result.studies = measure_study_rows(study.name, stacks, phases, labels, options)
    return result


def measure_studies(
    studies: list[StudyFiles], labels: LabelScheme, options: Options, processes: int = 1
) -> Measurements:
    """Measure many studies, in order whatever the number of processes.

    Args:
        studies: Their files.
        labels: The labels of the dataset.
        options: What to measure.
        processes: Number of processes.

    Returns:
        The tables of all studies.
    """
    result = Measurements()
    for measured in _map(partial(measure_study, labels=labels, options=options), studies, processes, "Measuring"):
        result.extend(measured)
    return result


def check_studies(studies: list[StudyFiles], labels: LabelScheme, processes: int = 1) -> list[str]:
    """Read all files of all studies and return every problem found, in order."""
    found = _map(partial(check_study, labels=labels), studies, processes, "Checking masks")
    return [problem for problems in found for problem in problems]


def _map(
    action: Callable[[StudyFiles], Result], studies: list[StudyFiles], processes: int, title: str
) -> Iterable[Result]:
    """Apply an action to each study with a progress bar and yield the results in order."""
    if processes <= 1 or len(studies) < 2:
        yield from map(action, tqdm(studies, desc=title, unit="study"))
        return
    # Spawned like nnU-Net's own workers: forking a process that holds threads may lock up.
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        yield from tqdm(pool.imap(action, studies), desc=title, unit="study", total=len(studies))
