"""Which predicted file belongs to which reference file, and by which study they are measured together."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from nnunet_temporal.datasets.image_io import SEQUENCE_ENDING, find_niftis, nifti_name, read_header
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest, Sequence, case_name, parse_case_name

Files = Mapping[str, Path]


@dataclass(frozen=True)
class StackFiles:
    """The files of one stack of slices, or of one view: a view, and a sequence on its own, is a stack of one.

    Attributes:
        sequences: Its sequences, by slice.
        reference: One file (x, y, t) per sequence, or a single file (x, y, z, t) with all of them.
        prediction: The same for the prediction; one side may be a single file and the other not.
    """

    sequences: tuple[Sequence, ...]
    reference: tuple[Path, ...]
    prediction: tuple[Path, ...]


@dataclass(frozen=True)
class StudyFiles:
    """The files of one study."""

    name: str
    stacks: tuple[StackFiles, ...]


@dataclass(frozen=True)
class Pairing:
    """What a reference and a prediction folder have in common.

    Attributes:
        studies: Studies with reference and prediction, sorted by name.
        missing: Predictions that do not exist though their reference does.
        left_out: Studies that are not in ``studies`` because one of their predictions is missing.
        extra: Names of predicted files without a reference.
    """

    studies: list[StudyFiles]
    missing: list[Path]
    left_out: list[str]
    extra: list[str]


def pair_studies(
    reference_folder: Path, prediction_folder: Path, manifest: Manifest | None, view: str | None = None
) -> Pairing:
    """Find the reference files, the predictions that belong to them, and their studies.

    Args:
        reference_folder: Masks ``<case>.nii.gz`` (x, y, t), or ``<study>.nii.gz`` (x, y, z, t) as written by ``merge``.
        prediction_folder: Masks of the same names; the two folders need not be alike in being split or merged.
        manifest: The sequences of the dataset, of which the folder may hold a part. None derives one from the files.
        view: The view of movies of one slice of which nothing else says it.

    Returns:
        The studies, in order.

    Raises:
        InputError: A folder holds no masks, references are unreadable or not in the manifest, of which all are listed,
            or no movie can be of the view.
    """
    references, predictions = list_masks(reference_folder, "-ref"), list_masks(prediction_folder, "-pred")
    manifest = derive_from_masks(references) if manifest is None else manifest
    groups = group_by_stack(manifest, view)
    _refuse_strangers(references, {case_name(study, view=view) for study, view in groups} | set(manifest))
    stacks: dict[str, list[StackFiles]] = {}
    missing: dict[str, list[Path]] = {}
    for (study, known_view), sequences in groups.items():
        whole = case_name(study, view=known_view)
        present = sequences if whole in references else tuple(s for s in sequences if s.case in references)
        if not present:
            continue
        pair = StackFiles(
            present,
            _files_of(references, whole, present, reference_folder),
            _files_of(predictions, whole, present, prediction_folder),
        )
        stacks.setdefault(study, []).append(pair)
        missing.setdefault(study, []).extend(path for path in pair.prediction if not path.is_file())
    used = {path.resolve() for pairs in stacks.values() for pair in pairs for path in pair.prediction}
    return Pairing(
        studies=[StudyFiles(study, tuple(stacks[study])) for study in sorted(stacks) if not missing[study]],
        missing=[path for study in sorted(missing) for path in missing[study]],
        left_out=[study for study in sorted(missing) if missing[study]],
        extra=[name for name, path in predictions.items() if path.resolve() not in used],
    )


def derive_from_masks(masks: Files) -> Manifest:
    """Describe sequences by what their mask files say: names and shapes. Frame intervals, ED and ES stay unknown.

    Which frames are labelled is not looked at: the masks themselves tell when they are read.

    Args:
        masks: Name to file, (x, y, t) named ``<study>`` or ``<study>_zNN``, or (x, y, z, t) named ``<study>``.

    Returns:
        The manifest.

    Raises:
        InputError: A file is unreadable.
    """

    def describe(name: str) -> list[Sequence]:
        header = read_header(masks[name])
        study, z, view = parse_case_name(name)
        slices: list[int | None] = [z] if len(header.shape) == 3 else list(range(header.shape[1]))
        if len(header.shape) == 4:
            study = name
        return [
            Sequence(
                case_name(study, z),
                study,
                header.shape[0],
                labelled_frames=(),
                slice=z,
                view=view,
                frame_interval_s=header.spacing.frame_s,
                slice_spacing_mm=header.spacing.slice_mm,
                pixel_spacing_known=header.spacing.pixel_known,
            )
            for z in slices
        ]

    return Manifest({s.case: s for group in apply_to_all(masks, describe) for s in group})


def list_masks(folder: Path, argument: str) -> dict[str, Path]:
    """Return the NIfTI files of a folder by name."""
    files = {nifti_name(path): path for path in find_niftis(folder)} if folder.is_dir() else {}
    if not files:
        raise InputError(f"{argument} {folder}: found no masks (.nii.gz, .nii); expected a folder of them")
    return files


def _refuse_strangers(references: Files, known: set[str]) -> None:
    """Raise InputError when the manifest does not know a reference."""
    if strangers := sorted(set(references) - known):
        raise InputError(
            f"{references[strangers[0]].parent}: found references that sequences.json does not know: "
            f"{', '.join(strangers)}; name the right manifest with -manifest"
        )


def group_by_stack(
    manifest: Manifest, named_view: str | None = None
) -> dict[tuple[str, str | None], tuple[Sequence, ...]]:
    """Group sequences by stack.

    Args:
        manifest: The sequences.
        named_view: The view of stacks of one slice of which the manifest does not say it.

    Returns:
        (study, view in the manifest), by which files are called, to the sequences of the stack; in the order of
        studies, slices and views.

    Raises:
        InputError: A study would have the named view twice, or no stack is of it.
    """
    groups: dict[tuple[str, str | None], list[Sequence]] = {}
    for study in manifest.studies():
        for sequence in study.sequences:
            groups.setdefault((study.name, sequence.view), []).append(sequence)
    stacks = {place: tuple(sequences) for place, sequences in groups.items()}
    return stacks if named_view is None else _in_view(stacks, named_view)


def _in_view(
    stacks: dict[tuple[str, str | None], tuple[Sequence, ...]], named_view: str
) -> dict[tuple[str, str | None], tuple[Sequence, ...]]:
    """Return the stacks, those of one slice and of unknown view in the named one."""
    seen = dict(stacks)
    for (study, view), sequences in stacks.items():
        if view is not None or len(sequences) > 1:
            continue
        if (study, named_view) in stacks:
            raise InputError(
                f"--view {named_view}: found {stacks[study, named_view][0].case} of that view beside "
                f"{sequences[0].case}; say in sequences.json which view each is"
            )
        seen[study, view] = (replace(sequences[0], view=named_view),)
    if all(sequences[0].view != named_view for sequences in seen.values()):
        found = {view or "stacks of slices" for _, view in stacks}
        raise InputError(
            f"--view {named_view}: found {', '.join(sorted(found))} and no single slice of unknown view; remove "
            "--view, or say in sequences.json which view each movie is"
        )
    return seen


def _files_of(files: Files, whole: str, sequences: tuple[Sequence, ...], folder: Path) -> tuple[Path, ...]:
    """Return the merged file of a stack, or that of each sequence; for a missing one the path it should have."""
    if whole in files:
        return (files[whole],)
    return tuple(files.get(s.case, folder / f"{s.case}{SEQUENCE_ENDING}") for s in sequences)
