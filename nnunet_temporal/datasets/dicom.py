"""Any folder of DICOM movies, ultrasound clips or cine MRI, as studies to convert; masks come as NIfTI.

A study is one StudyInstanceUID of a patient; it is named after PatientID, so pseudonymise before you convert. Its
movies are views, named after series number and, for ultrasound, instance number.
"""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import EllipsisType

import numpy as np

from nnunet_temporal.datasets.dicom_files import DicomMovie
from nnunet_temporal.datasets.dicom_io import find_movies
from nnunet_temporal.datasets.image_io import find_niftis, nifti_name, open_nifti, read_header, read_labels
from nnunet_temporal.datasets.nifti import EmptyFrames, mark_empty_frames
from nnunet_temporal.datasets.problems import apply_to_all, listed
from nnunet_temporal.datasets.study_source import StudySource
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import case_name

NAME = "DICOM"
CHANNEL = "cineMRI"

_NAMED_AT_MOST = 5
# In pixels: affines are written with few digits.
_GRID_TOLERANCE = 0.1


def find_studies(
    folder: Path,
    masks: Path | None = None,
    *,
    ignore: int,
    empty_frames: EmptyFrames | None = None,
    colour_flow: bool = False,
) -> list[StudySource]:
    """Find the movies of a folder and pair them with their masks; only headers are read.

    A mask file is called like the study, with ``_VIEW`` behind it where a study has several movies, and covers all
    frames; that of an ultrasound clip covers the image as stored or as cut to its region. Masks of MRI may be mirrored,
    as by converters that turn images around; their affine tells.

    Args:
        folder: Folder of DICOM files or of folders.
        masks: Folder of the mask files ``NAME.nii.gz`` or ``NAME.nii``; None when nothing is labelled.
        ignore: Value that means "not labelled" in the mask files.
        empty_frames: What a frame means whose mask is zero everywhere; None to refuse such a frame.
        colour_flow: Take also clips whose colours stand for flow; they are left out by default.

    Returns:
        One study per movie; those of one visit share the name.

    Raises:
        InputError: There is no movie, ultrasound and MRI are mixed, or a DICOM file, a series or a mask is at fault.
    """
    views = named_movies(_movies_to_convert(folder, colour_flow))
    mask_of = {} if masks is None else _masks_by_name(masks, {case_name(study, None, view) for study, view, _ in views})

    def source_of(entry: tuple[str, str | None, DicomMovie]) -> StudySource:
        study, view, movie = entry
        mask = mask_of.get(case_name(study, None, view))
        return _source_of(study, view, movie, None if mask is None else _mask_loader(mask, movie, empty_frames, ignore))

    return apply_to_all(views, source_of)


def _movies_to_convert(folder: Path, colour_flow: bool) -> list[DicomMovie]:
    """Return the movies of a folder that are not left out, all of one kind; warn of the others."""
    found = find_movies(folder)
    movies = [movie for movie in found.movies if colour_flow or not movie.colour_flow]
    flows = [f"{movie.frames[0][0].path}: shows flow in colours" for movie in found.movies if movie.colour_flow]
    for line in (*found.left_out, *(() if colour_flow else flows)):
        warnings.warn(f"left out: {line}", stacklevel=3)
    if not movies:
        raise InputError(f"{folder}: found only clips with colour flow, which are left out unless they are asked for")
    if len({movie.is_stack for movie in movies}) > 1:
        raise InputError(f"{folder}: found both ultrasound and MRI, expected one of them; convert one folder for each")
    return movies


def _source_of(
    study: str, view: str | None, movie: DicomMovie, load_labels: Callable[[], np.ndarray] | None
) -> StudySource:
    return StudySource(
        study=study,
        load_image=movie.load_image,
        load_labels=load_labels,
        spacing=movie.spacing,
        view=view,
        cyclic=movie.cyclic,
        source=str(movie.frames[0][0].path.resolve()),
    )


