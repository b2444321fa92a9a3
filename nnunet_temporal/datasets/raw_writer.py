"""The one writer all converters call: studies in, a raw nnU-Net dataset with manifest and study-wise splits out."""

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from nnunet_temporal.atomic import write_json
from nnunet_temporal.datasets.finished_studies import (
    fingerprint,
    finished_sequences,
    is_finished,
    move_study,
    write_study,
)
from nnunet_temporal.datasets.image_io import SEQUENCE_ENDING
from nnunet_temporal.datasets.official_folds import Folds, official_splits
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.splits_file import SPLITS_NAME
from nnunet_temporal.datasets.study_source import IGNORE, StudySource, inspect_source
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence, Splits, study_splits

DEFAULT_WORKERS = 4
# Of 255 bytes for a file name, the ending and the mark of an unfinished file take some.
_LONGEST_NAME = 200

Result = TypeVar("Result")


@dataclass(frozen=True)
class DatasetInfo:
    """What nnU-Net has to know about a dataset besides its cases.

    Attributes:
        dataset_id: Number in 1..999.
        name: Letters, digits, ``_`` and ``-``; the folder is called ``DatasetXXX_name``.
        labels: Label names and values: background 0, classes 1..n, and optionally ``ignore`` n + 1.
        channel: Channel name; nnU-Net chooses the intensity normalisation by it.
    """

    dataset_id: int
    name: str
    labels: dict[str, int]
    channel: str

    @property
    def folder_name(self) -> str:
        """Name of the dataset's folder in each of nnU-Net's three folders."""
        return f"Dataset{self.dataset_id:03d}_{self.name}"


@dataclass(frozen=True)
class RawDataset:
    """A raw dataset that has been written.

    Attributes:
        folder: Its folder.
        manifest: All sequences.
        held_out: The held-out studies.
        splits: The folds.
        split_kind: How they were made, in words.
        n_resumed: Number of sources that an earlier, stopped call had finished.
    """

    folder: Path
    manifest: Manifest
    held_out: tuple[str, ...]
    splits: Splits
    split_kind: str
    n_resumed: int


def write_raw_dataset(
    sources: Iterable[StudySource],
    info: DatasetInfo,
    nnunet_raw: Path,
    *,
    held_out: Collection[str] = (),
    folds: Folds | None = None,
    workers: int = DEFAULT_WORKERS,
    overwrite: bool = False,
) -> RawDataset:
    """Check all studies, then write them as one raw dataset; a half-written one is never seen under its name.

    Every frame without a mask carries the ignore label, which is added to the labels where it is missing. Training
    sequences without any mask get an all-ignore label file, because nnU-Net wants one for each training image.

    Studies are written into a hidden folder beside the dataset, ``.partial_DatasetXXX_name``. Where the process is
    stopped or the disk is full it stays, and the next call neither checks nor writes those studies again that were
    finished and have not changed since. Any other failure while writing removes it; bad input is found before.

    Args:
        sources: The studies, in any order.
        info: Dataset id, name, labels and channel.
        nnunet_raw: nnU-Net's raw folder; must exist.
        held_out: Studies that go to ``imagesTs`` and ``labelsTs`` and into no fold.
        folds: Studies for training and for validation of each official fold; None to make folds by study.
        workers: Number of threads, each with one study in memory.
        overwrite: Replace an existing dataset of this id and name.

    Returns:
        What was written.

    Raises:
        InputError: A study, a name, the id, the labels or the folds are at fault; one message lists all bad studies.
    """
    target = target_folder(info, nnunet_raw, overwrite)
    working = target.parent / f".partial_{target.name}"
    labels = _with_ignore(info.labels)
    sources = sorted(sources, key=lambda source: (source.study, source.view or ""))
    _check_held_out(held_out, {source.study for source in sources})
    studies = [_Study(source, working / fingerprint(source, labels)) for source in sources]
    to_write = [study for study in studies if not is_finished(study.folder)]
    sequences = _in_threads(studies, lambda study: _sequences_of(study, labels), workers, "Checking studies")
    manifest = _manifest_of([sequence for group in sequences for sequence in group])
    training = manifest.subset(case for case, sequence in manifest.items() if sequence.study not in held_out)
    splits = study_splits(training) if folds is None else official_splits(folds, manifest, held_out)
    with _removed_on_failure(working):
        # Threads, because most of the work is compression, which they do side by side, and start at no cost.
        write = partial(_write_study, manifest=manifest, ignore=labels[IGNORE])
        _in_threads(to_write, write, workers, f"Writing {info.folder_name}")
        folder = _gather(studies, set(held_out), working / target.name)
        write_json(_dataset_json(info, labels, len(training)), folder / "dataset.json")
        manifest.write(folder / MANIFEST_NAME)
        write_json(splits, folder / SPLITS_NAME)
        _replace(target, folder)
    split_kind = "by study" if folds is None else "official"
    return RawDataset(target, manifest, tuple(sorted(held_out)), splits, split_kind, len(studies) - len(to_write))


