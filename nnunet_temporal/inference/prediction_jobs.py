"""Files in, masks out: a sequence as nnU-Net names its files, or a whole movie that is split and merged on the way."""

import gzip
import math
import pickle
import re
import tempfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.datasets.image_io import (
    NIFTI_ENDINGS,
    SEQUENCE_ENDING,
    find_niftis,
    nifti_name,
    open_nifti,
    read_header,
    read_image,
    write_sequence,
)
from nnunet_temporal.datasets.study_source import by_slice
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.preparation import PreparedSequence
from nnunet_temporal.inference.sequence_predictor import Prediction
from nnunet_temporal.inference.study import merge_study


class Predictor(Protocol):
    """What prepares images for a model; each kind of job knows by which kind of predictor its images are segmented."""

    model: TrainedModel

    def prepare(self, image: np.ndarray, pixel_mm: tuple[float, float]) -> PreparedSequence:
        """Measure what preprocessing needs to know of an image (C, T, Y, X)."""


@dataclass(frozen=True)
class Reading:
    """What a job read.

    Attributes:
        images: {slice: (C, T, Y, X)}; {None: image} where there are no slices.
        pixel_mm: In-plane spacing (y, x) in mm.
        properties: What nnU-Net's reader says about the grid; empty for movies.
    """

    images: dict[int | None, np.ndarray]
    pixel_mm: tuple[float, float]
    properties: dict[str, Any]


@dataclass(frozen=True)
class Job(ABC):
    """One output file and what it is predicted from.

    Attributes:
        files: The input, one file per channel.
        folder: Existing folder for the output.
        name: Name of the output, without an ending.
        ending: Ending of the file of masks.
    """

    files: tuple[Path, ...]
    folder: Path
    name: str
    ending: str

    @property
    def output(self) -> Path:
        """File for the masks."""
        return self.folder / f"{self.name}{self.ending}"

    @property
    def probabilities_file(self) -> Path:
        """File for the probabilities, if they are asked for."""
        return self.folder / f"{self.name}.npz"

    def is_done(self, with_probabilities: bool) -> bool:
        """Tell whether all output is there; files appear whole, and the masks last."""
        return self.output.is_file() and (not with_probabilities or self.probabilities_file.is_file())

    @abstractmethod
    def read(self, model: TrainedModel) -> Reading:
        """Read the input; raises whatever a reader does on a broken file."""

    def predict(
        self,
        predictor: Any,  # noqa: ANN401 - a SequencePredictor; other jobs have others
        reading: Reading,
        slices: Mapping[int | None, PreparedSequence],
        *,
        with_probabilities: bool,
        clock: StageClock,
    ) -> dict[int | None, Prediction]:
        """Predict what was read and prepared, slice by slice."""
        return {
            z: predictor.segment(sequence, with_probabilities=with_probabilities, clock=clock)
            for z, sequence in slices.items()
        }

    @abstractmethod
    def write(self, model: TrainedModel, reading: Reading, predictions: dict[int | None, Prediction]) -> None:
        """Write masks, and probabilities where the predictions have some."""


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
        masks, probabilities = predictions[None]
        if probabilities is not None:
            with atomic_path(self.folder / f"{self.name}.pkl") as temporary:
                temporary.write_bytes(pickle.dumps(reading.properties))
            with atomic_path(self.probabilities_file) as temporary:
                np.savez_compressed(temporary, probabilities=probabilities)
        with atomic_path(self.output) as temporary:
            model.plans.image_reader_writer_class().write_seg(masks, str(temporary), reading.properties)


class MovieJob(Job):
    """A movie (x, y, z, t) or (x, y, t): its slices are predicted one by one, and merged on its grid and header."""

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


def find_jobs(source: Path, output: Path, file_ending: str) -> list[Job]:
    """List what there is to predict.

    Args:
        source: Folder of sequences, all named as nnU-Net asks for, or of movies, none of which is; or one movie.
        output: Folder for the masks.
        file_ending: Of the dataset that the model was trained on.

    Returns:
        One job per sequence or movie, sorted by name.

    Raises:
        InputError: There is no input, or both kinds; two movies have one name, or a mask would overwrite its movie.
    """
    if not source.exists():
        raise InputError(f"{source}: the input does not exist; name a folder of sequences or movies with -i")
    if source.is_file():
        return _movie_jobs([source], output)
    pattern = re.compile(rf"([^.].*)_\d{{4}}{re.escape(file_ending)}")
    cases: dict[str, list[Path]] = {}
    for file in sorted(source.iterdir()):
        if match := pattern.fullmatch(file.name):
            cases.setdefault(match[1], []).append(file)
    movies = [movie for movie in find_niftis(source) if not pattern.fullmatch(movie.name)]
    if cases and movies:
        raise InputError(
            f"{source}: found sequences such as {next(iter(cases.values()))[0].name} and movies such as "
            f"{movies[0].name}; predict them from separate folders"
        )
    if not cases and not movies:
        raise InputError(f"{source}: found neither sequences CASE_0000{file_ending} nor movies (.nii, .nii.gz)")
    sequences = [SequenceJob(tuple(files), output, case, file_ending) for case, files in sorted(cases.items())]
    return [*sequences, *_movie_jobs(movies, output)]


def _movie_jobs(movies: list[Path], output: Path) -> list[Job]:
    jobs: dict[Path, Job] = {}
    for movie in movies:
        job = MovieJob((movie,), output, nifti_name(movie), SEQUENCE_ENDING)
        if job.output in jobs or job.output.resolve() == movie.resolve():
            raise InputError(f"{movie}: its masks would overwrite a movie or the masks of one; rename it or choose -o")
        jobs[job.output] = job
    return list(jobs.values())


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
