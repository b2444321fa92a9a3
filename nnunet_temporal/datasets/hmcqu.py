"""HMC-QU: apical four-chamber echo recordings, the wall of the left ventricle masked over one heart beat.

A folder holds ``A4C.xlsx`` (``HMC_QU.xlsx`` in an older layout), which names the recordings, the first and the last
masked frame, counted from 1, and with a "ü" whether there are masks; and in folders below it the recordings
``<name>.avi`` and the masks ``Mask_<name>.mat``, 224 x 224 whatever the size of the recording. Citation: Degerli et
al., IEEE Access, 2021.
"""

import re
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat
from tqdm import tqdm

from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource
from nnunet_temporal.datasets.video_io import read_frames, read_header
from nnunet_temporal.errors import InputError

NAME = "HMCQU"
LABELS = {"background": 0, "MYO": 1, IGNORE: 2}
CHANNEL = "US"

_TABLES = ("A4C.xlsx", "HMC_QU.xlsx")
_NAME, _FIRST, _LAST = "ECHO", "Reference Frame", "End of One-Cycle Frame"
_MASKED = "LV Wall Ground-truth Segmentation Masks"
_COLUMNS = (_NAME, _FIRST, _LAST, _MASKED)
# The sheet is typed in a font that shows this letter as a tick.
_TICK = "ü"
_MASK_SIZE = 224
_RESTORE = "restore it from the download"


def find_studies(folder: Path) -> list[StudySource]:
    """Find the recordings that the table lists; each is decoded once, to count its frames.

    A masked recording is cut to its masked heart beat; one without masks is kept whole and is unlabelled. Recordings of
    one patient are views of one study. The size of a pixel is not known.

    Args:
        folder: Folder of the download; recordings and masks are looked for in all folders below it.

    Returns:
        One study per recording.

    Raises:
        InputError: The table is missing or odd, a file is missing, unreadable or there twice, or frames do not fit; all
            bad recordings are listed.
    """
    table = next((folder / name for name in _TABLES if (folder / name).is_file()), None)
    if table is None:
        raise InputError(f"{folder}: found no {' or '.join(_TABLES)}, expected the folder of the HMC-QU download")
    videos, masks = _by_name(folder, "*.avi"), _by_name(folder, "Mask_*.mat")

    def source_of(row: dict[str, Any]) -> StudySource:
        name = str(row[_NAME]).strip()
        if name not in videos:
            raise InputError(f"{table}: lists {name!r}, but there is no {name}.avi below {folder}; {_RESTORE}")
        if _TICK not in str(row[_MASKED]):
            return _unlabelled(name, videos[name])
        if f"Mask_{name}" not in masks:
            raise InputError(f"{table}: {name!r} has masks, but there is no Mask_{name}.mat below {folder}; {_RESTORE}")
        return _masked(name, videos[name], masks[f"Mask_{name}"], _cycle(row, table))

    return apply_to_all(tqdm(_read_rows(table), desc="Counting frames", unit="recording"), source_of)


def _by_name(folder: Path, pattern: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob(pattern)):
        other = found.setdefault(path.stem.strip(), path)
        if other != path:
            raise InputError(f"{other} and {path} have the same name, expected each recording once; remove one")
    return found


def _read_rows(table: Path) -> list[dict[str, Any]]:
    try:
        import openpyxl
    except ImportError as error:
        raise InputError("HMC-QU needs openpyxl; run: pip install 'nnunet_temporal[hmcqu]'") from error
    try:
        lines = list(openpyxl.load_workbook(table, read_only=True, data_only=True).worksheets[0].values)
    except Exception as error:  # openpyxl passes on whatever a broken file leads to.
        raise InputError(f"{table}: expected a readable Excel sheet: {error!r}; {_RESTORE}") from error
    for number, line in enumerate(lines):
        header = [" ".join(str(cell or "").split()) for cell in line]
        if set(_COLUMNS) <= set(header):
            # Rows may end before the columns do.
            rows = [dict(zip_longest(header, values[: len(header)])) for values in lines[number + 1 :]]
            return [row for row in rows if row[_NAME]]
    raise InputError(f"{table}: found no line with the columns {list(_COLUMNS)}; {_RESTORE}")


def _cycle(row: dict[str, Any], table: Path) -> tuple[int, int]:
    """Return the first masked frame, counted from 0, and the one after the last."""
    first, last = (row[column] for column in (_FIRST, _LAST))
    if not all(isinstance(frame, int | float) and float(frame).is_integer() for frame in (first, last)):
        raise InputError(
            f"{table}: found frames {first!r} to {last!r} for {row[_NAME]!r}, expected numbers; {_RESTORE}"
        )
    return int(first) - 1, int(last)


def _place(name: str) -> tuple[str, str | None]:
    """Return study and view of a recording: "ES0001 _4CH_1" is view "4CH_1" of patient "ES0001"."""
    study, mark, rest = re.sub(r"\s+", "", name).partition("_4CH")
    return (study, f"4CH{rest}") if mark and study else (study, None)


def _unlabelled(name: str, video: Path) -> StudySource:
    study, view = _place(name)
    spacing = read_header(video).spacing
    return StudySource(study, partial(read_frames, video), spacing=spacing, view=view, source=str(video.resolve()))


def _masked(name: str, video: Path, mask: Path, cycle: tuple[int, int]) -> StudySource:
    header = read_header(video)
    start, end = cycle
    if not 0 <= start < end <= header.shape[0]:
        raise InputError(
            f"{video}: found masked frames {start + 1} to {end}, counted from 1, expected some of its "
            f"{header.shape[0]} frames; {_RESTORE} or correct the table"
        )
    study, view = _place(name)
    return StudySource(
        study=study,
        load_image=partial(_read_cycle, video, start, end),
        load_labels=partial(_read_masks, mask, (end - start, *header.shape[1:])),
        spacing=header.spacing,
        view=view,
        cyclic=True,
        source=str(video.resolve()),
    )


def _read_cycle(video: Path, start: int, end: int) -> np.ndarray:
    return read_frames(video)[start:end]


def _read_masks(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return labels (T, Y, X), uint8, on the grid of the recording, by the nearest pixel.

    A frame without any wall, which each heart has, carries the ignore label.
    """
    try:
        masks = np.asarray(loadmat(path, variable_names=["predicted"])["predicted"])
    except Exception as error:  # scipy passes on whatever a broken file leads to.
        raise InputError(
            f"{path}: expected a variable 'predicted' in MATLAB's format 5: {error!r}; {_RESTORE}"
        ) from error
    expected = (shape[0], _MASK_SIZE, _MASK_SIZE)
    if masks.shape != expected:
        raise InputError(
            f"{path}: found masks of shape {masks.shape}, expected {expected}: frames by the table, y, x; {_RESTORE}"
        )
    values = np.unique(masks)
    if values[0] != 0 or len(values) != 2:
        raise InputError(f"{path}: found values {values[:5].tolist()}, expected 0 and one other, the wall; {_RESTORE}")
    y, x = (((np.arange(size) + 0.5) * _MASK_SIZE / size).astype(int) for size in shape[1:])
    labels = (masks[:, y[:, None], x] != 0).astype(np.uint8)
    labels[~labels.any(axis=(1, 2))] = LABELS[IGNORE]
    return labels
