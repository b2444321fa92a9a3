"""Any folder of NIfTI movies, 4D (x, y, z, t) or 3D (x, y, t), with or without labels, as studies to convert."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from nnunet_temporal.datasets.image_io import (
    NIFTI_ENDINGS,
    check_same_grid,
    nifti_name,
    read_header,
    read_image,
    read_labels,
)
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource
from nnunet_temporal.errors import InputError

EmptyFrames = Literal["background", "unlabelled"]

NAME = "Cine"
CHANNEL = "cineMRI"

DEFAULT_IMAGES = tuple(f"images/*{ending}" for ending in NIFTI_ENDINGS)
DEFAULT_LABELS = tuple(f"labels/{{name}}{ending}" for ending in NIFTI_ENDINGS)


@dataclass(frozen=True)
class NiftiLayout:
    """Where the files of a folder are and what they mean.

    Attributes:
        images: Glob patterns of the image files, relative to the folder.
        labels: Templates of the label file, relative to the folder, tried in turn; ``{name}`` stands for the image's
            file name without ending, ``{folder}`` for the folder it is in.
        cyclic: Whether each movie covers exactly one heart beat.
        empty_frames: What a frame means whose labels are zero everywhere; None to refuse such a frame.
        view: Name of the view that all movies show; None where that is not known.
    """

    images: tuple[str, ...] = DEFAULT_IMAGES
    labels: tuple[str, ...] = DEFAULT_LABELS
    cyclic: bool = False
    empty_frames: EmptyFrames | None = None
    view: str | None = None


def read_label_names(folder: Path, classes: list[str] | None = None) -> dict[str, int]:
    """Return label names and values, the ignore label among them.

    Args:
        folder: Folder that may hold a ``dataset.json`` with nnU-Net's ``labels``.
        classes: Names of the classes 1, 2, ... in order; they take precedence over the file.

    Raises:
        InputError: Neither gives names, a name is given twice or reserved, or the file is unreadable.
    """
    path = folder / "dataset.json"
    if classes is None:
        if not path.is_file():
            raise InputError(f"{path}: not found; name the classes 1, 2, ... with --classes, as in --classes RV MYO LV")
        try:
            labels = json.loads(path.read_text(encoding="utf-8"))["labels"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: expected nnU-Net's 'labels' in it, but it cannot be read: {error!r}") from error
        if not isinstance(labels, dict) or not all(isinstance(value, int) for value in labels.values()):
            raise InputError(f"{path}: found labels {labels!r}, expected one whole number per name (no regions)")
        return {**labels, IGNORE: labels.get(IGNORE, len(labels))}
    names = ["background", *classes, IGNORE]
    if len(set(names)) != len(names):
        raise InputError(f"--classes: found {classes}, expected different names, without 'background' and '{IGNORE}'")
    return {name: value for value, name in enumerate(names)}


def find_studies(folder: Path, layout: NiftiLayout, ignore: int) -> list[StudySource]:
    """Find the movies of a folder and pair them with their labels; only headers are read.

    Args:
        folder: The folder the patterns of ``layout`` are relative to.
        layout: Where files are and what they mean.
        ignore: Value that means "not labelled" in the label files.

    Returns:
        One study per image file, named like the file.

    Raises:
        InputError: No image matches, the pattern is absolute, two images have one name or one label file, a file is
            unreadable, or a label file is not on its image's grid. All bad files are listed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: the input folder does not exist")
    try:
        found = {path for pattern in layout.images for path in folder.glob(pattern)}
    except (LookupError, NotImplementedError, ValueError) as error:
        patterns = " ".join(layout.images)
        raise InputError(f"--images: found {patterns}, expected a pattern relative to {folder}: {error}") from error
    # Archives made on a Mac hold a hidden file of other content for every file.
    images = sorted(path for path in found if path.is_file() and not path.name.startswith("."))
    label_of = {path: _label_path(folder, layout, path) for path in images}
    # A wide pattern such as "*.nii.gz" matches label files too; those are no images.
    images = [path for path in images if path not in set(label_of.values())]
    if not images:
        raise InputError(f"{folder}: no image matches {' or '.join(layout.images)}; say where they are with --images")
    _check_unique(images, label_of)
    return apply_to_all(images, lambda path: _source_of(path, label_of[path], layout, ignore))


def _label_path(folder: Path, layout: NiftiLayout, image: Path) -> Path | None:
    known = {"{name}": nifti_name(image), "{folder}": str(image.parent.relative_to(folder))}
    for template in layout.labels:
        for placeholder, value in known.items():
            template = template.replace(placeholder, value)
        if (folder / template).is_file():
            return folder / template
    return None


def _check_unique(images: list[Path], label_of: dict[Path, Path | None]) -> None:
    by_name: dict[str, Path] = {}
    by_labels: dict[Path, Path] = {}
    for path in images:
        other = by_name.setdefault(nifti_name(path), path)
        if other != path:
            raise InputError(f"{other} and {path} have the same name; studies need different names, rename one")
        labels = label_of[path]
        other = path if labels is None else by_labels.setdefault(labels, path)
        if other != path:
            raise InputError(f"{other} and {path} share the label file {labels}; put '{{name}}' into --labels")


def _source_of(image: Path, labels: Path | None, layout: NiftiLayout, ignore: int) -> StudySource:
    header = read_header(image)
    if labels is not None:
        check_same_grid(read_header(labels), header)
    return StudySource(
        study=nifti_name(image),
        load_image=partial(read_image, image),
        load_labels=None if labels is None else partial(load_labels, labels, layout.empty_frames, ignore),
        spacing=header.spacing,
        view=layout.view,
        cyclic=layout.cyclic,
        source=str(image.resolve()),
    )


def load_labels(path: Path, empty_frames: EmptyFrames | None, ignore: int) -> np.ndarray:
    """Read the labels of a movie; see :func:`mark_empty_frames`."""
    return mark_empty_frames(read_labels(path), path, empty_frames, ignore)


def mark_empty_frames(labels: np.ndarray, path: Path, empty_frames: EmptyFrames | None, ignore: int) -> np.ndarray:
    """Give frames whose labels are zero everywhere their meaning.

    Args:
        labels: (T, Z, Y, X) or (T, Y, X), unsigned; changed in place.
        path: Where they are from, for messages.
        empty_frames: What such a frame means; None to refuse it.
        ignore: Value that means "not labelled".

    Returns:
        The labels.

    Raises:
        InputError: There is such a frame, and nobody says what it means.
    """
    empty = np.flatnonzero(~labels.reshape(len(labels), -1).any(axis=1))
    if empty.size and empty_frames is None:
        raise InputError(
            f"{path}: {empty.size} of {len(labels)} frames have labels that are zero everywhere (first: frame "
            f"{empty[0]}, counted from 0); say what that means with --empty-frames background or "
            "--empty-frames unlabelled"
        )
    if empty_frames == "unlabelled":
        labels[empty] = ignore
    return labels
