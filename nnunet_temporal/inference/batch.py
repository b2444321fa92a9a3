"""Many files predicted in a row: read ahead, written whole, and none stopped by another that is broken."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from tqdm import tqdm

from nnunet_temporal.inference.confidence import CONFIDENCE_ENDING, remove_confidence, write_confidence
from nnunet_temporal.inference.pipeline import StageClock, ahead
from nnunet_temporal.inference.prediction_jobs import Job, Predictor, Reading
from nnunet_temporal.inference.preparation import PreparedSequence

_Read = tuple[Reading, dict[int | None, PreparedSequence]]


class Outcome(NamedTuple):
    """What became of a job.

    Attributes:
        frames: Number of frames that were predicted, over all slices.
        problem: What was wrong, naming the file; nothing is written then. None if all went well.
    """

    frames: int
    problem: str | None = None


def predict_jobs(
    predictor: Predictor, jobs: Sequence[Job], *, with_probabilities: bool, clock: StageClock
) -> Iterator[Outcome]:
    """Predict all jobs, one after the other. While one is predicted, a thread reads the next.

    Args:
        predictor: The model.
        jobs: What to predict.
        with_probabilities: Whether to keep probabilities.
        clock: Counts the seconds of each stage.

    Yields:
        The outcome of each job when it is done.
    """
    for job, read in ahead(_read_all(predictor, jobs, clock), depth=1):
        try:
            if isinstance(read, Exception):
                raise read
            outcome = Outcome(_predict(predictor, job, read, with_probabilities, clock))
        # Whatever is wrong with one file, the others are still to be predicted; all is reported in the end.
        except Exception as error:
            outcome = Outcome(0, describe(job, error))
        yield outcome


def show_progress(outcomes: Iterable[Outcome], total: int) -> list[str]:
    """Follow jobs, by whomever they are predicted, with a progress bar that shows frames per second.

    Args:
        outcomes: Of all jobs, as they are done.
        total: How many there will be.

    Returns:
        The problems.
    """
    problems, frames = [], 0
    with tqdm(total=total, desc="Predicting", unit="file") as bar:
        for outcome in outcomes:
            if outcome.problem is not None:
                problems.append(outcome.problem)
            frames += outcome.frames
            bar.set_postfix_str(f"{frames / max(bar.format_dict['elapsed'], 1e-3):.1f} frames/s", refresh=False)
            bar.update()
    return problems


def describe(job: Job, error: Exception) -> str:
    """Say what was wrong with a job, naming the file where the message does not do so itself, as those of ours do."""
    message, file = str(error) or type(error).__name__, str(job.files[0])
    return message if message.startswith(file) else f"{file}: {message}"


def _read_all(predictor: Predictor, jobs: Sequence[Job], clock: StageClock) -> Iterator[tuple[Job, _Read | Exception]]:
    for job in jobs:
        try:
            with clock.stage("read"):
                reading = job.read(predictor.model)
            with clock.stage("resample"):
                prepared = {z: predictor.prepare(image, reading.pixel_mm) for z, image in reading.images.items()}
            yield job, (reading, prepared)
        # Readers raise what they like on a broken file.
        except Exception as error:
            yield job, error


def _predict(predictor: Predictor, job: Job, read: _Read, with_probabilities: bool, clock: StageClock) -> int:
    """Predict and write one job; return its number of frames, over all slices."""
    reading, prepared = read
    remove_confidence(job.folder, job.name)
    predictions = job.predict(predictor, reading, prepared, with_probabilities=with_probabilities, clock=clock)
    with clock.stage("write"):
        # Before the masks, which tell that a job is done.
        sure = {z: found.confidence for z, found in predictions.items() if found.confidence is not None}
        if sure:
            write_confidence(sure, job.folder / f"{job.name}{CONFIDENCE_ENDING}")
        job.write(predictor.model, reading, predictions)
    return sum(len(prediction.masks) for prediction in predictions.values())
