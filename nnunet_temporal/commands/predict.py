"""``nnunet_temporal predict``: whole sequences or movies through a trained model, fast and with little memory."""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from nnunet_temporal.atomic import write_json
from nnunet_temporal.commands.evaluate import add_view_argument
from nnunet_temporal.commands.propagation import (
    add_propagation_arguments,
    check_propagation,
    study_jobs,
    study_predictor,
)
from nnunet_temporal.commands.report import ReportRequest, check_outputs, make_report
from nnunet_temporal.commands.trained_model import add_model_arguments, model_folder
from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import label_scheme_of
from nnunet_temporal.inference.batch import Outcome, predict_jobs, show_progress
from nnunet_temporal.inference.confidence import FRAMES_ENDING
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.movie_jobs import InKindJob
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.prediction_jobs import Job, SequenceJob, find_jobs
from nnunet_temporal.inference.prediction_record import write_record
from nnunet_temporal.inference.propagation.study_predictor import StudyPredictor
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.inference.smoothing import check_smooth_frames
from nnunet_temporal.inference.study import PREDICTION_ARGUMENTS
from nnunet_temporal.training.stock_model import cross_validation_folds

HELP = "Predict sequences or whole movies, fast, of any length, with the flags of nnUNetv2_predict."

_WORKERS = 2
_NAMED_AT_MOST = 5
_PATIENCE_S = 2.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments; those that ``nnUNetv2_predict`` has too are called as there."""
    add = parser.add_argument
    add(
        "-i",
        type=Path,
        required=True,
        metavar="INPUT",
        help="folder of sequences CASE_0000.nii.gz, or of movies (x, y, z, t) or (x, y, t) of one kind (NIfTI; NRRD, "
        "MetaImage; AVI, MP4, GIF; DICOM, also in sub-folders), or one movie; movies are split, predicted and merged "
        "in one go",
    )
    add("-o", type=Path, required=True, metavar="OUTPUT", help="folder for the masks; made when missing")
    add_model_arguments(parser, folds_help="folds to average (default: all that are trained)")
    add("-device", choices=("cuda", "cpu"), default="cuda", help="where to predict (default: %(default)s)")
    mirroring = parser.add_mutually_exclusive_group()
    mirroring.add_argument("--tta", action="store_true", help="average mirrored copies, where the training mirrored")
    mirroring.add_argument("--disable_tta", action="store_true", help="do not, which is the default here")
    add("--both_ways", action="store_true", help="also predict from the last frame to the first, and average")
    add("--smooth", type=int, metavar="FRAMES", help="smooth logits along time over an odd number of frames, such as 7")
    add("--compile", action="store_true", help="compile the networks: takes a minute, then frames are faster")
    add("--save_probabilities", action="store_true", help="also write probabilities, for ensembles; sequences only")
    add("--continue_prediction", action="store_true", help="keep masks that are there already")
    add("-num_parts", type=int, default=1, metavar="N", help="number of calls that share the input (default: 1)")
    add("-part_id", type=int, default=0, metavar="I", help="which of them this is, 0 to N - 1 (default: 0)")
    add("--engine", choices=("dask",), help="deal the files out to worker processes; needs nnunet_temporal[dask]")
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument(
        "--workers", type=int, metavar="N", help=f"worker processes on this machine (default: {_WORKERS})"
    )
    workers.add_argument("--scheduler", metavar="ADDRESS", help="use a Dask cluster that runs, such as tcp://host:8786")
    add("--retries", type=int, default=2, metavar="N", help="tries after a failed one, with --engine (default: 2)")
    add_propagation_arguments(parser)
    add("--report", type=Path, metavar="PAGE", help="also make a page of the masks, as 'nnunet_temporal report' does")
    add("--table", type=Path, metavar="CSV", help="also write the figures of the page as a table; with --report")
    add_view_argument(parser)
    add("--profile", action="store_true", help="print the seconds spent reading, resampling, ..., over all workers")


def run(arguments: argparse.Namespace) -> int:
    """Predict, and list what could not be predicted.

    Returns:
        The exit code, 1 when any input failed.
    """
    _check(arguments)
    folder = model_folder(arguments)
    model = TrainedModel.read(folder, arguments.f, arguments.chk)
    output: Path = arguments.o
    if arguments.report is not None:
        label_scheme_of(model.dataset["labels"], folder / "dataset.json")  # or it would be refused after all the work
    jobs = find_jobs(arguments.i, output, model.dataset["file_ending"])
    if arguments.seed is not None:
        jobs = study_jobs(arguments, _seedable(jobs))
    is_movies = not isinstance(jobs[0], SequenceJob)
    if is_movies and arguments.save_probabilities:
        raise InputError(
            "--save_probabilities: there are files for those of sequences only; first 'nnunet_temporal split'"
        )
    clock = StageClock()
    predict = _way(arguments, folder, model, clock)
    output.mkdir(parents=True, exist_ok=True)
    for name, content in (("dataset.json", model.dataset), ("plans.json", model.plans.plans)):
        write_json(content, output / name)
    _write_record(arguments, folder, model)
    if not is_movies:
        write_json({"list_of_lists_or_source_folder": str(arguments.i.resolve())}, output / PREDICTION_ARGUMENTS)
    part = jobs[arguments.part_id :: arguments.num_parts]
    jobs = [job for job in part if not (arguments.continue_prediction and job.is_done(arguments.save_probabilities))]
    start = time.perf_counter()
    problems = show_progress(predict(jobs), len(jobs))
    print(f"{len(jobs) - len(problems)} files predicted in {time.perf_counter() - start:.1f} s, masks in {output}")
    if arguments.seed is not None:
        print(f"Confidence of every frame in *{FRAMES_ENDING} beside the masks; peak memory {_peak_mb():.0f} MB")
    if arguments.profile:
        print("Seconds by stage, which overlap: files are read and frames resampled while the network runs")
        print(*(f"  {stage:<12} {seconds:8.2f} s" for stage, seconds in clock.seconds.items()), sep="\n")
    _print_remarks(jobs)
    if problems:
        print(f"{len(problems)} could not be predicted:", *problems, sep="\n  - ", file=sys.stderr)
    if arguments.report is not None and any(job.is_done(False) for job in part):
        request = ReportRequest(arguments.i, output, None, arguments.report, view=arguments.view, table=arguments.table)
        make_report(request)
    return 1 if problems else 0


def _write_record(arguments: argparse.Namespace, folder: Path, model: TrainedModel) -> None:
    folds = arguments.f or cross_validation_folds(folder, arguments.chk)
    names = ("device", "tta", "both_ways", "smooth", "seed", "seed_model")
    write_record(
        arguments.o,
        dataset=model.plans.dataset_name,
        trainer=arguments.tr,
        plans=arguments.p,
        configuration=arguments.c,
        folds=list(folds),
        checkpoint=arguments.chk,
        options={name: _plain(getattr(arguments, name)) for name in names},
    )


def _plain(value: object) -> object:
    """Return an option as JSON has it."""
    return value if isinstance(value, int | None) else str(value)


def _check(arguments: argparse.Namespace) -> None:
    check_propagation(arguments)
    if arguments.report is None and (arguments.table, arguments.view) != (None, None):
        raise InputError("--table, --view: are of the page; name it with --report")
    if arguments.report is not None:
        check_outputs(arguments.report, arguments.table, "--report")
        if arguments.num_parts > 1:
            raise InputError(
                "--report: cannot show what other calls predict; make it after all with 'nnunet_temporal report'"
            )
    if arguments.smooth is not None:
        try:
            check_smooth_frames(arguments.smooth)
        except ValueError as error:
            raise InputError(f"--smooth: {error}") from error
    if not 0 <= arguments.part_id < arguments.num_parts:
        raise InputError(
            f"-part_id {arguments.part_id}: expected one of 0..{arguments.num_parts - 1}, as -num_parts says"
        )
    if arguments.engine is None and (arguments.workers is not None or arguments.scheduler is not None):
        raise InputError("--workers and --scheduler are for --engine dask; name it too")
    if arguments.workers is not None and arguments.workers < 1:
        raise InputError(f"--workers {arguments.workers}: expected one or more")
    if arguments.retries < 0:
        raise InputError(f"--retries {arguments.retries}: expected 0 or more")
    # A cluster that runs elsewhere has GPUs of its own.
    if arguments.device == "cuda" and arguments.scheduler is None and not torch.cuda.is_available():
        raise InputError("-device cuda: found no GPU that torch can use; predict on the processor with -device cpu")


def _seedable(jobs: list[Job]) -> list[Job]:
    if any(isinstance(job, InKindJob) for job in jobs):
        raise InputError(
            f"--seed: found {jobs[0].files[0].name}, expected movies in NIfTI, on whose grid seeds are drawn; convert "
            "it, or predict without --seed"
        )
    return jobs


def _print_remarks(jobs: Sequence[Job]) -> None:
    """Print what is to be known of the masks that are there, each remark once, with the movies it is about."""
    movies: dict[str, list[str]] = {}
    done = [job for job in jobs if job.is_done(False)]
    for job in tqdm(done, desc="Collecting remarks", unit="file", delay=_PATIENCE_S):
        # A movie that cannot be read is among the problems.
        with suppress(InputError):
            for remark in job.remarks():
                movies.setdefault(remark, []).append(job.name)
    if movies:
        lines = (f"{listed(names, _NAMED_AT_MOST)}: {remark}" for remark, names in movies.items())
        print("Remarks:", *lines, sep="\n  - ", file=sys.stderr)


def _way(
    arguments: argparse.Namespace, folder: Path, model: TrainedModel, clock: StageClock
) -> Callable[[Sequence[Job]], Iterator[Outcome]]:
    """Return what predicts jobs, here or by workers; what cannot work is refused at once."""
    common = {"with_probabilities": arguments.save_probabilities, "clock": clock}
    if arguments.engine is None:
        return partial(predict_jobs, _predictor(arguments, model, arguments.device), **common)
    try:
        from nnunet_temporal.inference.cluster import existing_workers, local_workers, predict_on_workers
    except ModuleNotFoundError as error:
        if error.name not in ("dask", "distributed"):
            raise
        raise InputError(f"--engine dask: {error}; pip install 'nnunet_temporal[dask]'") from error
    _predictor(arguments, model, "cpu")  # or every worker would find out by itself
    build = partial(_read_predictor, arguments, folder.absolute())
    retries, workers = arguments.retries, arguments.workers or _WORKERS

    def on_workers(jobs: Sequence[Job]) -> Iterator[Outcome]:
        scheduler = arguments.scheduler
        with existing_workers(scheduler) if scheduler else local_workers(workers, retries) as client:
            yield from predict_on_workers(client, build, jobs, retries=retries, **common)

    return on_workers


def _read_predictor(arguments: argparse.Namespace, folder: Path) -> SequencePredictor | StudyPredictor:
    """Read the model in a worker, and return what predicts with it."""
    return _predictor(arguments, TrainedModel.read(folder, arguments.f, arguments.chk), arguments.device)


def _predictor(arguments: argparse.Namespace, model: TrainedModel, device: str) -> SequencePredictor | StudyPredictor:
    if arguments.seed is not None:
        return study_predictor(arguments, model, device)
    return SequencePredictor(
        model,
        device,
        mirror=arguments.tta,
        both_ways=arguments.both_ways,
        smooth_frames=arguments.smooth,
        compile=arguments.compile,
    )


def _peak_mb() -> float:
    """Return the most memory that this process has held, in MB."""
    if sys.platform == "win32":
        return math.nan  # its modules do not tell
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)  # bytes there, kilobytes elsewhere