def check_dataset_id(info: DatasetInfo, nnunet_folders: Iterable[Path]) -> None:
    """Check id and name of a dataset, and that no other dataset has the id in any of nnU-Net's folders.

    Args:
        info: The dataset.
        nnunet_folders: Existing folders to look in: raw, preprocessed, results.

    Raises:
        InputError: Id or name break nnU-Net's rules, or another dataset has the id. nnU-Net finds datasets by id and
            stops when one id has two names.
    """
    if not 1 <= info.dataset_id <= 999:
        raise InputError(f"dataset id: found {info.dataset_id}, expected a number in 1..999")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", info.name):
        raise InputError(f"dataset name: found {info.name!r}, expected letters, digits, '_' and '-' only")
    for folder in nnunet_folders:
        for other in sorted(folder.glob(f"Dataset{info.dataset_id:03d}*")):
            if other.name != info.folder_name:
                raise InputError(f"dataset id {info.dataset_id} is already used by {other}; choose another id")


def target_folder(info: DatasetInfo, nnunet_raw: Path, overwrite: bool) -> Path:
    """Return the folder that a dataset will have, after a check that it may be written.

    Raises:
        InputError: As :func:`check_dataset_id`, or it exists and shall not be replaced.
    """
    check_dataset_id(info, [nnunet_raw])
    target = nnunet_raw / info.folder_name
    if target.exists() and not overwrite:
        raise InputError(f"{target}: the dataset exists already; pass --overwrite to replace it or take another id")
    return target


def _dataset_json(info: DatasetInfo, labels: dict[str, int], n_training: int) -> dict[str, object]:
    return {
        "channel_names": {"0": info.channel},
        "labels": labels,
        "numTraining": n_training,
        "file_ending": SEQUENCE_ENDING,
    }


def _with_ignore(labels: dict[str, int]) -> dict[str, int]:
    classes = {name: value for name, value in labels.items() if name != IGNORE}
    if classes.get("background") != 0 or sorted(map(str, classes.values())) != sorted(map(str, range(len(classes)))):
        raise InputError(f"labels: found {labels}, expected background 0 and classes 1, 2, ... without gaps")
    if len(classes) < 2:
        raise InputError(f"labels: found {labels}, expected at least one class besides background")
    if labels.get(IGNORE, len(classes)) != len(classes):
        raise InputError(f"labels: found {IGNORE} {labels[IGNORE]}, expected {len(classes)}, the highest value")
    return {**classes, IGNORE: len(classes)}


def _check_held_out(held_out: Collection[str], studies: set[str]) -> None:
    if not studies:
        raise InputError("no studies found")
    unknown = sorted(set(held_out) - studies)
    if unknown:
        raise InputError(f"--held-out: found {unknown}, expected names of studies: {', '.join(sorted(studies))}")


@dataclass(frozen=True)
class _Study:
    source: StudySource
    folder: Path


def _in_threads(
    studies: list[_Study], action: Callable[[_Study], Result], workers: int, description: str
) -> list[Result]:
    pool = ThreadPoolExecutor(workers)
    try:
        futures = [pool.submit(_without_frames, action, study) for study in studies]
        return apply_to_all(tqdm(futures, desc=description, unit="study"), Future.result)
    finally:
        pool.shutdown(cancel_futures=True)


def _without_frames(action: Callable[[_Study], Result], study: _Study) -> Result:
    try:
        return action(study)
    except InputError as error:
        message = str(error)
    # A new error, because the frames that the first one went through hold the study's pixels, and futures keep errors.
    raise InputError(message)


def _sequences_of(study: _Study, labels: dict[str, int]) -> list[Sequence]:
    if is_finished(study.folder):
        return finished_sequences(study.folder)
    return inspect_source(study.source, labels)


def _manifest_of(sequences: list[Sequence]) -> Manifest:
    by_name: dict[str, Sequence] = {}
    for sequence in sequences:
        # Many file systems take "A" and "a" for one file.
        other = by_name.setdefault(sequence.case.casefold(), sequence)
        if other is not sequence:
            raise InputError(
                f"case name {sequence.case!r} stands for two sequences, of {other.source or other.study} and of "
                f"{sequence.source or sequence.study}, which must differ in more than capitals; rename one of the files"
            )
        if len(os.fsencode(sequence.case)) > _LONGEST_NAME:
            raise InputError(f"case name {sequence.case!r}: expected at most {_LONGEST_NAME} bytes; rename the study")
    if not any(sequence.labelled_frames for sequence in sequences):
        raise InputError("no labelled frame in the whole dataset; check where the label files are looked for")
    return Manifest({sequence.case: sequence for sequence in sequences})


def _write_study(study: _Study, manifest: Manifest, ignore: int) -> None:
    write_study(study.source, manifest, ignore, study.folder)


def _gather(studies: list[_Study], held_out: set[str], folder: Path) -> Path:
    """Move all finished studies into the dataset's folder, without those that an earlier call left there."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
        (folder / name).mkdir(parents=True)
    for study in studies:
        is_training = study.source.study not in held_out
        with_labels = is_training or study.source.load_labels is not None
        move_study(study.folder, folder, "Tr" if is_training else "Ts", with_labels)
    for name in ("imagesTs", "labelsTs"):
        if not any((folder / name).iterdir()):
            (folder / name).rmdir()
    return folder


def _replace(target: Path, folder: Path) -> None:
    if target.exists():
        replaced = folder.with_name("replaced")
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
    folder.rename(target)


@contextmanager
def _removed_on_failure(working: Path) -> Iterator[None]:
    """Make the folder of a conversion and remove it at the end, unless the process is stopped or the disk is full."""
    # Its name must not start with "Dataset", or nnU-Net would take a half-written folder for a dataset.
    working.mkdir(exist_ok=True)
    try:
        yield
    except OSError:
        raise
    except Exception:
        shutil.rmtree(working, ignore_errors=True)
        raise
    shutil.rmtree(working, ignore_errors=True)
