"""``nnunet_temporal predict``: whole sequences or movies through a trained model, fast and with little memory."""

import argparse
import os
import sys
import time
from pathlib import Path

import torch
from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_temporal.atomic import write_json
from nnunet_temporal.commands.env import VARIABLE, ext_trainer_value
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.batch import predict_jobs
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.prediction_jobs import MovieJob, find_jobs
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.inference.study import PREDICTION_ARGUMENTS
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION
from nnunet_temporal.training.stock_model import CHECKPOINT

HELP = "Predict sequences or whole movies, fast, of any length, with the flags of nnUNetv2_predict."

_ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments; those that ``nnUNetv2_predict`` has too are called as there."""
    add = parser.add_argument
    add(
        "-i",
        type=Path,
        required=True,
        metavar="INPUT",
        help="folder of sequences CASE_0000.nii.gz, or of movies (x, y, z, t) or (x, y, t), or one movie; movies are "
        "split, predicted and merged in one go",
    )
    add("-o", type=Path, required=True, metavar="OUTPUT", help="folder for the masks; made when missing")
    add("-d", required=True, metavar="DATASET", help="id or name of the dataset the model was trained on")
    add(
        "-tr", required=True, metavar="TRAINER", help="trainer, such as nnUNetTrainerGDKVM; or nnUNetTrainer with -c 2d"
    )
    add("-c", default=TEMPORAL_CONFIGURATION, metavar="CONFIGURATION", help="configuration (default: %(default)s)")
    add("-p", default="nnUNetTemporalPlans", metavar="PLANS", help="name of the plans (default: %(default)s)")
    add("-f", nargs="+", type=_fold, metavar="FOLD", help="folds to average (default: all that are trained)")
    add("-chk", default=CHECKPOINT, metavar="FILE", help="name of the checkpoint (default: %(default)s)")
    add("-device", choices=("cuda", "cpu"), default="cuda", help="where to predict (default: %(default)s)")
    mirroring = parser.add_mutually_exclusive_group()
    mirroring.add_argument("--tta", action="store_true", help="average mirrored copies, where the training mirrored")
    mirroring.add_argument("--disable_tta", action="store_true", help="do not, which is the default here")
    add("--save_probabilities", action="store_true", help="also write probabilities, for ensembles; sequences only")
    add("--continue_prediction", action="store_true", help="keep masks that are there already")
    add("-num_parts", type=int, default=1, metavar="N", help="number of calls that share the input (default: 1)")
    add("-part_id", type=int, default=0, metavar="I", help="which of them this is, 0 to N - 1 (default: 0)")
    add("--profile", action="store_true", help="print the seconds spent reading, resampling, ...")


def run(arguments: argparse.Namespace) -> int:
    """Predict, and list what could not be predicted.

    Returns:
        The exit code, 1 when any input failed.
    """
    if not 0 <= arguments.part_id < arguments.num_parts:
        raise InputError(
            f"-part_id {arguments.part_id}: expected one of 0..{arguments.num_parts - 1}, as -num_parts says"
        )
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("-device cuda: found no GPU that torch can use; predict on the processor with -device cpu")
    predictor = SequencePredictor.from_model_folder(
        _model_folder(arguments), arguments.f, arguments.device, checkpoint_name=arguments.chk, mirror=arguments.tta
    )
    output: Path = arguments.o
    jobs = find_jobs(arguments.i, output, predictor.model.dataset["file_ending"])
    is_movies = isinstance(jobs[0], MovieJob)
    if is_movies and arguments.save_probabilities:
        raise InputError(
            "--save_probabilities: there are files for those of sequences only; first 'nnunet_temporal split'"
        )
    output.mkdir(parents=True, exist_ok=True)
    for name, content in (("dataset.json", predictor.model.dataset), ("plans.json", predictor.model.plans.plans)):
        write_json(content, output / name)
    if not is_movies:
        write_json({"list_of_lists_or_source_folder": str(arguments.i.resolve())}, output / PREDICTION_ARGUMENTS)
    jobs = jobs[arguments.part_id :: arguments.num_parts]
    if arguments.continue_prediction:
        jobs = [job for job in jobs if not job.is_done(arguments.save_probabilities)]
    clock, start = StageClock(), time.perf_counter()
    problems = predict_jobs(predictor, jobs, with_probabilities=arguments.save_probabilities, clock=clock)
    print(f"{len(jobs) - len(problems)} files predicted in {time.perf_counter() - start:.1f} s, masks in {output}")
    if arguments.profile:
        print(*(f"  {stage:<12} {seconds:8.2f} s" for stage, seconds in clock.seconds.items()), sep="\n")
    if problems:
        print(f"{len(problems)} could not be predicted:", *problems, sep="\n  - ", file=sys.stderr)
    return 1 if problems else 0


def _fold(text: str) -> int | str:
    return text if text == _ALL else int(text)


def _model_folder(arguments: argparse.Namespace) -> Path:
    if not nnUNet_results.is_set():
        raise InputError("nnUNet_results is not set; set it to the folder that holds the trained models")
    os.environ[VARIABLE] = ext_trainer_value()
    try:
        return Path(get_output_folder(arguments.d, arguments.tr, arguments.p, arguments.c))
    except RuntimeError as error:
        raise InputError(f"-d {arguments.d}: {error}") from error