def named_movies(movies: Sequence[DicomMovie]) -> list[tuple[str, str | None, DicomMovie]]:
    """Return study, view and movie; visits of one patient are numbered by time, a view is None where it is the only.

    Args:
        movies: As ``dicom_io.find_movies`` sorts them.
    """
    patients: dict[str, list[str]] = {}
    for movie in movies:
        # The movies come sorted by time of study.
        visits = patients.setdefault(_patient(movie), [])
        if movie.study_uid not in visits:
            visits.append(movie.study_uid)
    n_movies = Counter((_patient(movie), movie.study_uid) for movie in movies)
    named = []
    uids: dict[str, str] = {}
    for movie in movies:
        patient, visits = _patient(movie), patients[_patient(movie)]
        study = patient if len(visits) == 1 else f"{patient}_{visits.index(movie.study_uid) + 1}"
        if uids.setdefault(study, movie.study_uid) != movie.study_uid:
            raise InputError(
                f"{movie.frames[0][0].path}: its study would be called {study}, as a visit of another patient is; "
                "change one PatientID"
            )
        named.append((study, movie.view if n_movies[patient, movie.study_uid] > 1 else None, movie))
    return named


def _patient(movie: DicomMovie) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", movie.patient_id).strip("-") or "unknown"


def _masks_by_name(folder: Path, expected: set[str]) -> dict[str, Path]:
    if not folder.is_dir():
        raise InputError(f"{folder}: the folder of the masks does not exist")
    found = {nifti_name(path): path for path in find_niftis(folder)}
    unknown = sorted(set(found) - expected)
    if unknown or not found:
        raise InputError(
            f"{folder}: found {listed(unknown, _NAMED_AT_MOST) or 'no mask'}, expected NIfTI files called "
            f"like the movies: {listed(sorted(expected), _NAMED_AT_MOST)}; rename or remove them"
        )
    return found


def _mask_loader(
    path: Path, movie: DicomMovie, empty_frames: EmptyFrames | None, ignore: int
) -> Callable[[], np.ndarray]:
    """Check the header of a mask file and return what loads it."""
    shape, stored = read_header(path).shape, (*movie.shape[:-2], *movie.stored_shape)
    if shape not in (movie.shape, stored):
        raise InputError(
            f"{path}: found shape {shape[::-1]}, expected {movie.shape[::-1]}, that of the movie of "
            f"{movie.frames[0][0].path.parent}{'' if stored == movie.shape else f', or as stored {stored[::-1]}'}"
        )
    cut = () if shape == movie.shape else movie.window.cut
    # Not a closure: what a study is read from must be told apart from one run to the next.
    return partial(_load_mask, path, _mirrored_axes(path, movie), cut, empty_frames, ignore)


def _load_mask(
    path: Path,
    mirrored: tuple[int, ...],
    cut: tuple[slice | EllipsisType, ...],
    empty_frames: EmptyFrames | None,
    ignore: int,
) -> np.ndarray:
    labels = np.flip(read_labels(path), mirrored)[cut]
    return mark_empty_frames(np.ascontiguousarray(labels), path, empty_frames, ignore)


def _mirrored_axes(path: Path, movie: DicomMovie) -> tuple[int, ...]:
    """Return the array axes along which a mask of MRI runs against the movie; none without an affine to compare."""
    affine = open_nifti(path).header.get_sform(coded=True)[0]
    if affine is None:
        affine = open_nifti(path).header.get_qform(coded=True)[0]
    if affine is None or movie.affine is None or not movie.is_stack:
        return ()
    to_movie = np.linalg.inv(movie.affine) @ affine
    signs = np.sign(np.diag(to_movie)[:3])
    last = np.array(movie.shape[:0:-1]) - 1
    expected = np.eye(4)
    expected[:3, :3], expected[:3, 3] = np.diag(signs), np.where(signs < 0, last, 0)
    corners = np.array([[0, 0, 0, 1], [*last, 1]], float)
    if 0 in signs or np.abs((to_movie - expected) @ corners.T).max() > _GRID_TOLERANCE:
        raise InputError(
            f"{path}: the affine places the mask elsewhere than the movie of {movie.frames[0][0].path.parent}, "
            "expected the same grid, at most mirrored; draw masks on the whole movie, neither turned nor resampled"
        )
    # The axes (x, y, z) of the file are the last of the array, in reverse order.
    return tuple(axis for axis, sign in zip((3, 2, 1), signs, strict=True) if sign < 0)
