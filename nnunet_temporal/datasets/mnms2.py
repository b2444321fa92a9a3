"""M&Ms-2: cine MRI in short axis and four-chamber long axis, with masks at end diastole and end systole.

Each patient has a number NNN and for both views, SA and LA, the movie ``NNN_SA_CINE.nii.gz``, its frames ED and ES as
``NNN_SA_ED.nii.gz``, and their masks as ``NNN_SA_ED_gt.nii.gz``. Which frames of the movie these are is written
nowhere. Patients 1 to 160 are for training, 161 to 200 for validation, 201 to 360 for testing. Data and citation:
Martín-Isla et al., IEEE Journal of Biomedical and Health Informatics, 2023, https://doi.org/10.1109/JBHI.2023.3267857.
"""

import re
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_temporal.datasets.image_io import ImageHeader, read_header, read_image
from nnunet_temporal.datasets.masked_frames import load_masked_frames
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource
from nnunet_temporal.errors import InputError

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3, IGNORE: 4}
CHANNEL = "cineMRI"
NAME = "MNMs2"
VIEWS = ("SA", "LA")

_LAST_TRAINING, _LAST_VALIDATION = 160, 200
# Some copies write "_gt_" and some are packed by view; the name of the file alone says what it is.
_FILE = re.compile(r"(?P<patient>\d{3})_(?P<view>SA|LA)_(?P<kind>CINE|ED|ES|ED_gt|ES_gt)_?\.nii(\.gz)?")
_PHASES = ("ED", "ES")
_RESTORE = "restore it from the download"

ViewFiles = dict[str, Path]


def find_studies(folder: Path, views: Collection[str] = VIEWS) -> list[StudySource]:
    """Find the patients of M&Ms-2; headers, movies and their frames ED and ES are read.

    The movies are read because only their pixels tell which frames ED and ES are. A view without masks is unlabelled.
    The frames cover one heart beat; the time between them is not known, whatever the header says.

    Args:
        folder: ``MnM2``, its ``dataset``, or a part of it that holds some of the patients.
        views: Which of "SA", stacks (T, Z, Y, X), and "LA", single sequences (T, Y, X), to take.

    Returns:
        One study source per patient and view.

    Raises:
        InputError: There is no patient, or files of one are missing, unreadable or do not fit, or ED or ES is no frame
            of the movie; all bad ones are listed.
    """
    found = {place: files for place, files in _files_of(folder).items() if place[1] in views}
    if not found:
        raise InputError(
            f"{folder}: found no file such as 001_SA_CINE.nii.gz of the view {' or '.join(views)} in it; name the "
            "folder 'MnM2'"
        )
    progress = tqdm(found.items(), desc="Looking for ED and ES", unit="movie")
    return apply_to_all(progress, lambda item: _source_of(item[0], item[1], folder))


def held_out_studies(folder: Path, views: Collection[str] = VIEWS) -> list[str]:
    """Return the patients whom M&Ms-2 keeps for testing, those from 201 on, who have one of the views."""
    return sorted(patient for patient in _patients(folder, views) if int(patient) > _LAST_VALIDATION)


def official_folds(folder: Path, views: Collection[str] = VIEWS) -> list[tuple[set[str], set[str]]]:
    """Return the official fold as sets of patients: 1 to 160, then 161 to 200; empty when either is missing.

    Patients without any of the views are left out.
    """
    patients = {patient for patient in _patients(folder, views) if int(patient) <= _LAST_VALIDATION}
    training = {patient for patient in patients if int(patient) <= _LAST_TRAINING}
    return [(training, patients - training)] if training and patients - training else []


def _patients(folder: Path, views: Collection[str]) -> set[str]:
    return {patient for patient, view in _files_of(folder) if view in views}


