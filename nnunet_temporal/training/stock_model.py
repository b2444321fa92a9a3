"""A trained model as stock nnU-Net leaves it in its results folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch import Tensor

from nnunet_temporal.atomic import read_json_object
from nnunet_temporal.errors import InputError

CHECKPOINT = "checkpoint_final.pth"


@dataclass(frozen=True)
class StockModel:
    """A trained model of nnU-Net.

    Attributes:
        folder: The folder ``TRAINER__PLANS__CONFIGURATION``.
        plans: Content of its ``plans.json``.
        dataset: Content of its ``dataset.json``.
        configuration: Entry of the plans that the model was trained with, inheritance and old formats resolved.
    """

    folder: Path
    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> "StockModel":
        """Read what nnU-Net stored beside the folds.

        Raises:
            InputError: The folder's name or content is not that of a trained model.
        """
        name = folder.resolve().name.split("__")
        if len(name) != 3:
            raise InputError(
                f"{folder}: expected the folder of a trained model, whose name is TRAINER__PLANS__CONFIGURATION, such "
                "as nnUNet_results/Dataset027_ACDC/nnUNetTrainer__nnUNetPlans__2d"
            )
        plans, dataset = (
            read_json_object(folder / file, "nnU-Net writes it beside the folds.")
            for file in ("plans.json", "dataset.json")
        )
        manager = PlansManager(plans)
        if name[2] not in manager.available_configurations:
            raise InputError(
                f"{folder}: is named after configuration {name[2]!r}, but its plans.json has "
                f"{manager.available_configurations} only; give the folder back the name nnU-Net chose"
            )
        return cls(folder, plans, dataset, manager.get_configuration(name[2]).configuration)

    @property
    def dataset_name(self) -> str:
        """Name of the dataset the model was trained on, ``DatasetXXX_Name``."""
        return str(self.plans["dataset_name"])

    @property
    def channel_names(self) -> list[str]:
        """Names of the input channels in their order."""
        return channel_names(self.dataset)

    def folds(self) -> list[int | str]:
        """Return the folds with a finished training, cross-validation first, then "all"."""
        has_all = (self.folder / "fold_all" / CHECKPOINT).is_file()
        return [*cross_validation_folds(self.folder), *(["all"] if has_all else [])]

    def validated_cases(self, fold: int | str) -> set[str]:
        """Return the cases predicted in the validation of a fold; empty when there are none."""
        ending = self.dataset["file_ending"]
        files = (self.folder / f"fold_{fold}" / "validation").glob(f"*{ending}")
        return {file.name.removesuffix(ending) for file in files}

    def checkpoint(self, fold: int | str) -> Path:
        """Return the final checkpoint of a fold.

        Raises:
            InputError: The fold has no finished training.
        """
        file = self.folder / f"fold_{fold}" / CHECKPOINT
        if not file.is_file():
            raise InputError(f"{file}: is missing, so fold {fold} is not trained; folds that are: {self.folds()}")
        return file

    def weights(self, fold: int | str) -> dict[str, Tensor]:
        """Read the network's weights of a fold, under the names they have without compilation and parallelism.

        Raises:
            InputError: The fold has no finished training, or the checkpoint cannot be read.
        """
        return plain_weights(read_checkpoint(self.checkpoint(fold)))


def cross_validation_folds(folder: Path, checkpoint_name: str = CHECKPOINT) -> list[int]:
    """List the folds of the cross-validation in a model's folder that have a checkpoint."""
    names = [file.parent.name.removeprefix("fold_") for file in folder.glob(f"fold_*/{checkpoint_name}")]
    return sorted(int(name) for name in names if name.isdigit())


def read_checkpoint(file: Path) -> dict[str, Any]:
    """Read an existing checkpoint onto the CPU; InputError unless it is one of nnU-Net's."""
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=False)
        checkpoint["network_weights"]
    # A broken pickle raises whatever its bytes happen to mean.
    except Exception as error:
        raise InputError(f"{file}: cannot be read as a checkpoint of nnU-Net: {error!r}") from error
    return checkpoint


def plain_weights(checkpoint: dict[str, Any]) -> dict[str, Tensor]:
    """Return a checkpoint's weights under the names they have without parallelism and compilation."""
    weights = checkpoint["network_weights"]
    return {name.removeprefix("module.").removeprefix("_orig_mod."): value for name, value in weights.items()}


def channel_names(dataset: dict[str, Any]) -> list[str]:
    """Return the names of the input channels that a ``dataset.json`` declares, in their order."""
    # Its name in datasets of nnU-Net's first version.
    names = dataset.get("channel_names", dataset.get("modality", {}))
    return [names[key] for key in sorted(names, key=int)]
