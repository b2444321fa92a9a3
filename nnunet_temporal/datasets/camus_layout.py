"""What both releases of CAMUS and TED have in common: facts in ``Info_<view>.cfg``, labels, and lists of patients.

Data and citation: Leclerc et al., IEEE Transactions on Medical Imaging, 2019, https://doi.org/10.1109/TMI.2019.2900516.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import as_grey_values, as_labels
from nnunet_temporal.datasets.movie_file import StoredMovie, read_stored_pixels
from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.errors import InputError

RESTORE = "restore it from the download"
LEFT_ATRIUM = 3

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class ViewFacts:
    """What ``Info_<view>.cfg`` says about a sequence.

    Attributes:
        ed: Frame of end diastole, counted from 0, in the order of the file.
        es: Frame of end systole, the same.
        n_frames: Number of frames, None where it is not said.
        frame_s: Time between frames in seconds, None where it is not said.
    """

    ed: int
    es: int
    n_frames: int | None
    frame_s: float | None

    @property
    def is_reversed(self) -> bool:
        """Whether a sequence that runs from ED to ES is stored from ES to ED."""
        return self.ed > self.es

    def in_time(self, n_frames: int) -> tuple[int, int]:
        """Return the frames of ED and ES after :func:`forward` has put ``n_frames`` in the order of time."""
        last = n_frames - 1
        return (last - self.ed, last - self.es) if self.is_reversed else (self.ed, self.es)


def read_facts(path: Path) -> ViewFacts:
    """Read the lines ``Key: value``; frames count from 1 there, unknown keys and other lines do not matter.

    Raises:
        InputError: The file is unreadable, ED or ES is missing or no frame, or another fact is no number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected lines such as 'ED: 1', cannot be read: {error}; {RESTORE}") from error
    values = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    ed, es = (_number(values, key, path, is_required=True) for key in ("ED", "ES"))
    n_frames, rate = (_number(values, key, path) for key in ("NbFrame", "FrameRate"))
    frames = [ed, es] if n_frames is None else [ed, es, n_frames]
    if ed == es or not all(frame is not None and frame >= 1 and frame.is_integer() for frame in frames):
        raise InputError(
            f"{path}: found ED {ed}, ES {es} and NbFrame {n_frames}, expected two different frames, counted from 1; "
            f"{RESTORE}"
        )
    frame_s = 1 / rate if rate and 0 < rate < math.inf else None
    return ViewFacts(int(ed or 0) - 1, int(es or 0) - 1, None if n_frames is None else int(n_frames), frame_s)


def check_frames(facts: ViewFacts, path: Path, n_frames: int, movie: Path) -> None:
    """Check the facts of ``path`` against the number of frames of their movie.

    Raises:
        InputError: NbFrame differs from it, or ED or ES is beyond the last frame.
    """
    if facts.n_frames not in (None, n_frames) or max(facts.ed, facts.es) >= n_frames:
        raise InputError(
            f"{path}: found ED {facts.ed + 1}, ES {facts.es + 1} and NbFrame {facts.n_frames}, expected them to fit "
            f"the {n_frames} frames of {movie}; restore the one that is wrong from the download"
        )


def forward(frames: np.ndarray, facts: ViewFacts) -> np.ndarray:
    """Return frames (T, Y, X), or (T, ...), in the order of time: some sequences are stored from ES to ED."""
    return np.ascontiguousarray(frames[::-1]) if facts.is_reversed else frames


def check_labels(labels: np.ndarray, path: Path) -> None:
    """Check label values: 1 LV, 2 MYO and 3 LA on background 0.

    Raises:
        InputError: There are others, which might pass for "not labelled".
    """
    unknown = [value for value in np.unique(labels).tolist() if value > LEFT_ATRIUM]
    if unknown:
        raise InputError(f"{path}: found label values {unknown}, expected 1 LV, 2 MYO, 3 LA on background 0; {RESTORE}")


def read_mhd_image(movie: StoredMovie) -> np.ndarray:
    """Read the grey values (T, Y, X), float32, of a MetaImage file.

    Raises:
        InputError: The file or the file of its pixels is missing or damaged.
    """
    return as_grey_values(read_stored_pixels(movie), movie.path)


def read_mhd_labels(movie: StoredMovie) -> np.ndarray:
    """Read the labels (T, Y, X) of a MetaImage file: 1 LV, 2 MYO and 3 LA on background 0.

    Raises:
        InputError: The file or the file of its pixels is missing or damaged, or holds other values.
    """
    labels = as_labels(read_stored_pixels(movie), movie.path)
    check_labels(labels, movie.path)
    return labels


def blank_empty_frames(labels: np.ndarray, ignore: int) -> np.ndarray:
    """Return labels (T, Y, X) whose empty frames are not labelled: no view of these datasets is without a heart."""
    is_empty = ~labels.any(axis=(1, 2), keepdims=True)
    return np.where(is_empty, ignore, labels).astype(np.uint8)


def patient_folders(folder: Path, places: tuple[str, ...]) -> list[Path]:
    """Return the folders ``patient*`` in ``places`` of ``folder``, sorted by name.

    Raises:
        InputError: There is none.
    """
    found = {path for place in places for path in (folder / place).resolve().glob("patient*") if path.is_dir()}
    if not found:
        where = " or ".join(f"'{place}'" for place in places)
        raise InputError(f"{folder}: found no folder patient* in {where} of it; name the folder of the download")
    return sorted(found, key=lambda path: (path.name, path))


def read_patient_list(path: Path) -> set[str]:
    """Read names of patients, one per line.

    Raises:
        InputError: The list is missing or empty.
    """
    try:
        names = set(path.read_text(encoding="utf-8").split())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected one patient per line, cannot be read: {error}; {RESTORE}") from error
    if not names:
        raise InputError(f"{path}: found no patient, expected one per line; {RESTORE}")
    return names


def check_lists(lists: dict[Path, set[str]], patients: set[str]) -> None:
    """Check that every patient is in one of the lists of a split at most, and that all of them are there.

    Raises:
        InputError: A patient is in two lists, or is in a list and not among ``patients``.
    """
    paths = list(lists)
    for number, path in enumerate(paths):
        for other in paths[number + 1 :]:
            if both := sorted(lists[path] & lists[other]):
                raise InputError(f"{path} and {other} both name {listed(both, _NAMED_AT_MOST)}; {RESTORE}")
        if missing := sorted(lists[path] - patients):
            raise InputError(
                f"{path}: names {len(missing)} patients without a folder: {listed(missing, _NAMED_AT_MOST)}; restore "
                "them from the download, or pass --folds study to split those that are there"
            )


def _number(values: dict[str, str], key: str, path: Path, is_required: bool = False) -> float | None:
    text = values.get(key.lower(), "")
    if not text and not is_required:
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: found {key} {text!r}, expected a line '{key}: NUMBER'; {RESTORE}") from None
