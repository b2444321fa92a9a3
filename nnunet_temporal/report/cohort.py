"""Which files a report is made of: the movies, the masks that were predicted of them, and what an expert drew."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_temporal.datasets.image_io import SEQUENCE_ENDING
from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.pairs import derive_from_masks, group_by_stack, list_masks
from nnunet_temporal.inference.job import Job
from nnunet_temporal.inference.prediction_jobs import find_jobs
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence, case_name

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class StackSources:
    """The files of one stack of slices, or of one view.

    Attributes:
        name: What files of the whole stack are called.
        sequences: Its sequences, by slice.
        images: One movie with all slices, or one sequence each; a job knows how its file is read.
        masks: One file of masks with all slices, or one each.
        truth: The same of the expert's masks, None for a slice that nobody drew; empty where there are none at all.
    """

    name: str
    sequences: tuple[Sequence, ...]
    images: tuple[Job, ...]
    masks: tuple[Path, ...]
    truth: tuple[Path | None, ...]


@dataclass(frozen=True)
class StudySources:
    """The files of one study."""

    name: str
    stacks: tuple[StackSources, ...]


@dataclass(frozen=True)
class Cohort:
    """What was found.

    Attributes:
        studies: Those with masks, sorted by name.
        not_predicted: Names of movies and sequences without masks.
    """

    studies: list[StudySources]
    not_predicted: list[str]


def find_cohort(
    images: Path, masks: Path, truth: Path | None, manifest: Manifest | None, view: str | None = None
) -> Cohort:
    """Find the masks in a folder, the movies that they were predicted of, and the expert's masks.

    All three may be whole movies or one sequence per slice, each as it is; they belong together by name.

    Args:
        images: Folder of what was given to ``predict`` or ``nnUNetv2_predict``, or one movie.
        masks: Folder of the predicted masks, NIfTI.
        truth: Folder of the expert's masks, NIfTI; it need not have them all.
        manifest: The sequences of the dataset; None derives it from the masks.
        view: The view of movies of one slice of which nothing else says it.

    Returns:
        The studies.

    Raises:
        InputError: A folder is missing or empty, masks have no movie, the manifest does not know them, or no movie can
            be of the view.
    """
    jobs = {job.name: job for job in find_jobs(images, masks, SEQUENCE_ENDING)}
    predicted = list_masks(masks, "-p")
    drawn = list_masks(truth, "-ref") if truth else {}
    manifest = derive_from_masks(predicted) if manifest is None else manifest
    studies: dict[str, list[StackSources]] = {}
    known: set[str] = set()
    without_movie: list[str] = []
    twice: list[str] = []
    for (study, known_view), sequences in group_by_stack(manifest, view).items():
        whole = case_name(study, view=known_view)
        present = sequences if whole in predicted else tuple(s for s in sequences if s.case in predicted)
        cases = {sequence.case for sequence in sequences}
        known |= {whole, *cases}
        twice += [whole] if whole in predicted and (cases - {whole}) & set(predicted) else []
        if not present:
            continue
        names = [whole] if whole in jobs else [sequence.case for sequence in present]
        without_movie += [name for name in names if name not in jobs]
        stack = StackSources(
            whole,
            present,
            tuple(jobs[name] for name in names if name in jobs),
            tuple(path for path in _files_of(predicted, whole, present) if path),
            _files_of(drawn, whole, present),
        )
        studies.setdefault(study, []).append(stack)
    _refuse(sorted(set(predicted) - known), masks, f"{MANIFEST_NAME} does not know; name the right one with -manifest")
    _refuse(twice, masks, "lie beside masks of their slices; which are meant? Remove the others")
    _refuse(without_movie, masks, f"have no movie in {images}; name the folder that was predicted with -i")
    covered = {name for name in jobs if name in predicted} | {
        job.name for stacks in studies.values() for stack in stacks for job in stack.images
    }
    return Cohort(
        [StudySources(name, tuple(studies[name])) for name in sorted(studies)],
        sorted(name for name in jobs if name not in covered),
    )


def _files_of(files: Mapping[str, Path], whole: str, sequences: tuple[Sequence, ...]) -> tuple[Path | None, ...]:
    """Return the file of the whole stack, or that of each sequence; nothing where there is neither."""
    if whole in files:
        return (files[whole],)
    each = tuple(files.get(sequence.case) for sequence in sequences)
    return each if any(each) else ()


def _refuse(names: list[str], folder: Path, what: str) -> None:
    """Raise InputError when there are masks that something is wrong with."""
    if names:
        raise InputError(f"{folder}: found masks {listed(names, _NAMED_AT_MOST)} that {what}")
