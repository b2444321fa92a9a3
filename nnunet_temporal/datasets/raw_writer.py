"""The one writer all converters call: studies in, a raw nnU-Net dataset with manifest and study-wise splits out."""

import re
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_temporal.atomic import write_json
from nnunet_temporal.datasets.image_io import SEQUENCE_ENDING, write_sequence
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource, by_slice, inspect_source
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence, Splits, case_name, study_splits

SPLITS_NAME = "splits_final.json"


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
    """A raw dataset that has been written: its folder, all sequences, the held-out studies and the folds."""

    folder: Path
    manifest: Manifest
    held_out: tuple[str, ...]
    splits: Splits


def write_raw_dataset(
    sources: Iterable[StudySource],
    info: DatasetInfo,
    nnunet_raw: Path,
    *,
    held_out: Collection[str] = (),
    overwrite: bool = False,
) -> RawDataset:
    """Check all studies, then write them as one raw dataset; nothing is left behind when that fails.

    Every frame without a mask carries the ignore label, which is added to the labels where it is missing. Training
    sequences without any mask get an all-ignore label file, because nnU-Net wants one for each training image.

    Args:
        sources: The studies, in any order.
        info: Dataset id, name, labels and channel.
        nnunet_raw: nnU-Net's raw folder; must exist.
        held_out: Studies that go to ``imagesTs`` and ``labelsTs`` and into no fold.
        overwrite: Replace an existing dataset of this id and name.

    Returns:
        What was written.

    Raises:
        InputError: A study, a name, the id or the labels are at fault; one message lists all bad studies.
    """
    target = _target_folder(info, nnunet_raw, overwrite)
    labels = _with_ignore(info.labels)
    sources = sorted(sources, key=lambda source: (source.study, source.view or ""))
    _check_held_out(held_out, {source.study for source in sources})
    manifest = _inspect(sources, labels)
    training = manifest.subset(case for case, sequence in manifest.items() if sequence.study not in held_out)
    splits = study_splits(training)
    with _new_folder(target) as folder:
        for source in tqdm(sources, desc=f"Writing {info.folder_name}", unit="study"):
            _write_source(source, labels[IGNORE], folder, "Ts" if source.study in held_out else "Tr")
        write_json(_dataset_json(info, labels, len(training)), folder / "dataset.json")
        manifest.write(folder / MANIFEST_NAME)
        write_json(splits, folder / SPLITS_NAME)
    return RawDataset(target, manifest, tuple(sorted(held_out)), splits)


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


def _target_folder(info: DatasetInfo, nnunet_raw: Path, overwrite: bool) -> Path:
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


def _inspect(sources: list[StudySource], labels: dict[str, int]) -> Manifest:
    progress = tqdm(sources, desc="Checking studies", unit="study")
    sequences = [s for group in apply_to_all(progress, lambda source: inspect_source(source, labels)) for s in group]
    by_case: dict[str, Sequence] = {}
    for sequence in sequences:
        other = by_case.setdefault(sequence.case, sequence)
        if other is not sequence:
            raise InputError(
                f"case name {sequence.case!r} stands for two sequences, of {other.source or other.study} and of "
                f"{sequence.source or sequence.study}; rename one of the files"
            )
    if not any(sequence.labelled_frames for sequence in sequences):
        raise InputError("no labelled frame in the whole dataset; check where the label files are looked for")
    return Manifest(by_case)


def _write_source(source: StudySource, ignore: int, folder: Path, side: str) -> None:
    images = by_slice(source.load_image())
    masks = by_slice(source.load_labels()) if source.load_labels else None
    for z, image in images.items():
        case = case_name(source.study, z, source.view)
        image_path = folder / f"images{side}" / f"{case}_0000{SEQUENCE_ENDING}"
        write_sequence(image.astype(np.float32), source.spacing.pixel_mm, image_path)
        if masks is None and side == "Ts":
            continue
        mask = np.full(image.shape, ignore, np.uint8) if masks is None else masks[z]
        write_sequence(mask, source.spacing.pixel_mm, folder / f"labels{side}" / f"{case}{SEQUENCE_ENDING}")


@contextmanager
def _new_folder(target: Path) -> Iterator[Path]:
    # The temporary name must not start with "Dataset", or nnU-Net would take a half-written folder for a dataset.
    working = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".partial_{target.name}_"))
    try:
        folder = working / target.name
        for name in ("imagesTr", "labelsTr", "imagesTs", "labelsTs"):
            (folder / name).mkdir(parents=True)
        yield folder
        for name in ("imagesTs", "labelsTs"):
            if not any((folder / name).iterdir()):
                (folder / name).rmdir()
        if target.exists():
            target.rename(working / "replaced")
        folder.rename(target)
    finally:
        shutil.rmtree(working, ignore_errors=True)
