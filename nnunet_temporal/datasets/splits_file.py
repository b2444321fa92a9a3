"""The file in which nnU-Net keeps the folds of a dataset, of the raw dataset and of the preprocessed one."""

import json
from pathlib import Path

from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Splits

SPLITS_NAME = "splits_final.json"


def read_splits(path: Path) -> Splits:
    """Read folds as nnU-Net stores them.

    Raises:
        InputError: The file holds anything else, or was only half written.
    """
    try:
        splits = json.loads(path.read_text(encoding="utf-8"))
        for fold in splits:
            if not isinstance(fold["train"], list) or not isinstance(fold["val"], list):
                raise TypeError(f"fold {fold!r}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: expected a list of folds with lists 'train' and 'val', but it cannot be read: {error!r}. "
            "Remove it, and folds are made anew."
        ) from error
    return splits


def check_same_splits(raw_folder: Path, preprocessed_folder: Path) -> None:
    """Check that a preprocessed dataset begins with the folds of the raw one, in whatever order each names its cases.

    nnU-Net copies the file once: of a raw dataset that has changed since it would train on the earlier folds.

    Args:
        raw_folder: ``nnUNet_raw/DatasetXXX_Name``.
        preprocessed_folder: The folder of the same name in ``nnUNet_preprocessed``.

    Raises:
        InputError: Both have folds, and they differ.
    """
    raw, preprocessed = raw_folder / SPLITS_NAME, preprocessed_folder / SPLITS_NAME
    if not raw.is_file() or not preprocessed.is_file():
        return
    wanted, found = (
        [(set(fold["train"]), set(fold["val"])) for fold in read_splits(path)] for path in (raw, preprocessed)
    )
    if wanted != found[: len(wanted)]:
        raise InputError(
            f"{preprocessed}: its folds differ from those of {raw}. Models trained on them would not be comparable: "
            "remove the preprocessed dataset (or the file) and plan again, or make the raw file equal."
        )
