"""Movies in DICOM, ultrasound clips and cine MRI, answered by a DICOM-SEG beside the masks as NIfTI."""

import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from nnunet_temporal.datasets.dicom import named_movies, patient_name
from nnunet_temporal.datasets.dicom_files import DicomMovie, import_pydicom, read_header
from nnunet_temporal.datasets.dicom_io import FoundMovies, find_movies
from nnunet_temporal.datasets.dicom_seg import write_dicom_seg
from nnunet_temporal.datasets.image_io import SEQUENCE_ENDING, Spacing
from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.job import Job, Reading, spacing_remarks
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.movie_jobs import DOPPLER_REMARK, InKindJob, InKindReading
from nnunet_temporal.inference.sequence_predictor import Prediction
from nnunet_temporal.sequences import case_name

_NAMED_AT_MOST = 3
# A file of DICOM begins with 128 bytes of any content, and these (DICOM PS3.10 7.1).
_DICOM_MARK, _DICOM_MARK_AT = b"DICM", 128


@dataclass(frozen=True)
class DicomJob(InKindJob):
    """A movie in DICOM, answered by a DICOM-SEG.

    Attributes:
        movie: Its headers.
    """

    movie: DicomMovie

    @property
    def companions(self) -> tuple[Path, ...]:
        """See ``InKindJob``."""
        return (self.folder / f"{self.name}.dcm",)

    @property
    def affine(self) -> np.ndarray | None:
        """See ``InKindJob``."""
        return self.movie.affine

    def remarks(self) -> list[str]:
        """See ``Job``."""
        return [*spacing_remarks(self.movie.spacing), *[DOPPLER_REMARK] * self.movie.colour_flow]

    def load(self) -> tuple[np.ndarray, Spacing]:
        """See ``InKindJob``."""
        return self.movie.load_image(), self.movie.spacing

    def write_companions(self, model: TrainedModel, reading: InKindReading, masks: np.ndarray) -> None:
        """See ``InKindJob``."""
        write_dicom_seg(masks, self.movie, structure_values(model), self.companions[0])


@dataclass(frozen=True)
class FaultyFolderJob(Job):
    """A folder whose headers are at fault: nothing is predicted, and it is listed among what could not be.

    Attributes:
        problem: What is wrong.
    """

    problem: str

    @property
    def outputs(self) -> tuple[Path, ...]:
        """See ``Job``; there are none."""
        return ()

    def is_done(self, with_probabilities: bool) -> bool:
        """See ``Job``; never, until the headers are mended."""
        return False

    def read(self, model: TrainedModel) -> NoReturn:
        """Raise InputError."""
        raise InputError(self.problem)

    def write(self, model: TrainedModel, reading: Reading, predictions: dict[int | None, Prediction]) -> NoReturn:
        """See ``Job``; raises InputError as ``read``, after which nobody comes here."""
        raise InputError(self.problem)


def structure_values(model: TrainedModel) -> dict[str, int]:
    """Return the label values that a model predicts, by name.

    A value that only regions of several labels name, as nnU-Net's region-based training allows, is called ``label N``.
    """
    values = {name: value for name, value in model.dataset["labels"].items() if isinstance(value, int)}
    unnamed = sorted(set(model.labels.foreground_labels) - set(values.values()))
    return {**values, **{f"label {value}": int(value) for value in unnamed}}


def dicom_jobs(source: Path, output: Path) -> list[Job]:
    """List the movies in a folder of DICOM files or of such folders, or those that one file takes part in.

    Names are those that ``convert dicom`` gives: the study, with the view where it has several movies. What is no movie
    is left out with a warning. Of sub-folders that share no patient, those with headers at fault become jobs that fail.

    Raises:
        InputError: pydicom is missing, there is no movie, or headers are at fault, on all of which names and the slices
            of stacks depend; all bad ones are listed.
    """
    # Not relative: workers may run elsewhere.
    place = source.absolute()
    found, faults = _search(place) if source.is_dir() else (find_movies(place.parent), {})
    if found.left_out and source.is_dir():
        lines = listed(found.left_out, _NAMED_AT_MOST)
        warnings.warn(f"left out {len(found.left_out)} DICOM files: {lines}", stacklevel=2)
    jobs: list[Job] = []
    for study, view, movie in named_movies(found.movies):
        files = tuple(dict.fromkeys(part.path for slices in movie.frames for part in slices))
        if source.is_dir() or place in files:
            jobs.append(DicomJob(files, output, case_name(study, None, view), SEQUENCE_ENDING, movie))
    if not jobs:
        raise InputError(f"{source}: is part of no movie, expected multi-frame ultrasound or an image of cine MRI")
    faulty = [FaultyFolderJob((at,), output, at.name, SEQUENCE_ENDING, problem) for at, problem in faults.items()]
    return sorted([*jobs, *faulty], key=lambda job: job.name)


def _search(folder: Path) -> tuple[FoundMovies, dict[Path, str]]:
    """Find movies, and the sub-folders whose headers are at fault, with what is wrong with each."""
    import_pydicom()
    try:
        return find_movies(folder), {}
    except InputError:
        patients = {part: _patients(part) for part in sorted(folder.iterdir()) if _holds_dicom(part)}
        shared = Counter(patient for of_part in patients.values() for patient in of_part)
        # What is at fault may be a slice of another folder's stack, or a visit that others are numbered after.
        if any(count > 1 for count in shared.values()) or any(part.is_file() for part in patients):
            raise
        found, faults = _search_apart(list(patients))
        if not found.movies:
            raise
        return found, faults


def _search_apart(folders: Sequence[Path]) -> tuple[FoundMovies, dict[Path, str]]:
    movies: list[DicomMovie] = []
    left_out: list[str] = []
    faults: dict[Path, str] = {}
    for folder in folders:
        try:
            found = find_movies(folder)
        except InputError as error:
            faults[folder] = str(error)
        else:
            movies.extend(found.movies)
            left_out.extend(found.left_out)
    # As the movies of one folder are sorted: studies are numbered in this order.
    movies.sort(key=lambda movie: (movie.patient_id, movie.study_time, movie.study_uid, movie.view))
    return FoundMovies(tuple(movies), tuple(left_out)), faults


def _holds_dicom(place: Path) -> bool:
    return not place.name.startswith(".") and (is_dicom(place) or any(map(is_dicom, place.rglob("*"))))


def _patients(folder: Path) -> set[str]:
    """Return the patients of a folder, by the headers that can be read."""
    names = set()
    for path in filter(is_dicom, folder.rglob("*")):
        with suppress(InputError):
            header = read_header(path)
            if header is not None:
                names.add(patient_name(str(header.get("PatientID") or "")))
    return names


def is_dicom(file: Path) -> bool:
    """Tell whether a file is DICOM, or at least called so; hidden files and folders are not."""
    if file.name.startswith(".") or not file.is_file():
        return False
    if file.suffix.lower() == ".dcm":
        return True
    try:
        with file.open("rb") as content:
            return content.read(_DICOM_MARK_AT + len(_DICOM_MARK))[_DICOM_MARK_AT:] == _DICOM_MARK
    except OSError:
        return False
