"""Movies in DICOM, ultrasound clips and cine MRI, answered by a DICOM-SEG beside the masks as NIfTI."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from nnunet_temporal.datasets.dicom import named_movies
from nnunet_temporal.datasets.dicom_files import DicomMovie
from nnunet_temporal.datasets.dicom_io import find_movies, find_sound_movies
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
class FaultyJob(Job):
    """A file or folder that is at fault: nothing is predicted, and it is listed among what could not be.

    Attributes:
        problem: What is wrong.
    """

    problem: str

    @property
    def outputs(self) -> tuple[Path, ...]:
        """See ``Job``; there are none."""
        return ()

    def is_done(self, with_probabilities: bool) -> bool:
        """See ``Job``; never, until it is mended."""
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
    is left out with a warning; files and stacks that are at fault become jobs that fail.

    Raises:
        InputError: pydicom is missing, there is no movie, or a file that is named is at fault.
    """
    # Not relative: workers may run elsewhere.
    place = source.absolute()
    if not source.is_dir():
        return _jobs_of(find_movies(place.parent).movies, output, place)
    found = find_sound_movies(place)
    if not found.movies:
        find_movies(place)  # says what is wrong
    if found.left_out:
        lines = listed(found.left_out, _NAMED_AT_MOST)
        warnings.warn(f"left out {len(found.left_out)} DICOM files: {lines}", stacklevel=2)
    faulty = [FaultyJob((at,), output, at.name, SEQUENCE_ENDING, problem) for at, problem in found.faults]
    return sorted([*_jobs_of(found.movies, output), *faulty], key=lambda job: job.name)


def _jobs_of(movies: Sequence[DicomMovie], output: Path, part: Path | None = None) -> list[Job]:
    """Return a job for each movie, or for those that a file is part of."""
    jobs: list[Job] = []
    for study, view, movie in named_movies(movies):
        files = tuple(dict.fromkeys(frame.path for slices in movie.frames for frame in slices))
        if part is None or part in files:
            jobs.append(DicomJob(files, output, case_name(study, None, view), SEQUENCE_ENDING, movie))
    if not jobs:
        raise InputError(f"{part}: is part of no movie, expected multi-frame ultrasound or an image of cine MRI")
    return jobs


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