def _files_of(folder: Path) -> dict[tuple[str, str], ViewFiles]:
    """Return {(patient, view): {kind: path}}, sorted."""
    found: dict[tuple[str, str], ViewFiles] = {}
    for path in sorted(folder.rglob("[0-9]*.nii*")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            continue
        files = found.setdefault((match["patient"], match["view"]), {})
        other = files.setdefault(match["kind"], path)
        if other != path:
            raise InputError(f"{other} and {path} are the same image of one patient; expected it once, remove one")
    return dict(sorted(found.items()))


def _source_of(place: tuple[str, str], files: ViewFiles, folder: Path) -> StudySource:
    patient, view = place
    if "CINE" not in files:
        some = next(iter(files.values()))
        raise InputError(f"{some}: found no {patient}_{view}_CINE.nii.gz for it in {folder}; {_RESTORE}")
    movie = read_header(files["CINE"])
    # The only slice of a long-axis movie may lack an axis of its own.
    stack = movie.shape if view == "SA" or len(movie.shape) == 4 else (movie.shape[0], 1, *movie.shape[1:])
    if len(stack) != 4:
        raise InputError(f"{movie.path}: found {len(stack)} axes, expected 4 (x, y, z, t); {_RESTORE}")
    masks = _masks_of(patient, view, files)
    images = {phase: files[phase] for phase in _PHASES if phase in files}
    for path in (*images.values(), *masks.values()):
        _check_grid(path, stack, movie)
    frames = _find_frames(movie, stack, images)
    is_sequence = view == "LA" and stack[1] == 1
    shape = (stack[0], *stack[2:]) if is_sequence else stack
    by_frame = {frames[phase]: path for phase, path in masks.items()}
    return StudySource(
        study=patient,
        load_image=partial(_load_image, movie.path, shape),
        load_labels=partial(load_masked_frames, by_frame, shape, LABELS) if masks else None,
        spacing=replace(movie.spacing, frame_s=None, slice_mm=None if is_sequence else movie.spacing.slice_mm),
        view=view,
        ed=frames.get("ED"),
        es=frames.get("ES"),
        cyclic=True,
        source=str(movie.path.resolve()),
    )


def _masks_of(patient: str, view: str, files: ViewFiles) -> dict[str, Path]:
    """Return {phase: mask file} for ED and ES, or nothing for a view without masks."""
    masks = {phase: files[f"{phase}_gt"] for phase in _PHASES if f"{phase}_gt" in files}
    missing = [kind for kind in ("ED", "ED_gt", "ES", "ES_gt") if kind not in files]
    if masks and missing:
        raise InputError(
            f"{next(iter(masks.values()))}: found no {', '.join(f'{patient}_{view}_{kind}.nii.gz' for kind in missing)}"
            "; expected image and mask of both ED and ES, or no mask; restore them from the download"
        )
    return masks


def _check_grid(path: Path, stack: tuple[int, ...], movie: ImageHeader) -> None:
    shape = read_header(path).shape
    if shape != stack[1:]:
        found, expected = tuple(reversed(shape)), tuple(reversed(stack[1:]))
        raise InputError(f"{path}: found shape {found}, expected {expected} (x, y, z) as in {movie.path}; {_RESTORE}")


def _find_frames(movie: ImageHeader, stack: tuple[int, ...], images: dict[str, Path]) -> dict[str, int]:
    """Return {phase: frame} by the pixels of ED and ES."""
    if not images:
        return {}
    pixels = read_image(movie.path).reshape(stack)
    return {phase: _frame_of(path, pixels, movie) for phase, path in images.items()}


def _frame_of(path: Path, pixels: np.ndarray, movie: ImageHeader) -> int:
    """Return the index of the frame of ``pixels`` (T, Z, Y, X) that is stored in ``path``."""
    image = read_image(path)
    differences = np.array([np.abs(frame - image).mean() for frame in pixels])
    order = np.argsort(differences, kind="stable")
    closest = int(order[0])
    # Copies that were resampled or rounded are no more equal, but still far closer to their own frame than to the next.
    if differences[closest] > 0 and (len(order) < 2 or differences[closest] > 0.5 * differences[order[1]]):
        raise InputError(
            f"{path}: differs from every frame of {movie.path} (least from frame {closest}, counted from 0), expected "
            "one of them; restore both from the download"
        )
    return closest


def _load_image(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    return read_image(path).reshape(shape)
