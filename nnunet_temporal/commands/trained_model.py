"""Which trained model a verb is about: the flags of ``nnUNetv2_predict``, and the folder they lead to."""

import argparse
import os
from pathlib import Path

from nnunetv2.paths import nnUNet_results
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.file_path_utilities import convert_trainer_plans_config_to_identifier

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
    os.environ[VARIABLE] = ext_trainer_value()
    name = convert_trainer_plans_config_to_identifier(arguments.tr, arguments.p, arguments.c)
    return results_folder(arguments.d) / name


def results_folder(dataset: str) -> Path:
    """Return the folder of all models that were trained on a dataset, given by id or name.

    Raises:
        InputError: nnUNet_results is not set, or there is no such dataset.
    """
    if not nnUNet_results.is_set():
        raise InputError("nnUNet_results is not set; set it to the folder that holds the trained models")
    try:
        return Path(str(nnUNet_results)) / str(maybe_convert_to_dataset_name(dataset))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"-d {dataset}: {error}") from error


def _fold(text: str) -> int | str:
    return text if text == _ALL else int(text)
