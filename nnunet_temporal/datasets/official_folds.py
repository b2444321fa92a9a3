"""The folds that a dataset came with, by study, as nnU-Net's ``splits_final.json`` wants them, by case."""

from collections.abc import Collection, Sequence

from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest, Splits, check_splits

Folds = Sequence[tuple[set[str], set[str]]]

_NAMED_AT_MOST = 5
_OR_BY_STUDY = "or pass --folds study to make folds by study"


def official_splits(folds: Folds, manifest: Manifest, held_out: Collection[str]) -> Splits:
    """Write official folds as lists of cases.

    Sequences without a labelled frame are in the training list, unless their study is validated in that fold; then they
    are in neither. Held-out studies are in no fold, whatever the official ones say.

    Args:
        folds: Studies for training and for validation of each fold.
        manifest: All sequences of the dataset.
        held_out: Studies in no fold.

    Returns:
        One ``{"train": [cases], "val": [cases]}`` per fold, cases sorted by study and place.

    Raises:
        InputError: A fold names a study that is not there, leaves one out or has one on both sides, or has nothing to
            train on or to validate on.
    """
    studies = manifest.studies()
    splits: Splits = []
    for fold, (training, validation) in enumerate(folds):
        _check_names(fold, training | validation, {study.name for study in studies}, held_out)
        split: dict[str, list[str]] = {"train": [], "val": []}
        for study in studies:
            if study.name in held_out:
                continue
            if study.name in training:
                split["train"].extend(sequence.case for sequence in study.sequences)
            if study.name in validation:
                split["val"].extend(sequence.case for sequence in study.sequences if sequence.labelled_frames)
        if not split["train"] or not split["val"]:
            raise InputError(
                f"official fold {fold}: found {len(split['train'])} sequences for training and {len(split['val'])} "
                f"labelled ones for validation, expected some of both; hold fewer studies out, {_OR_BY_STUDY}"
            )
        splits.append(split)
    check_splits(splits, manifest)
    return splits


def _check_names(fold: int, named: set[str], there: set[str], held_out: Collection[str]) -> None:
    if unknown := sorted(named - there):
        raise InputError(
            f"official fold {fold}: names {len(unknown)} studies that are not there: "
            f"{listed(unknown, _NAMED_AT_MOST)}; restore them from the download, {_OR_BY_STUDY}"
        )
    if left_out := sorted(there - named - set(held_out)):
        raise InputError(
            f"official fold {fold}: {len(left_out)} studies are neither for training nor for validation nor held out: "
            f"{listed(left_out, _NAMED_AT_MOST)}; hold them out with --held-out, {_OR_BY_STUDY}"
        )
