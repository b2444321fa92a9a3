"""The folds of a cross-validation in one network, which costs as much as one of them to predict with."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from torch import nn

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.losses.distillation import SoftTarget, TaughtLoss
from nnunet_temporal.networks.mixed_precision import mixed_precision
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.place_memory import nnUNetTrainerPlaceMemory
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal
from nnunet_temporal.training.any_frame_loader import AnyFrameLoader
from nnunet_temporal.training.clip_loader import ClipLoader
from nnunet_temporal.training.clip_transforms import clip_validation_transforms
from nnunet_temporal.training.network_layers import without_wrappers
from nnunet_temporal.training.sequence_loader import SequenceLoader
from nnunet_temporal.training.stock_model import StockModel, cross_validation_folds

_MARK = "Distilled"
_FEWEST = 2
# A student may take smaller steps and other draws than its teachers did; images and network must be the same.
_FREE = ("batch_size", "temporal", "seed", "reasons", "unlabelled_clips", "window_frames")


class Distilled(nnUNetTrainerTemporal):
    """Lets one network learn to answer as the mean of the folds of its twin; mixed into a method.

    The teachers are the finished folds in ``TWIN__PLANS__CONFIGURATION``, beside the student's own folder. They see
    the augmented clip that the student sees, whole, so that every decoded frame has a soft target: their mean logits,
    averaged as nnU-Net averages folds. Half of the clips are drawn around any frames, most of which nobody labelled.
    The loss is the method's own on labelled frames, plus the divergence from the teachers on all decoded ones. The
    student starts from the weights of the first teacher. Checkpoints hold the student alone.

    Source: knowledge distillation (Hinton et al., 2015).

    Attributes:
        twin: Name of the trainer whose folds teach. None: the student's own name without "Distilled", the ending of a
            variant included.
        distillation_weight: Weight of the divergence.
        any_frame_share: Share of the clips that are drawn around any frames, not labelled ones.
        learning_rate: The first one; it falls as nnU-Net's does.
        epochs: The student starts as a finished network, so a quarter of nnU-Net's 1000.
    """

    twin: str | None = None
    distillation_weight: float = 1.0
    any_frame_share: float = 0.5
    learning_rate: float = 1e-3
    epochs: int | None = 250

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature, which must be repeated
    ) -> None:
        """Take nnU-Net's arguments; see ``nnUNetTrainer``."""
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.initial_lr = self.learning_rate
        self._has_weights = False

    @property
    def teachers_folder(self) -> Path:
        """The results folder of the twin."""
        name = type(self).__name__
        if self.twin is None and _MARK not in name:
            raise ValueError(f"{name}: say in its attribute 'twin' whose folds teach, or call it NAME{_MARK}")
        twin = self.twin or name.replace(_MARK, "")
        model = f"{twin}__{self.plans_manager.plans_name}__{self.configuration_name}"
        return Path(self.output_folder_base).parent / model

    @cached_property
    def teachers(self) -> tuple[nn.Module, ...]:
        """The networks of the teachers on the device, to be evaluated.

        Raises:
            InputError: The twin has fewer than two finished folds, or was trained by other plans or on other labels.
        """
        folder = self.teachers_folder
        trained = f"nnUNetv2_train DATASET {self.configuration_name} 0 -tr {folder.name.split('__')[0]}"
        if not folder.is_dir():
            raise InputError(
                f"{folder}: does not exist, but its folds are the teachers of {type(self).__name__}. Train them first: "
                f"{trained} -p {self.plans_manager.plans_name}, then folds 1, 2, ..."
            )
        model = StockModel.read(folder)
        folds = cross_validation_folds(folder)
        if len(folds) < _FEWEST:
            raise InputError(
                f"{folder}: its finished folds teach {type(self).__name__}, {_FEWEST} at least; found {folds}. Finish "
                f"others: {trained} -p {self.plans_manager.plans_name}, then folds 1, 2, ..."
            )
        self._check_same(model)
        self.print_to_log_file(f"Teachers: folds {', '.join(map(str, folds))} of {folder}")
        networks = TrainedModel.read(folder, folds).networks
        return tuple(network.to(self.device).requires_grad_(False) for network in networks)

    def _check_same(self, model: StockModel) -> None:
        ours, theirs = (
            {**_essentials(configuration), "labels": dataset["labels"], "regions": dataset.get("regions_class_order"),
             "intensities": plans["foreground_intensity_properties_per_channel"]}
            for configuration, dataset, plans in (
                (self.configuration_manager.configuration, self.dataset_json, self.plans_manager.plans),
                (model.configuration, model.dataset, model.plans),
            )
        )  # fmt: skip
        if differing := sorted(key for key in ours | theirs if ours.get(key) != theirs.get(key)):
            first = differing[0]
            raise InputError(
                f"{model.folder}: the teachers were trained with other plans or labels than {type(self).__name__} is "
                f"given. {', '.join(differing)} differ; {first}: found {theirs.get(first)}, expected "
                f"{ours.get(first)}. Train the folds anew, or plan as it was when they were trained"
            )

    def initialize(self) -> None:
        """Do as the base, and start from the weights of the first teacher unless a checkpoint is about to be loaded."""
        super().initialize()
        if not self._has_weights:
            without_wrappers(self.network).load_state_dict(self.teachers[0].state_dict())

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Load as nnU-Net, without asking for teachers: validation does without them."""
        self._has_weights = True
        super().load_checkpoint(filename_or_checkpoint)

    def on_train_start(self) -> None:
        """Read the teachers, also those of a training that is resumed, and do as nnU-Net."""
        # Not only at the first step: what is wrong with them should be said before anything is started or written.
        number = len(self.teachers)
        super().on_train_start()
        if self.fold != "all":
            self.print_to_log_file(
                f"{number - 1} or more of the {number} teachers were trained on the studies that fold {self.fold} "
                "validates: its scores will be too good. To be predicted with, train fold all"
            )

    def _build_loss(self) -> nn.Module:
        """Put the teachers beside the method's loss."""
        return TaughtLoss(super()._build_loss(), self.distillation_weight, exclusive=not self.label_manager.has_regions)

    def _clip_loader(
        self, dataset: nnUNetBaseDataset, crop_size: tuple[int, int], transforms: BasicTransform, stream: int
    ) -> SequenceLoader:
        """Load the training clips around any frames as well."""
        loader = super()._clip_loader(dataset, crop_size, transforms, stream)
        if stream != 0:
            return loader
        if not isinstance(loader, ClipLoader):
            raise NotImplementedError(
                f"{type(self).__name__}: its method draws its batches with {type(loader).__name__}; only methods that "
                "draw theirs with ClipLoader can be distilled"
            )
        return AnyFrameLoader(
            dataset,
            self.manifest.sequences,
            self.loader_options(self.batch_size, crop_size, self.training_transforms(None, None), stream),
            loader.sampler,
            target_transforms=clip_validation_transforms(
                self._get_deep_supervision_scales(), ignore_label=self.label_manager.ignore_label, regions=self.regions
            ),
            any_frame_share=self.any_frame_share,
        )

    def train_step(self, batch: dict) -> dict:
        """Let the teachers segment the clips first; the step itself is nnU-Net's."""
        labels = batch["target"] if isinstance(batch["target"], list) else [batch["target"]]
        return super().train_step({**batch, "target": [*labels, self.teach(batch)]})

    @torch.no_grad()
    def teach(self, batch: dict) -> SoftTarget:
        """Return the mean of what the teachers say of the clips of a batch."""
        clip = self.network_input(batch).to(self.device, non_blocking=True)
        with mixed_precision(self.device):
            logits = [teacher(clip).float() for teacher in self.teachers]
        return SoftTarget(torch.stack(logits).mean(0), batch["counted"])


def _essentials(configuration: dict[str, Any]) -> dict[str, Any]:
    """Return the entries of a configuration that teachers and student must share."""
    return {key: value for key, value in {**configuration, **configuration["temporal"]}.items() if key not in _FREE}


class nnUNetTrainerPlaceMemoryDistilled(Distilled, nnUNetTrainerPlaceMemory):
    """The folds of ``nnUNetTrainerPlaceMemory`` in one network."""


class nnUNetTrainerGDKVMDistilled(Distilled, nnUNetTrainerGDKVM):
    """The folds of ``nnUNetTrainerGDKVM`` in one network."""
