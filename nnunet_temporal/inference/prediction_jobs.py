"""Files in, masks out: a sequence as nnU-Net names its files, or a whole movie that is split and merged on the way."""

import gzip
import math
import pickle
import re
import tempfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.datasets.image_io import (
    NIFTI_ENDINGS,
    SEQUENCE_ENDING,
    nifti_name,
    open_nifti,
    read_header,
    read_image,
    write_sequence,
)
from nnunet_temporal.datasets.movie_io import MOVIE_ENDINGS
from nnunet_temporal.datasets.study_source import by_slice
from nnunet_temporal.datasets.video_io import VIDEO_ENDINGS
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.dicom_jobs import dicom_jobs, is_dicom
from nnunet_temporal.inference.job import Job, Reading, spacing_remarks
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.movie_jobs import TextHeaderJob, VideoJob
from nnunet_temporal.inference.preparation import PreparedSequence
from nnunet_temporal.inference.sequence_predictor import Prediction
from nnunet_temporal.inference.study import merge_study

_SEQUENCES, _NIFTI, _TEXT_HEADER = "sequences", "movies in NIfTI", "movies in NRRD or MetaImage"
_VIDEO, _DICOM = "videos", "DICOM files"


class Predictor(Protocol):
    """What prepares images for a model; each kind of job knows by which kind of predictor its images are segmented."""

    model: TrainedModel

    def prepare(self, image: np.ndarray, pixel_mm: tuple[float, float]) -> PreparedSequence:
        """Measure what preprocessing needs to know of an image (C, T, Y, X)."""


class SequenceJob(Job):
    """A sequence ``CASE_0000.nii.gz``, ``CASE_0001.nii.gz``, ..., one file per channel, read and written by nnU-Net."""

    def read(self, model: TrainedModel) -> Reading:
        """See ``Job``."""
        for file in self.files:
            if file.name.endswith(NIFTI_ENDINGS):
                _check_whole(file)
        image, properties = model.plans.image_reader_writer_class().read_images([str(file) for file in self.files])
        _, y_mm, x_mm = (float(length) for length in properties["spacing"])
        return Reading({None: image}, (y_mm, x_mm), properties)

    def write(self, model: TrainedModel, reading: Reading, predictions: dict[int | None, Prediction]) -> None:
        """See ``Job``; probabilities are written as nnU-Net writes them."""
        masks, probabilities, _ = predictions[None]
        if probabilities is not None:
            with atomic_path(self.folder / f"{self.name}.pkl") as temporary:
                temporary.write_bytes(pickle.dumps(reading.properties))
            with atomic_path(self.probabilities_file) as temporary:
                np.savez_compressed(temporary, probabilities=probabilities)
        with atomic_path(self.output) as temporary:
            model.plans.image_reader_writer_class().write_seg(masks, str(temporary), reading.properties)


class MovieJob(Job):
    """A NIfTI movie (x, y, z, t) or (x, y, t): slices are predicted one by one, and merged on its grid and header."""

    @classmethod
    def from_file(cls, movie: Path, output: Path) -> "MovieJob":
        """Predict a file; the masks are named like it."""
        return cls((movie,), output, nifti_name(movie), SEQUENCE_ENDING)

    def remarks(self) -> list[str]:
        """See ``Job``."""
        return spacing_remarks(read_header(self.files[0]).spacing)

    def read(self, model: TrainedModel) -> Reading:
        """See ``Job``."""
        (file,) = self.files
        slices = {z: pixels[None] for z, pixels in by_slice(read_image(file)).items()}
        return Reading(slices, read_header(file).spacing.pixel_mm, {})

    def write(self, model: TrainedModel, reading: Reading, predictions: dict[int | None, Prediction]) -> None:
        """See ``Job``; there is no file for the probabilities of a movie."""
        with tempfile.TemporaryDirectory() as folder:
            masks = {z: Path(folder) / f"{z}{SEQUENCE_ENDING}" for z in predictions}
            for z, file in masks.items():
                write_sequence(predictions[z].masks, reading.pixel_mm, file)
            merge_study(masks, self.files[0], self.output)


