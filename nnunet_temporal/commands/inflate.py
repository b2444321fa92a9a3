"""``nnunet_temporal inflate``: a trained stock 2D model becomes the start of a temporal training."""

import argparse
import contextlib
import io
import os
from pathlib import Path

import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.utilities.dataset_name_id_conversion import convert_id_to_dataset_name
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_temporal.commands.env import VARIABLE, ext_trainer_value
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.splits_file import SPLITS_NAME, check_same_splits, read_splits
from nnunet_temporal.errors import InputError
from nnunet_temporal.planners.inflated_plans import (
    DEFAULT_PLANS_NAME,
    check_agreement,
    inflated_plans,
    is_preprocessed,
    write_plans,
)
from nnunet_temporal.planners.temporal_planner import TemporalPlanner
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, check_splits
from nnunet_temporal.trainers.inflate import inflate, save_start
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal
from nnunet_temporal.training.seen_studies import check_study_fold, seen_cases
from nnunet_temporal.training.stock_model import StockModel

HELP = "start a temporal training from a trained stock 2D model: its plans, its weights, and a sense of time"

_ALL = "all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments; those nnU-Net's commands have too are called as there."""
    add = parser.add_argument
    add(
        "-m",
        type=Path,
        required=True,
        metavar="FOLDER",
        help="the 2D model: TRAINER__PLANS__CONFIGURATION in nnUNet_results, with plans.json and fold_0, fold_1, ...",
    )
    add("-d", type=int, required=True, metavar="ID", help="id of the dataset of sequences to go on with")
    add("-tr", required=True, metavar="TRAINER", help="temporal trainer, such as nnUNetTrainerGDKVM")
    add("-f", nargs="+", type=_fold, metavar="FOLD", help="folds (default: all that the 2D model has)")
    add("-p", default=DEFAULT_PLANS_NAME, metavar="PLANS", help="name of the plans to write (default: %(default)s)")
    add("-np", type=int, default=8, help="processes for preprocessing (default: %(default)s)")
    add("-gpu_memory_target", type=float, default=8, help="memory budget of a step in GB (default: %(default)g)")
    add("--overwrite", action="store_true", help="replace checkpoints of the temporal model; they are lost")
    add(
        "--assume_unseen",
        action="store_true",
        help="vouch that the 2D model has seen no study that its fold validates here, where nothing on record tells",
    )


def run(arguments: argparse.Namespace) -> int:
    """Check everything, plan, preprocess where needed, write the starts, and print how to go on."""
    dataset_name = _dataset_name(arguments.d)
    preprocessed = Path(str(nnUNet_preprocessed)) / dataset_name
    model = StockModel.read(arguments.m)
    folds = arguments.f or model.folds()
    if not folds:
        raise InputError(f"{model.folder}: has no fold with a finished training (fold_0/checkpoint_final.pth, ...)")
    _check_trainer(arguments.tr)
    _check_planned(preprocessed, arguments.d)
    planner = TemporalPlanner(arguments.d, arguments.gpu_memory_target, plans_name=arguments.p)
    check_agreement(model, planner)
    target = Path(str(nnUNet_results)) / dataset_name / f"{arguments.tr}__{arguments.p}__{TEMPORAL_CONFIGURATION}"
    apply_to_all(folds, lambda fold: _check_fold(model, fold, preprocessed, target, arguments))

    plans = inflated_plans(model, planner, preprocessed)
    write_plans(plans, preprocessed / f"{arguments.p}.json")
    print("\nChoices about time:", *planner.explanations, sep="\n  ", end="\n\n")
    data = preprocessed / plans["configurations"][TEMPORAL_CONFIGURATION]["data_identifier"]
    if not is_preprocessed(data, planner.manifest):
        preprocess_dataset(arguments.d, arguments.p, [TEMPORAL_CONFIGURATION], [arguments.np])
    for fold in folds:
        _inflate_fold(model, fold, arguments)
    _print_next_steps(arguments, folds)
    return 0


