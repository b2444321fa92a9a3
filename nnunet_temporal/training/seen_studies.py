"""Which studies a trained 2D model has seen: what it goes on with must hold out the same ones."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.datasets.splits_file import read_splits
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest
from nnunet_temporal.training.stock_model import StockModel

_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class SeenCases:
    """What is on record about the cases of one fold of a trained model.

    Attributes:
        trained: Cases it was trained on.
        held_out: Cases it was validated on.
        complete: Whether all cases of its dataset are among these; otherwise it may have seen others.
    """

    trained: frozenset[str]
    held_out: frozenset[str]
    complete: bool


def seen_cases(model: StockModel, fold: int, splits_file: Path) -> SeenCases:
    """Find out which cases a fold was trained on and which it held out.

    The splits of the model's dataset say it, provided that they are still those of the validation in the model's
    folder. Otherwise the validations of all folds say it: what another fold has validated, this one was trained on.

    Args:
        model: The trained model.
        fold: One of its folds.
        splits_file: ``splits_final.json`` of the model's own dataset; may be missing.

    Raises:
        InputError: The splits cannot be read.
    """
    held_out = model.validated_cases(fold)
    if splits_file.is_file():
        splits = read_splits(splits_file)
        if fold < len(splits) and held_out in (set(), set(splits[fold]["val"])):
            return SeenCases(frozenset(splits[fold]["train"]), frozenset(splits[fold]["val"]), complete=True)
    folds = [other for other in model.folds() if isinstance(other, int)]
    validated = {case for other in folds for case in model.validated_cases(other)}
    complete = len(validated) >= model.dataset["numTraining"]
    return SeenCases(frozenset(validated - held_out), frozenset(held_out), complete)


def check_study_fold(
    seen: SeenCases, split: Mapping[str, list[str]], manifest: Manifest, *, assume_unseen: bool
) -> None:
    """Check that a training that goes on from a model holds out the studies that the model has held out.

    Studies are recognised by name: a case of the model belongs to the study of the sequence of that name, or to the
    study whose name, followed by anything but a letter or digit, its own starts with (``patient001_frame01``).

    Args:
        seen: What the model has seen.
        split: "train" and "val" cases of the same fold of the dataset to go on with.
        manifest: The sequences of that dataset.
        assume_unseen: Whether the user vouches for what is not on record.

    Raises:
        InputError: A study is on different sides of the two folds; or whether one is cannot be told, and nobody
            vouches for it.
    """
    trained, held_out = (_studies(cases, manifest) for cases in (seen.trained, seen.held_out))
    training, validation = (_studies(split[side], manifest) for side in ("train", "val"))
    if leaked := sorted(validation & trained):
        raise InputError(
            f"the 2D model was trained on {len(leaked)} of the studies that this fold validates on: "
            f"{listed(leaked, _NAMED_AT_MOST)}. Every score would be too good. Give the dataset the 2D model's folds, "
            "by study, in splits_final.json of nnUNet_raw, or train the 2D model on this dataset's folds"
        )
    if swapped := sorted(training & held_out):
        raise InputError(
            f"the 2D model holds out {len(swapped)} of the studies that this fold trains on: "
            f"{listed(swapped, _NAMED_AT_MOST)}. Scores of the two could not be compared. Give both the same folds"
        )
    if not assume_unseen:
        _check_on_record(seen, trained | held_out, validation)


def _check_on_record(seen: SeenCases, known: set[str], validation: set[str]) -> None:
    """Raise InputError where the record leaves open whether the model has seen a study that is validated."""
    if not seen.complete:
        raise InputError(
            "nothing tells which cases the 2D model was trained on: its dataset has no splits_final.json in "
            "nnUNet_preprocessed that fits the validation in its folder, nor is every fold's validation there. Where "
            "you know that it has seen none of the studies validated here, add --assume_unseen"
        )
    if not known:
        raise InputError(
            f"no case of the 2D model (such as {listed(sorted(seen.trained), 1)}) is named after a study of this "
            f"dataset (such as {listed(sorted(validation), 1)}), so it cannot be told whether they show the same "
            "patients. Where you know that they do not, add --assume_unseen"
        )


def _studies(cases: Iterable[str], manifest: Manifest) -> set[str]:
    names = sorted({sequence.study for sequence in manifest.values()}, key=len, reverse=True)
    return {study for case in cases if (study := _study_of(case, manifest, names)) is not None}


def _study_of(case: str, manifest: Manifest, names: list[str]) -> str | None:
    """Return the study a case belongs to, the longest of several names; None when it belongs to none."""
    if case in manifest:
        return manifest[case].study
    return next((name for name in names if case.startswith(name) and not case[len(name) :][:1].isalnum()), None)
