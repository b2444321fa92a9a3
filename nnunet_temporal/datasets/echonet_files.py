"""What EchoNet-Dynamic and EchoNet-Pediatric share: tables of clips and of tracings, and tracings made into masks."""

import csv
import math
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from skimage.draw import polygon

from nnunet_temporal.datasets.image_io import ImageHeader
from nnunet_temporal.datasets.study_source import IGNORE, StudySource
from nnunet_temporal.datasets.video_io import read_frames, read_header
from nnunet_temporal.errors import InputError

LABELS = {"background": 0, "LV": 1, IGNORE: 2}
CHANNEL = "US"
RESTORE = "restore it from the download"

# By frame, counted from 0: the outline of the left ventricle, (N, 2) as x, y in pixels.
Contours = dict[int, np.ndarray]


def read_table(path: Path, columns: list[str]) -> list[dict[str, str]]:
    """Read a table with a header line, every value as text: names such as ``0X1E5`` must not become numbers.

    Raises:
        InputError: The file is missing or unreadable, a column is missing, or a row is too short.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            found = reader.fieldnames or []
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: expected a table with the columns {columns}: {error}; {RESTORE}") from error
    if not set(columns) <= set(found):
        raise InputError(f"{path}: found columns {list(found)}, expected {columns} among them; {RESTORE}")
    for number, row in enumerate(rows, start=2):
        if any(row[column] is None for column in columns):
            raise InputError(f"{path}: line {number} is cut off, expected {len(found)} values; {RESTORE}")
    return rows


def clip_name(file_name: str) -> str:
    """Return the name of a clip: some tables carry the ending ``.avi`` and some do not."""
    name = file_name.strip()
    return name[:-4] if name.lower().endswith(".avi") else name


def read_clips(path: Path, splits: list[str]) -> dict[str, dict[str, str]]:
    """Read ``FileList.csv``.

    Args:
        path: The table, with columns FileName and Split.
        splits: What Split may be.

    Returns:
        The row of each clip by its name, in the order of the table; Split in capitals.

    Raises:
        InputError: As :func:`read_table`; there is no clip, one is listed twice, or a Split is none of ``splits``.
    """
    clips: dict[str, dict[str, str]] = {}
    for row in read_table(path, ["FileName", "Split"]):
        name, split = clip_name(row["FileName"]), row["Split"].strip().upper()
        if name in clips:
            raise InputError(f"{path}: found {name} twice, expected each clip once; {RESTORE}")
        if split not in splits:
            raise InputError(f"{path}: found Split {row['Split']!r} for {name}, expected one of {splits}; {RESTORE}")
        clips[name] = {**row, "Split": split}
    if not clips:
        raise InputError(f"{path}: found no clip in it; {RESTORE}")
    return clips


def number_in(row: dict[str, str], column: str, path: Path) -> float:
    """Return a value of a row as a finite number.

    Raises:
        InputError: It is none.
    """
    try:
        value = float(row[column])
    except ValueError:
        value = float("nan")
    if not math.isfinite(value):
        raise InputError(f"{path}: found {column} {row[column]!r} for {row['FileName']}, expected a number; {RESTORE}")
    return value


def frame_in(row: dict[str, str], path: Path) -> int:
    """Return the frame of a row, counted from 0.

    Raises:
        InputError: It is no whole number, 0 or more.
    """
    frame = number_in(row, "Frame", path)
    if frame < 0 or frame != int(frame):
        raise InputError(f"{path}: found Frame {row['Frame']!r} for {row['FileName']}, expected 0, 1, ...; {RESTORE}")
    return int(frame)


def clip_source(
    name: str, video: Path, contours: Contours, frame_s: float | None = None, view: str | None = None
) -> StudySource:
    """Describe a clip; of two outlines the larger is end diastole, wherever in the clip it is.

    A contour that encloses nothing, or is of a frame that the clip does not have, both of which are said to occur,
    leaves its frame unlabelled, with a warning.

    Args:
        name: Name of the clip.
        video: Its file.
        contours: Its outlines by frame.
        frame_s: Seconds between frames, None to take those of the file.
        view: Name of the view, None when there is only one.

    Raises:
        InputError: The video cannot be read.
    """
    header = read_header(video)
    kept = {frame: contour for frame, contour in contours.items() if _is_usable(frame, contour, header)}
    by_area = sorted(kept, key=lambda frame: _area(kept[frame]))
    es, ed = by_area if len(by_area) == 2 else (None, None)
    return StudySource(
        study=name,
        load_image=partial(read_frames, video),
        load_labels=partial(draw_labels, kept, header.shape) if kept else None,
        spacing=replace(header.spacing, frame_s=frame_s or header.spacing.frame_s),
        view=view,
        ed=ed,
        es=es,
        source=str(video.resolve()),
    )


def draw_labels(contours: Contours, shape: tuple[int, ...]) -> np.ndarray:
    """Draw outlines as masks (T, Y, X), uint8: LV within them; frames without one carry the ignore label.

    Corners are rounded to pixels, and the outline belongs to the mask, as in the code published with EchoNet-Dynamic
    (Ouyang et al., Nature, 2020).
    """
    labels = np.full(shape, LABELS[IGNORE], np.uint8)
    for frame, contour in contours.items():
        labels[frame] = _mask(contour, shape[1:])
    return labels


def _is_usable(frame: int, contour: np.ndarray, video: ImageHeader) -> bool:
    if frame >= video.shape[0]:
        problem = f"the clip has {video.shape[0]} frames, and frames count from 0"
    elif not _mask(contour, video.shape[1:]).any():
        problem = f"it encloses no pixel of {video.shape[2]} x {video.shape[1]}"
    else:
        return True
    warnings.warn(f"{video.path}: the tracing of frame {frame} is left out: {problem}", stacklevel=4)
    return False


def _mask(contour: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    x, y = np.rint(contour).T
    if _area(contour) > 0:
        mask[polygon(y, x, size)] = LABELS["LV"]
    return mask


def _area(contour: np.ndarray) -> float:
    """Return the area that an outline encloses, in pixels, by the shoelace formula."""
    x, y = contour.T
    return abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
