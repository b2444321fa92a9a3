"""Averages what several models predicted, whatever their trainers, plans and configurations."""

import json
import pickle
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from tqdm import tqdm

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.datasets.problems import apply_to_all, listed
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.confidence import remove_confidence
from nnunet_temporal.inference.prediction_record import RECORD_NAME
from nnunet_temporal.inference.study import PREDICTION_ARGUMENTS

# Files of nnU-Net. Of the record of a prediction, merging needs to know which sequences were predicted.
_DATASET, _PLANS = "dataset.json", "plans.json"
_NAMED_AT_MOST = 5


@dataclass(frozen=True)
class Member:
    """What one model of the ensemble predicted.

    Attributes:
        folder: The folder the user named; holds ``dataset.json`` and ``plans.json``.
        files: {case: ``.npz`` file of probabilities, (K, T, Y, X)}.
        dataset: Content of ``dataset.json``.
    """

    folder: Path
    files: dict[str, Path]
    dataset: dict[str, Any]


def ensemble_folders(
    folders: Sequence[Path], output: Path, *, folds: Sequence[int] | None = None, save_probabilities: bool = False
) -> list[Path]:
    """Average the probabilities of several models and write the masks that follow from the mean.

    A folder is either one of predictions, or one of a trained model; of the latter the cross-validation is taken. The
    output can be evaluated, postprocessed and merged like a folder that nnU-Net predicted.

    Args:
        folders: Two or more folders, predicted with ``--save_probabilities`` or trained with ``--npz``.
        output: Folder for one mask per case, ``dataset.json`` and ``plans.json`` of the first model; made when missing.
        folds: Folds of trained models; None takes all there are.
        save_probabilities: Whether the mean is written too, as nnU-Net writes probabilities.

    Returns:
        The masks, by case.

    Raises:
        InputError: A folder is not as it should be, or labels, cases or shapes differ. Nothing is written then.
    """
    _check_folders(folders, output)
    members = apply_to_all(folders, lambda folder: read_member(folder, folds))
    first = members[0]
    plans = PlansManager(str(first.folder / _PLANS))
    labels = plans.get_label_manager(first.dataset)
    _check_agreement(members, labels.num_segmentation_heads)
    output.mkdir(parents=True, exist_ok=True)
    for name in (_DATASET, _PLANS, PREDICTION_ARGUMENTS):
        if (first.folder / name).is_file():
            _copy(first.folder / name, output / name)
    # Of whatever predicted into this folder before.
    (output / RECORD_NAME).unlink(missing_ok=True)
    reader_writer = plans.image_reader_writer_class()
    masks = []
    for case in tqdm(sorted(first.files), desc="Averaging", unit="case"):
        mean = mean_probabilities([member.files[case] for member in members])
        geometry = first.files[case].with_suffix(".pkl")
        masks.append(output / f"{case}{first.dataset['file_ending']}")
        remove_confidence(output, case)
        with atomic_path(masks[-1]) as temporary:
            mask = labels.convert_probabilities_to_segmentation(mean)
            reader_writer.write_seg(mask, str(temporary), pickle.loads(geometry.read_bytes()))
        if save_probabilities:
            _write_probabilities(mean, geometry, output / f"{case}.npz")
    return masks


def read_member(folder: Path, folds: Sequence[int] | None = None) -> Member:
    """Find the probabilities of one model.

    Args:
        folder: A folder of predictions, or of a trained model with ``fold_0``, ``fold_1``, ...
        folds: Folds of a trained model. None takes all but ``fold_all``, which is validated on its own training cases.

    Raises:
        InputError: The folder or one of its folds holds no probabilities, a case has been validated in two folds, or
            ``dataset.json`` or ``plans.json`` is missing.
    """
    if folds is None:
        trained = [fold for fold in sorted(folder.glob("fold_*")) if fold.name != "fold_all"]
    else:
        trained = [folder / f"fold_{fold}" for fold in folds]
    remedy = "or leave the fold out with -f" if trained else "or name the folder of a trained model"
    command = "nnUNetv2_train ... --val --npz" if trained else "nnUNetv2_predict ... --save_probabilities"
    files: dict[str, Path] = {}
    for source in [fold / "validation" for fold in trained] or [folder]:
        found = sorted(source.glob("*.npz"))
        if not found:
            raise InputError(f"{source}: found no probabilities (*.npz); write them by '{command}', {remedy}")
        for file in found:
            other = files.setdefault(file.stem, file)
            if other is not file:
                raise InputError(f"{other} and {file}: case {file.stem} is in two folds; leave one out with -f")
    for name in (_DATASET, _PLANS):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder / name}: is missing; name a folder that nnUNetv2_predict has written, or the folder of a "
                f"trained model, which holds fold_0"
            )
    return Member(folder, files, json.loads((folder / _DATASET).read_text(encoding="utf-8")))


