"""ACDC: short-axis cine MRI with masks of both ventricles and the myocardium at end diastole and end systole.

Each patient has a folder ``patientNNN`` in ``database/training`` or ``database/testing``, with ``Info.cfg`` (frames
counted from 1), the movie ``patientNNN_4d.nii.gz``, its frames ED and ES as ``patientNNN_frameEE.nii.gz``, and their
masks as ``patientNNN_frameEE_gt.nii.gz``. Data and citation: Bernard et al., IEEE Transactions on Medical Imaging,
2018, https://doi.org/10.1109/TMI.2018.2837502.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import ImageHeader, read_header, read_image
from nnunet_temporal.datasets.masked_frames import load_masked_frames
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource
from nnunet_temporal.errors import InputError

LABELS = {"background": 0, "RV": 1, "MYO": 2, "LV": 3, IGNORE: 4}
CHANNEL = "cineMRI"
NAME = "ACDC"

_TESTING = "testing"
_PLACES = (".", "training", _TESTING, "database/training", f"database/{_TESTING}")
_RESTORE = "restore it from the download"


def find_studies(folder: Path) -> list[StudySource]:
    """Find the patients of ACDC; only headers and facts are read.

    A patient without masks is unlabelled, as those for testing were in the first distribution. The frames cover one
    heart beat; the time between them is not stored, whatever the header says.

    Args:
        folder: ``database``, the folder it is in, or a folder of patients such as ``database/training``.

    Returns:
        One study per patient.

    Raises:
        InputError: There is no patient, or files of one are missing, unreadable or do not fit; all bad ones are listed.
    """
    patients = _patient_folders(folder)
    if not patients:
        raise InputError(
            f"{folder}: found no folder patientNNN in it, its 'training' and 'testing' or its 'database'; name the "
            "folder 'database' of ACDC"
        )
    return apply_to_all(patients, _source_of)


def held_out_studies(folder: Path) -> list[str]:
    """Return the names of the patients whom ACDC keeps for testing: those in a folder ``testing``."""
    return [patient.name for patient in _patient_folders(folder) if patient.parent.name == _TESTING]


def _patient_folders(folder: Path) -> list[Path]:
    # Resolved, so that "." in database/testing is still known to be the folder of the patients for testing.
    places = [(folder / place).resolve() for place in _PLACES]
    return sorted(path for place in places for path in place.glob("patient*") if path.is_dir())


def _source_of(patient: Path) -> StudySource:
    movie = read_header(patient / f"{patient.name}_4d.nii.gz")
    if len(movie.shape) != 4:
        raise InputError(f"{movie.path}: found {len(movie.shape)} axes, expected 4 (x, y, z, t); {_RESTORE}")
    ed, es = _read_phases(patient / "Info.cfg", movie)
    # In the names frames count from 1, here from 0.
    frames = {t: patient / f"{patient.name}_frame{t + 1:02d}.nii.gz" for t in (ed, es)}
    masks = _masks_of(patient, frames)
    for path in (*frames.values(), *masks.values()) if masks else ():
        _check_grid(path, movie)
    return StudySource(
        study=patient.name,
        load_image=partial(_load_image, movie.path, {t: path for t, path in frames.items() if path.is_file()}),
        load_labels=partial(load_masked_frames, masks, movie.shape, LABELS) if masks else None,
        spacing=replace(movie.spacing, frame_s=None),
        ed=ed,
        es=es,
        cyclic=True,
        source=str(movie.path.resolve()),
    )


def _read_phases(path: Path, movie: ImageHeader) -> tuple[int, int]:
    """Return the frames of end diastole and end systole, counted from 0."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: expected lines such as 'ED: 1', cannot be read: {error}; {_RESTORE}") from error
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    for key in ("ED", "ES", "NbFrame"):
        if not facts.get(key, "").isdecimal():
            raise InputError(f"{path}: found {key} {facts.get(key)!r}, expected a line '{key}: NUMBER'; {_RESTORE}")
    ed, es, n_frames = int(facts["ED"]), int(facts["ES"]), movie.shape[0]
    if int(facts["NbFrame"]) != n_frames:
        raise InputError(
            f"{path}: found NbFrame {facts['NbFrame']}, expected {n_frames}, the frames of {movie.path}; restore the "
            "one that is wrong from the download"
        )
    if ed == es or not {ed, es} <= set(range(1, n_frames + 1)):
        raise InputError(
            f"{path}: found ED {ed} and ES {es}, expected two different frames in 1..{n_frames}, counted from 1; "
            f"{_RESTORE}"
        )
    return ed - 1, es - 1


def _masks_of(patient: Path, frames: dict[int, Path]) -> dict[int, Path]:
    """Return {frame: mask file} for ED and ES, or nothing for a patient without masks."""
    expected = {t: frame.with_name(frame.name.replace(".nii.gz", "_gt.nii.gz")) for t, frame in frames.items()}
    found = set(patient.glob(f"{patient.name}_frame*_gt.nii.gz"))
    if found and found != set(expected.values()):
        found_names, expected_names = (sorted(path.name for path in paths) for paths in (found, expected.values()))
        raise InputError(
            f"{patient}: found masks {found_names}, expected {expected_names} by ED and ES of Info.cfg, or none; "
            "restore the masks or Info.cfg from the download"
        )
    return expected if found else {}


def _check_grid(path: Path, movie: ImageHeader) -> None:
    shape = read_header(path).shape
    if shape != movie.shape[1:]:
        found, expected = tuple(reversed(shape)), tuple(reversed(movie.shape[1:]))
        raise InputError(f"{path}: found shape {found}, expected {expected} (x, y, z) as in {movie.path}; {_RESTORE}")


def _load_image(movie: Path, frames: dict[int, Path]) -> np.ndarray:
    """Return grey values (T, Z, Y, X), after a check that ED and ES, which were masked, are frames of the movie."""
    image = read_image(movie)
    for t, path in frames.items():
        if not np.array_equal(read_image(path), image[t]):
            raise InputError(
                f"{path}: differs from frame {t + 1} (counted from 1) of {movie}, expected the same pixels; restore "
                "both and Info.cfg from the download"
            )
    return image
