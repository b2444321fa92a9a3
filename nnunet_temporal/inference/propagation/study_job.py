"""A movie whose masks are propagated through all its slices, from its seeds, with a record of each frame."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from nnunet_temporal.datasets.image_io import read_header, read_labels
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.confidence import FRAMES_ENDING
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.prediction_jobs import MovieJob, Reading
from nnunet_temporal.inference.preparation import PreparedSequence
from nnunet_temporal.inference.propagation.seeds import find_seed_file, read_seeds
from nnunet_temporal.inference.propagation.study_predictor import StudyPredictor
from nnunet_temporal.inference.propagation.study_records import read_records, remarks_on, write_records
from nnunet_temporal.inference.propagation.study_start import Seeds
from nnunet_temporal.inference.sequence_predictor import Prediction
from nnunet_temporal.sequences import Manifest


@dataclass(frozen=True)
class StudyReading(Reading):
    """What a job read, with the given masks; None begins with masks of the networks' own."""

    seeds: Seeds | None = None


@dataclass(frozen=True)
class StudyJob(MovieJob):
    """A movie (x, y, z, t) or (x, y, t), whose masks are propagated.

    Attributes:
        seeds: File of masks, or folder of files named like the movies; None for none.
        frame: Moment of a file of seeds without the time axis; None takes the end-diastolic one.
        ed: The end-diastolic moment, if the manifest beside the movie knows it.
        cyclic: Whether the movie is one heart beat, if the manifest knows it.
    """

    seeds: Path | None = None
    frame: int | None = None
    ed: int | None = None
    cyclic: bool | None = None

    @classmethod
    def of(cls, job: MovieJob, manifest: Manifest | None, seeds: Path | None, frame: int | None) -> "StudyJob":
        """Propagate masks through the movie of a job, of which a manifest may know more."""
        known = [s for s in (manifest or {}).values() if s.study == job.name]
        facts: dict[str, Any] = {"ed": known[0].ed, "cyclic": known[0].cyclic} if known else {}
        seeds = None if seeds is None else seeds.absolute()  # for workers that run elsewhere
        return cls(job.files, job.folder, job.name, job.ending, seeds=seeds, frame=frame, **facts)

    def read(self, model: TrainedModel) -> StudyReading:
        """See ``Job``."""
        reading = super().read(model)
        values = {field.name: getattr(reading, field.name) for field in fields(Reading)}
        if self.seeds is None:
            return StudyReading(**values)
        file, header = find_seed_file(self.seeds, self.name), read_header(self.files[0])
        labels = {0, *model.labels.foreground_labels}
        if self.frame is not None and read_header(file).shape == header.shape:
            raise InputError(f"{file}: holds masks of all moments, but --t0 names one; leave it out")
        frame = self.ed if self.frame is None else self.frame
        return StudyReading(**values, seeds=read_seeds(file, header, labels, model.labels.ignore_label, frame))

    def predict(  # type: ignore[override]  # it is given what it has read
        self,
        predictor: StudyPredictor,
        reading: StudyReading,
        slices: Mapping[int | None, PreparedSequence],
        *,
        with_probabilities: bool,
        clock: StageClock,
    ) -> dict[int | None, Prediction]:
        """Propagate masks through all slices, and write what is known of each frame's; never with probabilities."""
        numbered = {z or 0: sequence for z, sequence in slices.items()}
        found = predictor.segment(numbered, reading.seeds, ed=self.ed, cyclic=self.cyclic, clock=clock)
        with clock.stage("write"):
            write_records(found.records, self.folder / f"{self.name}{FRAMES_ENDING}")
        return {z: Prediction(found.masks[:, z or 0], None) for z in slices}

    def remarks(self) -> list[str]:
        """See ``Job``; they are about what has been written."""
        masks = read_labels(self.output)
        masks = masks[:, None] if masks.ndim == 3 else masks
        return [*super().remarks(), *remarks_on(read_records(self.folder / f"{self.name}{FRAMES_ENDING}"), masks)]