def mean_probabilities(files: Sequence[Path]) -> np.ndarray:
    """Average the probabilities of one case.

    Args:
        files: ``.npz`` files with arrays of one shape.

    Returns:
        The mean (K, T, Y, X), float32, each model weighted alike.
    """
    total: np.ndarray | None = None
    for file in files:
        with np.load(file) as arrays:
            probabilities = arrays["probabilities"].astype(np.float32)
        total = probabilities if total is None else total + probabilities
    if total is None:
        raise ValueError("files must not be empty")
    return total / np.float32(len(files))


def _check_folders(folders: Sequence[Path], output: Path) -> None:
    resolved = [folder.resolve() for folder in folders]
    if len(folders) < 2 or len(set(resolved)) < len(folders):
        raise InputError(f"expected two or more different folders to average, got {', '.join(map(str, folders))}")
    if output.resolve() in resolved:
        raise InputError(f"{output}: averaging here would overwrite the masks of one model; choose another folder")


def _check_agreement(members: Sequence[Member], n_channels: int) -> None:
    """Raise InputError unless all members predicted the same classes of the same cases on the same grid."""
    first, *others = members
    for member in others:
        if _classes(member.dataset) != _classes(first.dataset):
            raise InputError(
                f"{member.folder}: found labels {member.dataset['labels']}, expected {first.dataset['labels']} as in "
                f"{first.folder}; only probabilities of the same classes can be averaged"
            )
        differing = sorted(set(member.files) ^ set(first.files))
        if differing:
            raise InputError(
                f"{first.folder} and {member.folder}: cases that only one of them holds: "
                f"{listed(differing, _NAMED_AT_MOST)}; both models must have predicted the same cases"
            )

    def check(case: str) -> None:
        _check_case([member.files[case] for member in members], n_channels)

    apply_to_all(tqdm(sorted(first.files), desc="Checking", unit="case"), check)


def _check_case(files: Sequence[Path], n_channels: int) -> None:
    first, *others = files
    expected = _array_shape(first)
    if expected[0] != n_channels:
        raise InputError(f"{first}: found probabilities of {expected[0]} classes, expected {n_channels}")
    if not first.with_suffix(".pkl").is_file():
        raise InputError(
            f"{first.with_suffix('.pkl')}: is missing, nnU-Net's note of the grid; predict this case again"
        )
    for file in others:
        found = _array_shape(file)
        if found != expected:
            raise InputError(
                f"{file}: found shape {found} (classes, frames, y, x), expected {expected} as in {first}; predict both "
                f"from the same image"
            )


def _classes(dataset: dict[str, Any]) -> tuple:
    """Return what the channels of a model's probabilities mean."""
    # A trainer may have added the ignore label, which no model predicts.
    labels = {name: value for name, value in dataset["labels"].items() if name != "ignore"}
    order = dataset.get("regions_class_order")
    # Channels follow the values of labels, but the order in which regions are written down.
    return labels, order, list(labels) if order else None


def _array_shape(file: Path) -> tuple[int, ...]:
    """Read the shape of the probabilities in a file without unpacking them."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open("probabilities.npy") as array:
            np.lib.format.read_magic(array)
            return np.lib.format.read_array_header_1_0(array)[0]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: holds no readable probabilities ({error}); predict this case again") from error


def _write_probabilities(probabilities: np.ndarray, geometry: Path, file: Path) -> None:
    """Write probabilities the way nnU-Net does, so that they can be averaged again."""
    _copy(geometry, file.with_suffix(".pkl"))
    with atomic_path(file) as temporary:
        np.savez_compressed(temporary, probabilities=probabilities)


def _copy(source: Path, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