_ENDINGS = {
    _NIFTI: NIFTI_ENDINGS,
    _TEXT_HEADER: tuple(ending for ending in MOVIE_ENDINGS if ending not in NIFTI_ENDINGS),
    _VIDEO: VIDEO_ENDINGS,
}
_JOB_OF: dict[str, Callable[[Path, Path], Job]] = {
    _NIFTI: MovieJob.from_file,
    _TEXT_HEADER: TextHeaderJob.from_file,
    _VIDEO: VideoJob.from_file,
}


def find_jobs(source: Path, output: Path, file_ending: str) -> list[Job]:
    """List what there is to predict.

    Args:
        source: Folder of sequences, all named as nnU-Net asks for, or of movies of one kind: NIfTI, NRRD and MetaImage,
            videos, or DICOM, which may lie in sub-folders; or one movie.
        output: Folder for the masks.
        file_ending: Of the dataset that the model was trained on.

    Returns:
        One job per sequence or movie, sorted by name.

    Raises:
        InputError: There is no input, or of more than one kind; two movies have one name, or what is written would
            overwrite a movie; a package that reads or writes the kind is missing; or DICOM headers are at fault.
    """
    if not source.exists():
        raise InputError(f"{source}: the input does not exist; name a folder of sequences or movies with -i")
    kinds: dict[str, list[Path]] = {}
    pattern = re.compile(rf"([^.].*)_\d{{4}}{re.escape(file_ending)}")
    for file in sorted(source.iterdir()) if source.is_dir() else [source]:
        if kind := _kind_of(file, pattern if source.is_dir() else None):
            kinds.setdefault(kind, []).append(file)
    if not kinds and source.is_dir() and any(map(is_dicom, source.rglob("*"))):
        kinds = {_DICOM: []}
    if not kinds:
        endings = ", ".join((*MOVIE_ENDINGS, *VIDEO_ENDINGS))
        raise InputError(
            f"{source}: found neither sequences CASE_0000{file_ending} nor movies ({endings}) nor DICOM files"
        )
    if len(kinds) > 1:
        found = " and ".join(f"{kind} such as {files[0].name}" for kind, files in kinds.items())
        raise InputError(f"{source}: found {found}; predict them from separate folders")
    ((kind, files),) = kinds.items()
    if kind == _SEQUENCES:
        return _sequence_jobs(files, output, pattern, file_ending)
    jobs = dicom_jobs(source, output) if kind == _DICOM else [_JOB_OF[kind](file, output) for file in files]
    _check_outputs(jobs)
    return jobs


def _kind_of(file: Path, pattern: re.Pattern[str] | None) -> str | None:
    """Return the kind of a file, None for one that is nothing to predict; one movie may be called like a sequence."""
    if pattern and pattern.fullmatch(file.name):
        return _SEQUENCES
    if file.name.startswith(".") or not file.is_file():
        return None
    for kind, endings in _ENDINGS.items():
        # What reads NIfTI takes its ending in small letters only.
        if (file.name if kind == _NIFTI else file.name.lower()).endswith(endings):
            return kind
    return _DICOM if is_dicom(file) else None


def _sequence_jobs(files: list[Path], output: Path, pattern: re.Pattern[str], file_ending: str) -> list[Job]:
    cases: dict[str, list[Path]] = {}
    for file in files:
        if match := pattern.fullmatch(file.name):
            cases.setdefault(match[1], []).append(file)
    return [SequenceJob(tuple(channels), output, case, file_ending) for case, channels in sorted(cases.items())]


def _check_outputs(jobs: Sequence[Job]) -> None:
    """Refuse what would overwrite a movie, or what another movie gives."""
    taken = {file.resolve() for job in jobs for file in job.files}
    for job in jobs:
        for file in job.outputs:
            if file.resolve() in taken:
                raise InputError(
                    f"{job.files[0]}: its {file.name} would overwrite a movie or the masks of one; rename it or choose "
                    "another -o"
                )
            taken.add(file.resolve())


def _check_whole(file: Path) -> None:
    """Raise InputError for a NIfTI file that is cut off: SimpleITK reads zeros from there on, without complaint."""
    header = open_nifti(file).header
    expected = int(header.get_data_offset()) + math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    try:
        with gzip.open(file) if file.name.endswith(".gz") else file.open("rb") as content:
            found = sum(len(part) for part in iter(lambda: content.read(1 << 20), b""))
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{file}: cannot be unpacked, the file may be cut off: {error}") from error
    if found < expected:
        raise InputError(f"{file}: found {found} bytes, expected {expected}; the file is cut off")
