"""EchoNet-Pediatric: echo clips of children in two views, the left ventricle traced at end diastole and end systole.

Each view, ``A4C`` and ``PSAX`` in ``pediatric_echo_avi/pediatric_echo_avi``, holds ``Videos/<clip>.avi``,
``FileList.csv`` (with the number 0..9 of a split) and ``VolumeTracings.csv`` (per traced frame, counted from 0, the
points of the outline). Data and citation: Reddy et al., Journal of the American Society of Echocardiography, 2023.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_temporal.datasets import echonet_files
from nnunet_temporal.datasets.echonet_files import Contours, clip_name, clip_source, frame_in, number_in
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import StudySource
from nnunet_temporal.errors import InputError

NAME = "EchoNetPediatric"
LABELS = echonet_files.LABELS
CHANNEL = echonet_files.CHANNEL
VIEWS = ("A4C", "PSAX")

_SPLITS = [str(number) for number in range(10)]
_VALIDATED, _HELD_OUT = "8", "9"
_CLIPS = "FileList.csv"
_PLACES = (".", "pediatric_echo_avi", "pediatric_echo_avi/pediatric_echo_avi")
# Stands in place of a frame where a phase was not traced.
_NOT_TRACED = ("no systolic", "no diastolic")


def find_studies(folder: Path, views: Sequence[str] = VIEWS) -> list[StudySource]:
    """Find the clips that are listed; each is decoded once, to count its frames.

    A clip without tracings is unlabelled. The size of a pixel is not known.

    Args:
        folder: ``pediatric_echo_avi`` or the folder it is in.
        views: Which of ``VIEWS`` to take.

    Returns:
        One study per clip; clips of one name in two views are one study.

    Raises:
        InputError: A view or table is missing or odd, or videos are missing or cannot be read; all bad videos are
            listed.
    """
    return [source for view in views for source in _studies_of(_root(folder, view), view)]


def held_out_studies(folder: Path, views: Sequence[str] = VIEWS) -> list[str]:
    """Return the clips of the last of the ten splits, commonly the test set."""
    return sorted(name for name, split in _splits(folder, views).items() if split == _HELD_OUT)


def official_folds(folder: Path, views: Sequence[str] = VIEWS) -> list[tuple[set[str], set[str]]]:
    """Return one fold, as is common: splits 0 to 7 to train on and 8 to validate on."""
    splits = _splits(folder, views)
    validated = {name for name, split in splits.items() if split == _VALIDATED}
    return [({name for name, split in splits.items() if split != _HELD_OUT} - validated, validated)]


def _root(folder: Path, view: str) -> Path:
    for place in _PLACES:
        if (folder / place / view / _CLIPS).is_file():
            return folder / place / view
    raise InputError(f"{folder}: found no {view}/{_CLIPS}, expected the folder 'pediatric_echo_avi' of the download")


def _studies_of(root: Path, view: str) -> list[StudySource]:
    contours = _read_contours(root / "VolumeTracings.csv")

    def source_of(name: str) -> StudySource:
        return clip_source(name, root / "Videos" / f"{name}.avi", contours.get(name, {}), view=view)

    clips = echonet_files.read_clips(root / _CLIPS, _SPLITS)
    return apply_to_all(tqdm(clips, desc=f"Counting frames of {view}", unit="clip"), source_of)


def _splits(folder: Path, views: Sequence[str]) -> dict[str, str]:
    splits: dict[str, str] = {}
    for view in views:
        path = _root(folder, view) / _CLIPS
        for name, row in echonet_files.read_clips(path, _SPLITS).items():
            other = splits.setdefault(name, row["Split"])
            if other != row["Split"]:
                raise InputError(
                    f"{path}: found {name} in split {row['Split']}, expected {other} as in another view; convert the "
                    "views one by one"
                )
    return splits


def _read_contours(path: Path) -> dict[str, Contours]:
    points: dict[str, dict[int, list[list[float]]]] = {}
    for row in echonet_files.read_table(path, ["FileName", "X", "Y", "Frame"]):
        if row["Frame"].strip().lower() in _NOT_TRACED:
            continue
        frames = points.setdefault(clip_name(row["FileName"]), {})
        point = [number_in(row, "X", path), number_in(row, "Y", path)]
        frames.setdefault(frame_in(row, path), []).append(point)
    return {name: {frame: np.array(rows) for frame, rows in frames.items()} for name, frames in points.items()}
