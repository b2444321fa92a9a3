"""Studies of a conversion, each written into a folder of its own, so that a stopped conversion can be taken up again.

The folder of a study is called by a fingerprint of all that its files follow from. It holds ``images``, ``labels`` and,
written last, a manifest: with it the study is finished.
"""

import hashlib
import io
import pickle
import shutil
import uuid
from pathlib import Path

import numpy as np

from nnunet_temporal import __version__
from nnunet_temporal.datasets.image_io import SEQUENCE_ENDING, write_sequence
from nnunet_temporal.datasets.study_source import StudySource, by_slice
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence, case_name

_IMAGES, _LABELS = "images", "labels"


class _FingerprintPickler(pickle.Pickler):
    """Pickles a file as its path, size and time of change: an edited file makes another fingerprint."""

    def persistent_id(self, thing: object) -> object:
        if not isinstance(thing, Path):
            return None
        path = thing.resolve()
        stat = path.stat() if path.exists() else None
        return str(path), stat and stat.st_size, stat and stat.st_mtime_ns


def fingerprint(source: StudySource, labels: dict[str, int]) -> str:
    """Return a file name that stands for a study, its files as they are now, its options and the dataset's labels.

    It is the same in every process as long as these are the same. A study whose loading functions cannot be pickled,
    such as lambdas, gets a name that never comes again: it is never taken for finished.
    """
    content = io.BytesIO()
    try:
        _FingerprintPickler(content).dump((__version__, labels, source))
    except (pickle.PicklingError, AttributeError, TypeError):
        return uuid.uuid4().hex
    return hashlib.sha256(content.getvalue()).hexdigest()[:32]


def is_finished(folder: Path) -> bool:
    """Whether ``folder`` holds all files of its study."""
    return (folder / MANIFEST_NAME).is_file()


def finished_sequences(folder: Path) -> list[Sequence]:
    """Return what the manifest says about the finished study in ``folder``."""
    return list(Manifest.load(folder).values())


def write_study(source: StudySource, manifest: Manifest, ignore: int, folder: Path) -> None:
    """Load a study and write its sequences into ``folder``, which is made.

    Args:
        source: The study.
        manifest: The sequences of this study, among others.
        ignore: Value of frames without a mask.
        folder: Folder for this study only.
    """
    for name in (_IMAGES, _LABELS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images = by_slice(source.load_image())
    masks = by_slice(source.load_labels()) if source.load_labels else None
    for z, image in images.items():
        case = case_name(source.study, z, source.view)
        write_sequence(image.astype(np.float32), source.spacing.pixel_mm, _image_path(folder, case))
        mask = np.full(image.shape, ignore, np.uint8) if masks is None else masks[z]
        write_sequence(mask, source.spacing.pixel_mm, _label_path(folder, case))
    cases = [case_name(source.study, z, source.view) for z in images]
    manifest.subset(cases).write(folder / MANIFEST_NAME)


def move_study(folder: Path, dataset: Path, side: str, with_labels: bool) -> None:
    """Move the files of a finished study into a dataset.

    Args:
        folder: The study's.
        dataset: Folder with ``imagesTr``, ``labelsTr``, ``imagesTs`` and ``labelsTs``.
        side: "Tr" or "Ts".
        with_labels: Whether label files go along.
    """
    cases = list(Manifest.load(folder))
    # First of all, because a study of which some files are gone is not finished.
    (folder / MANIFEST_NAME).unlink()
    for case in cases:
        for path in (_image_path(folder, case), *([_label_path(folder, case)] if with_labels else [])):
            path.rename(dataset / f"{path.parent.name}{side}" / path.name)
    shutil.rmtree(folder)


def _image_path(folder: Path, case: str) -> Path:
    return folder / _IMAGES / f"{case}_0000{SEQUENCE_ENDING}"


def _label_path(folder: Path, case: str) -> Path:
    return folder / _LABELS / f"{case}{SEQUENCE_ENDING}"
