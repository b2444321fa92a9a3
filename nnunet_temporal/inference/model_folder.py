"""A trained model in nnU-Net's results folder, ready to predict: its plans, labels and one network per fold."""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
from nnunetv2.utilities.label_handling.label_handling import LabelManager, determine_num_input_channels
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_temporal.atomic import read_json_object
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.preparation import PreparedSequence, check_image
from nnunet_temporal.training.stock_model import (
    CHECKPOINT,
    cross_validation_folds,
    plain_weights,
    read_checkpoint,
)


@dataclass(frozen=True)
class TrainedModel:
    """What prediction needs of a trained model.

    Attributes:
        plans: Its plans.
        configuration: The configuration it was trained with.
        dataset: Content of its ``dataset.json``.
        labels: What the channels of its logits mean.
        networks: One network per fold, on the CPU, to be evaluated.
        mirror_axes: In-plane axes that test-time augmentation may flip, 0 = Y and 1 = X; empty for none.
    """

    plans: PlansManager
    configuration: ConfigurationManager
    dataset: dict[str, Any]
    labels: LabelManager
    networks: tuple[nn.Module, ...]
    mirror_axes: tuple[int, ...]

    @property
    def channels(self) -> int:
        """Channels C of an image."""
        return determine_num_input_channels(self.plans, self.configuration, self.dataset)

    @property
    def patch(self) -> tuple[int, int]:
        """Size (Y, X) of the windows that the networks take, in pixels."""
        return tuple(self.configuration.patch_size[-2:])

    def prepare(self, image: np.ndarray, pixel_mm: tuple[float, float]) -> PreparedSequence:
        """Measure what preprocessing needs to know of a sequence.

        Args:
            image: Grey values (T, Y, X) or (C, T, Y, X) of any number type.
            pixel_mm: In-plane spacing (y, x) in mm.

        Raises:
            InputError: The image has other axes or channels than the model takes, or pixels are not finite.
        """
        return PreparedSequence.measure(check_image(image, self.channels), pixel_mm, self.plans, self.configuration)

    @classmethod
    def read(
        cls, folder: Path, folds: Sequence[int | str] | None = None, checkpoint_name: str = CHECKPOINT
    ) -> "TrainedModel":
        """Read a model as ``nnUNetv2_predict`` does, with the weights of all folds.

        Args:
            folder: ``TRAINER__PLANS__CONFIGURATION``, or whatever it was renamed to.
            folds: Folds, "all" among them; None takes those of the cross-validation that there are.
            checkpoint_name: File in the folders of the folds.

        Raises:
            InputError: A file is missing or unreadable, the trainer is not found, or the model does not work on frames.
        """
        plans, dataset = _read_plans(folder)
        folds = cross_validation_folds(folder, checkpoint_name) if folds is None else folds
        checkpoints = [_read_checkpoint(folder / f"fold_{fold}" / checkpoint_name) for fold in folds]
        if not checkpoints:
            raise InputError(f"{folder}: has no fold with a finished training (fold_0/{checkpoint_name}, ...)")
        first = checkpoints[0]
        configuration = plans.get_configuration(first["init_args"]["configuration"])
        _check_frames(folder, plans, configuration)
        build = _find_trainer(first["trainer_name"]).build_network_architecture
        channels = determine_num_input_channels(plans, configuration, dataset)
        labels = plans.get_label_manager(dataset)
        networks = []
        for checkpoint in checkpoints:
            network = build(
                plans, configuration, channels, labels.num_segmentation_heads, enable_deep_supervision=False
            )
            network.load_state_dict(plain_weights(checkpoint))
            networks.append(network.eval())
        along_time = len(configuration.patch_size) - 2
        mirror_axes = tuple(axis - along_time for axis in first.get("inference_allowed_mirroring_axes") or ())
        return cls(plans, configuration, dataset, labels, tuple(networks), mirror_axes)


def _read_plans(folder: Path) -> tuple[PlansManager, dict[str, Any]]:
    """Read the plans and the content of ``dataset.json``."""
    plans_file, dataset_file = folder / "plans.json", folder / "dataset.json"
    if not plans_file.is_file() or not dataset_file.is_file():
        raise InputError(
            f"{folder}: expected the folder of a trained model with plans.json and dataset.json, such as "
            "nnUNet_results/Dataset027_ACDC/nnUNetTrainerGDKVM__nnUNetTemporalPlans__2dt"
        )
    plans, dataset = (
        read_json_object(file, "nnU-Net writes it beside the folds.") for file in (plans_file, dataset_file)
    )
    return PlansManager(plans), dataset


def _read_checkpoint(file: Path) -> dict[str, Any]:
    if not file.is_file():
        trained = cross_validation_folds(file.parent.parent, file.name)
        raise InputError(f"{file}: is missing; folds with a {file.name}: {trained}")
    return read_checkpoint(file)


def _find_trainer(name: str) -> Any:  # noqa: ANN401 - a class of nnU-Net's, whose hooks are called by their names
    try:
        # It reports its search on standard output.
        with contextlib.redirect_stdout(io.StringIO()):
            return recursive_find_trainer_class_by_name(name)
    except RuntimeError as error:
        raise InputError(
            f"trainer {name}: nnU-Net does not find it; let it look where nnunet_temporal's trainers are: "
            'eval "$(nnunet_temporal env)"'
        ) from error


def _check_frames(folder: Path, plans: PlansManager, configuration: ConfigurationManager) -> None:
    if len(configuration.spacing) != 2 or configuration.previous_stage_name is not None:
        raise InputError(
            f"{folder}: its configuration resamples {len(configuration.spacing)} axes or is part of a cascade; "
            "sequences are predicted by configurations 2dt and 2d only"
        )
    if list(plans.transpose_forward) != [0, 1, 2]:
        raise InputError(
            f"{folder}: its plans transpose axes by {plans.transpose_forward}, so that time is an axis of its images; "
            "train it on sequences that nnunet_temporal converted"
        )
