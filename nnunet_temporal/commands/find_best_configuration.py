"""``nnunet_temporal find_best_configuration``: nnU-Net's search, over any trained models instead of all pairs of names.

``nnUNetv2_find_best_configuration`` pairs every trainer with every configuration, and stops where one is not trained.
The function behind it takes a list of models, and this verb gives it one, after checking that scores can be compared.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nnunetv2.evaluation.find_best_configuration import find_best_configuration
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from nnunet_temporal.commands.trained_model import results_folder
from nnunet_temporal.datasets.problems import apply_to_all, listed
from nnunet_temporal.datasets.splits_file import SPLITS_NAME, read_splits
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.best_choice import Choice
from nnunet_temporal.training.stock_model import StockModel

HELP = "Find the best model or pair of models by cross-validation, across trainers, and its postprocessing."

BEST = "best"
_NAMED_AT_MOST = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb; those of ``nnUNetv2_find_best_configuration`` are called as there."""
    add = parser.add_argument
    add("-d", required=True, metavar="DATASET", help="id or name of the dataset")
    add(
        "-m",
        nargs="+",
        metavar="MODEL",
        help="trained models, TRAINER__PLANS__CONFIGURATION (default: all in nnUNet_results that have the folds)",
    )
    add("-f", nargs="+", type=int, metavar="FOLD", help="folds (default: all of the dataset)")
    add("-np", type=int, default=8, help="processes (default: %(default)s)")
    add("--disable_ensembling", action="store_true", help="compare the models alone; needs no probabilities")


def run(arguments: argparse.Namespace) -> int:
    """Check the models, let nnU-Net search, and keep the choice."""
    results = results_folder(arguments.d)
    for variable in (nnUNet_raw, nnUNet_preprocessed):
        if not variable.is_set():
            raise InputError("nnUNet_raw and nnUNet_preprocessed must be set: labels, folds and plans are read there")
    preprocessed = Path(str(nnUNet_preprocessed)) / results.name
    folds = arguments.f or _all_folds(preprocessed / SPLITS_NAME)
    models = list(dict.fromkeys(Path(name).name for name in arguments.m or _complete_models(results, folds)))
    with_ensembles = not arguments.disable_ensembling and len(models) > 1

    def cases_of(name: str) -> frozenset[str]:
        return _validated_cases(StockModel.read(results / name), folds, preprocessed, with_ensembles)

    _check_same_cases(models, apply_to_all(models, cases_of))
    found = find_best_configuration(
        results.name,
        [dict(zip(("trainer", "plans", "configuration"), name.split("__"), strict=True)) for name in models],
        allow_ensembling=with_ensembles,
        num_processes=arguments.np,
        folds=folds,
    )
    choice = Choice.of_nnunet(found, results)
    choice.write(results / BEST, Path(found["best_model_or_ensemble"]["postprocessing_file"]))
    print(f"\nChosen: {' and '.join(choice.models)}")
    print(f"  Dice of the cross-validation {choice.dice:.4f}, with postprocessing {choice.dice_postprocessed:.4f}")
    if all(len(StockModel.read(results / name).configuration["spacing"]) == 2 for name in choice.models):
        print(f"All of the above in one step:\n  nnunet_temporal predict_best -i SEQUENCES -o MASKS -d {arguments.d}")
    else:
        print("Predict by nnU-Net's commands above: 'nnunet_temporal predict_best' is for models that work on frames")
    return 0


def _all_folds(splits_file: Path) -> list[int]:
    if not splits_file.is_file():
        raise InputError(f"{splits_file}: is missing, so the folds are unknown; name them with -f")
    return list(range(len(read_splits(splits_file))))


def _complete_models(results: Path, folds: Sequence[int]) -> list[str]:
    """Return the models that have all folds, and say which have only some."""
    models = [
        StockModel.read(folder) for folder in sorted(results.glob("*__*__*")) if (folder / "plans.json").is_file()
    ]
    complete = [model.folder.name for model in models if set(folds) <= set(model.folds())]
    partial = [model.folder.name for model in models if model.folder.name not in complete]
    if not complete:
        raise InputError(f"{results}: no model has the folds {_words(folds)}; train them, or name others with -f")
    if partial:
        print(f"Left out, because not all of the folds {_words(folds)} are trained: {', '.join(partial)}")
    return complete


def _validated_cases(
    model: StockModel, folds: Sequence[int], preprocessed: Path, with_ensembles: bool
) -> frozenset[str]:
    """Return the cases that the folds have validated; InputError where the search would stop or go wrong."""
    plans = preprocessed / f"{model.folder.resolve().name.split('__')[1]}.json"
    if not plans.is_file():
        raise InputError(f"{plans}: is missing; nnU-Net looks there for the plans of {model.folder.name}")
    cases: set[str] = set()
    for fold in folds:
        model.checkpoint(fold)
        validation = model.folder / f"fold_{fold}" / "validation"
        validated = model.validated_cases(fold)
        without = sorted(case for case in validated if not (validation / f"{case}.npz").is_file())
        if not validated or (with_ensembles and without):
            found = "no masks" if not validated else f"no probabilities of {listed(without, _NAMED_AT_MOST)}"
            trainer, plans_name, configuration = model.folder.resolve().name.split("__")
            raise InputError(
                f"{validation}: found {found}; write them by 'nnUNetv2_train {model.dataset_name} {configuration} "
                f"{fold} -tr {trainer} -p {plans_name} --val --npz'"
                + (", or compare the models alone with --disable_ensembling" if validated else "")
            )
        cases |= validated
    return frozenset(cases)


def _check_same_cases(models: Sequence[str], cases: Sequence[frozenset[str]]) -> None:
    for name, found in zip(models[1:], cases[1:], strict=True):
        if differing := sorted(found ^ cases[0]):
            raise InputError(
                f"{models[0]} and {name}: cases that only one of them has validated: "
                f"{listed(differing, _NAMED_AT_MOST)}; scores of other cases cannot be compared"
            )


def _words(folds: Sequence[int]) -> str:
    return " ".join(map(str, folds))