def _fold(text: str) -> int | str:
    return text if text == _ALL else int(text)


def _dataset_name(dataset: int) -> str:
    for variable in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results):
        if not variable.is_set():
            raise InputError("nnUNet_raw, nnUNet_preprocessed and nnUNet_results must be set")
    try:
        return convert_id_to_dataset_name(dataset)
    except RuntimeError as error:
        raise InputError(f"-d {dataset}: {error}") from error


def _check_planned(preprocessed: Path, dataset: int) -> None:
    """Planning measures the dataset and splits it by study; inflation needs both, but not the plans."""
    for name in ("dataset_fingerprint.json", "dataset.json", SPLITS_NAME, MANIFEST_NAME):
        if not (preprocessed / name).is_file():
            raise InputError(
                f"{preprocessed / name}: is missing. "
                f"First run: nnunet_temporal plan_and_preprocess -d {dataset} --no_pp"
            )
    check_same_splits(Path(str(nnUNet_raw)) / preprocessed.name, preprocessed)


def _check_fold(
    model: StockModel, fold: int | str, preprocessed: Path, target: Path, arguments: argparse.Namespace
) -> None:
    """Raise InputError unless a fold can be inflated without harm to scores or to earlier trainings."""
    model.checkpoint(fold)
    existing = sorted((target / f"fold_{fold}").glob("checkpoint_*"))
    if existing and not arguments.overwrite:
        raise InputError(
            f"{existing[0]}: exists already. Continue that training (nnUNetv2_train ... --c), or give it up with "
            "--overwrite"
        )
    if isinstance(fold, str):
        return
    manifest = Manifest.load(preprocessed)
    splits = read_splits(preprocessed / SPLITS_NAME)
    check_splits(splits, manifest)
    if fold >= len(splits):
        raise InputError(f"-f {fold}: {preprocessed / SPLITS_NAME} has {len(splits)} folds (0 to {len(splits) - 1})")
    seen = seen_cases(model, fold, Path(str(nnUNet_preprocessed)) / model.dataset_name / SPLITS_NAME)
    try:
        check_study_fold(seen, splits[fold], manifest, assume_unseen=arguments.assume_unseen)
    except InputError as error:
        raise InputError(f"{model.folder / f'fold_{fold}'}: {error}") from error


def _check_trainer(name: str) -> None:
    os.environ[VARIABLE] = ext_trainer_value()
    try:
        # It reports its search, and will do so again when it builds the trainer.
        with contextlib.redirect_stdout(io.StringIO()):
            trainer = recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise InputError(f"-tr {name}: {error}") from error
    if not issubclass(trainer, nnUNetTrainerTemporal):
        raise InputError(f"-tr {name}: is no temporal trainer; nnUNetTrainerGDKVM, for example, is one")


def _inflate_fold(model: StockModel, fold: int | str, arguments: argparse.Namespace) -> None:
    # As nnUNetv2_train builds it; on the CPU, because a checkpoint written there can be continued anywhere.
    trainer = get_trainer_from_args(
        str(arguments.d), TEMPORAL_CONFIGURATION, fold, arguments.tr, arguments.p, device=torch.device("cpu")
    )
    try:
        inflation = inflate(trainer, model.weights(fold))
    except InputError as error:
        raise InputError(f"{model.checkpoint(fold)}: {error}") from error
    checkpoint = save_start(trainer)
    print(
        f"Fold {fold}: all {inflation.loaded} tensors of the 2D network loaded, {inflation.new} new ones for time; "
        f"logits differ by {inflation.difference:.1e} from the 2D network's.\n  {checkpoint}"
    )


def _print_next_steps(arguments: argparse.Namespace, folds: list[int | str]) -> None:
    print(
        f"\nNext, for each fold ({' '.join(map(str, folds))}):\n"
        '  eval "$(nnunet_temporal env)"\n'
        f"  nnUNetv2_train {arguments.d} {TEMPORAL_CONFIGURATION} FOLD -tr {arguments.tr} -p {arguments.p} --c"
    )
