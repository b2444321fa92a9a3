"""EchoNet-Dynamic: apical four-chamber echo clips, the left ventricle traced at end diastole and end systole.

A folder holds ``Videos/<clip>.avi``, ``FileList.csv`` (clips without ending, frame rate, TRAIN, VAL or TEST) and
``VolumeTracings.csv`` (clips with ending; per traced frame, counted from 0, the long axis and then chords across it).
Data and citation: Ouyang et al., Nature, 2020, https://doi.org/10.1038/s41586-020-2145-8.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_temporal.datasets import echonet_files
from nnunet_temporal.datasets.echonet_files import RESTORE, Contours, clip_name, clip_source, frame_in, number_in
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import StudySource
from nnunet_temporal.errors import InputError

NAME = "EchoNetDynamic"
LABELS = echonet_files.LABELS
CHANNEL = echonet_files.CHANNEL

_SPLITS = ["TRAIN", "VAL", "TEST"]
_CLIPS = "FileList.csv"
_ENDS = ["X1", "Y1", "X2", "Y2"]


def find_studies(folder: Path) -> list[StudySource]:
    """Find the clips that are listed; each is decoded once, to count its frames.

    A clip without tracings is unlabelled. All show the four-chamber view; the size of a pixel is not known.

    Args:
        folder: ``EchoNet-Dynamic`` or the folder it is in.

    Returns:
        One study per clip.

    Raises:
        InputError: A table is missing or odd, or videos are missing or cannot be read; all bad videos are listed.
    """
    root = _root(folder)
    clips = echonet_files.read_clips(root / _CLIPS, _SPLITS)
    contours = _read_contours(root / "VolumeTracings.csv")

    def source_of(name: str) -> StudySource:
        video = root / "Videos" / f"{name}.avi"
        frame_s = _frame_interval(clips[name], root / _CLIPS)
        return clip_source(name, video, contours.get(name, {}), frame_s, view="4CH")

    return apply_to_all(tqdm(clips, desc="Counting frames", unit="clip"), source_of)


def held_out_studies(folder: Path) -> list[str]:
    """Return the clips of the official test set."""
    return sorted(_clips_of(folder, "TEST"))


def official_folds(folder: Path) -> list[tuple[set[str], set[str]]]:
    """Return the one official fold: the clips to train on and those to validate on."""
    return [(_clips_of(folder, "TRAIN"), _clips_of(folder, "VAL"))]


def _root(folder: Path) -> Path:
    for root in (folder, folder / "EchoNet-Dynamic"):
        if (root / _CLIPS).is_file():
            return root
    raise InputError(f"{folder}: found no {_CLIPS}, expected the folder 'EchoNet-Dynamic' of the download")


def _clips_of(folder: Path, split: str) -> set[str]:
    clips = echonet_files.read_clips(_root(folder) / _CLIPS, _SPLITS)
    return {name for name, row in clips.items() if row["Split"] == split}


def _frame_interval(clip: dict[str, str], path: Path) -> float | None:
    """Return the seconds between frames by the table, which knows the rate of the examination."""
    if not clip.get("FPS"):
        return None
    rate = number_in(clip, "FPS", path)
    if rate <= 0:
        raise InputError(f"{path}: found FPS {clip['FPS']!r} for {clip['FileName']}, expected above 0; {RESTORE}")
    return 1 / rate


def _read_contours(path: Path) -> dict[str, Contours]:
    chords: dict[str, dict[int, list[list[float]]]] = {}
    for row in echonet_files.read_table(path, ["FileName", *_ENDS, "Frame"]):
        frames = chords.setdefault(clip_name(row["FileName"]), {})
        frames.setdefault(frame_in(row, path), []).append([number_in(row, column, path) for column in _ENDS])
    return {name: {frame: _contour(rows) for frame, rows in frames.items()} for name, frames in chords.items()}


def _contour(rows: list[list[float]]) -> np.ndarray:
    """Return the outline (N, 2) of chords in their order: down one side and up the other.

    The first row is the long axis, which is no part of the outline.
    """
    ends = np.array(rows[1:]).reshape(-1, 2, 2)
    return np.concatenate([ends[:, 0], ends[::-1, 1]])
