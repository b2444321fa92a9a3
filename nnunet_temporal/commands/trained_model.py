"""Which trained model a verb is about: the flags of ``nnUNetv2_predict``, and the folder they lead to."""

import argparse
import os
from pathlib import Path

from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.file_path_utilities import get_output_folder

from nnunet_temporal.commands.env import VARIABLE, ext_trainer_value
from nnunet_temporal.errors import InputError
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION
from nnunet_temporal.training.stock_model import CHECKPOINT

_ALL = "all"


def add_model_arguments(parser: argparse.ArgumentParser, folds_help: str) -> None:
    """Add -d, -tr, -c, -p, -f and -chk; ``folds_help`` says what several folds, and none, mean."""
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="id or name of the dataset the model was trained on")
    add(
        "-tr", required=True, metavar="TRAINER", help="trainer, such as nnUNetTrainerGDKVM; or nnUNetTrainer with -c 2d"
    )
    add("-c", default=TEMPORAL_CONFIGURATION, metavar="CONFIGURATION", help="configuration (default: %(default)s)")
    add("-p", default="nnUNetTemporalPlans", metavar="PLANS", help="name of the plans (default: %(default)s)")
    add("-f", nargs="+", type=_fold, metavar="FOLD", help=folds_help)
    add("-chk", default=CHECKPOINT, metavar="FILE", help="name of the checkpoint (default: %(default)s)")


def model_folder(arguments: argparse.Namespace) -> Path:
    """Return the folder of the model that the arguments name, and let nnU-Net find its trainer.

    Raises:
        InputError: nnUNet_results is not set, or there is no such dataset.
    """
    if not nnUNet_results.is_set():
        raise InputError("nnUNet_results is not set; set it to the folder that holds the trained models")
    os.environ[VARIABLE] = ext_trainer_value()
    try:
        return Path(get_output_folder(arguments.d, arguments.tr, arguments.p, arguments.c))
    except RuntimeError as error:
        raise InputError(f"-d {arguments.d}: {error}") from error


def _fold(text: str) -> int | str:
    return text if text == _ALL else int(text)
