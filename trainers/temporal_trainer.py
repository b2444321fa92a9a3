"""The nnU-Net trainer all temporal trainers derive from."""

from pathlib import Path

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from nnunetv2.utilities.plans_handling.plans_handler import ConfigurationManager, PlansManager
from torch import nn

from nnunet_temporal.atomic import atomic_path, write_json
from nnunet_temporal.datasets.splits_file import SPLITS_NAME, read_splits
from nnunet_temporal.errors import InputError
from nnunet_temporal.networks.build import build_frame_network, build_temporal_network
from nnunet_temporal.networks.memory_network import SeededClip
from nnunet_temporal.networks.refinement_head import RefinementHead
from nnunet_temporal.networks.temporal_module import TemporalModule
from nnunet_temporal.networks.temporal_unet import Clip
from nnunet_temporal.plans import TemporalConfig, check_configuration
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, check_splits, study_splits
from nnunet_temporal.training.augmenter import Augmenter, start_augmenter
from nnunet_temporal.training.clip_loader import ClipLoader
from nnunet_temporal.training.clip_sampling import ClipSampler
from nnunet_temporal.training.clip_transforms import Regions, clip_training_transforms, clip_validation_transforms
from nnunet_temporal.training.labels import with_ignore_label
from nnunet_temporal.training.sequence_loader import LoaderOptions, SequenceLoader
from nnunet_temporal.training.validation_picture import draw_validation

_SCALING = (0.85, 1.25)
"""nnU-Net's assumption about zoom when it sizes the crop that is augmented."""


class nnUNetTrainerTemporal(nnUNetTrainer):
    """Trains on clips of sequences; a subclass says which temporal module the network gets.

    Loss, optimiser, schedule, logging, checkpoints, validation and prediction are nnU-Net's. What changes: batches
    are clips built around labelled frames, splits are by study, augmentation is safe for time, and everything random
    is seeded from the plans.

    Attributes:
        watch_first: Whether the network sees a whole sequence before it segments it; see ``TemporalUNet``.
        occluded_share: Share of the training clips in which a place is hidden in some frames; see ``OccludeFrames``.
        epochs: Number of epochs of a shorter or longer variant; None keeps nnU-Net's.
        iterations_per_epoch: Training iterations per epoch of a variant; None keeps nnU-Net's.
        validation_iterations_per_epoch: Validation iterations per epoch of a variant; None keeps nnU-Net's.
    """

    watch_first: bool = False
    occluded_share: float = 0.5
    epochs: int | None = None
    iterations_per_epoch: int | None = None
    validation_iterations_per_epoch: int | None = None

    num_epochs: int
    num_iterations_per_epoch: int
    num_val_iterations_per_epoch: int
    save_every: int

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's signature, which must be repeated
    ) -> None:
        """Take nnU-Net's arguments; see ``nnUNetTrainer``.

        Raises:
            InputError: The configuration of the plans is not temporal, or contradicts itself.
            NotImplementedError: The configuration is part of a cascade.
        """
        super().__init__(plans, configuration, fold, with_ignore_label(dataset_json), device)
        self.temporal = check_configuration(self.configuration_manager.configuration)
        if self.is_cascaded:
            raise NotImplementedError(f"{type(self).__name__} does not support cascades, got {configuration}")
        self.num_epochs = self.epochs or self.num_epochs
        self.num_iterations_per_epoch = self.iterations_per_epoch or self.num_iterations_per_epoch
        self.num_val_iterations_per_epoch = self.validation_iterations_per_epoch or self.num_val_iterations_per_epoch
        # nnU-Net saves every 50 epochs; a shorter training would never leave anything to resume from.
        self.save_every = max(1, min(self.save_every, self.num_epochs // 10))

    @staticmethod
    def build_temporal_module(channels: int, temporal: TemporalConfig, classes: int) -> TemporalModule:
        """Build the temporal module for encoder features of ``channels`` channels in a network of ``classes`` outputs.

        Outputs are the channels of the logits: labels with the background, or regions. A method that is no module on
        features overrides ``add_memory`` instead.
        """
        raise NotImplementedError("a temporal trainer says which temporal module its network gets")

    @staticmethod
    def build_refinement_head(
        channels: tuple[int, ...], temporal: TemporalConfig, classes: int
    ) -> RefinementHead | None:
        """Build what corrects the decoder's logits, or None.

        Args:
            channels: Channels of the decoder's stages, full resolution first.
            temporal: The temporal keys of the plans.
            classes: Channels of the logits, as in ``build_temporal_module``.
        """
        return None

    @classmethod
    def build_network_architecture(
        cls,
        plans_manager: PlansManager,
        configuration_manager: ConfigurationManager,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Build the planned frame network with this trainer's temporal modules; nnU-Net calls it to predict too."""
        temporal = TemporalConfig.from_configuration(configuration_manager.configuration)
        architecture = configuration_manager.configuration["architecture"]
        frame_network = build_frame_network(
            architecture, num_input_channels, num_output_channels, enable_deep_supervision
        )
        return cls.add_memory(frame_network, temporal, num_input_channels, num_output_channels)

    @classmethod
    def add_memory(cls, frame_network: nn.Module, temporal: TemporalConfig, channels: int, classes: int) -> nn.Module:
        """Build the network around nnU-Net's 2D network.

        Args:
            frame_network: The planned 2D U-Net, initialised.
            temporal: The temporal keys of the plans.
            channels: Channels of the images.
            classes: Channels of the logits, as in ``build_temporal_module``.
        """
        return build_temporal_network(
            frame_network,
            temporal.memory_stages,
            lambda features: cls.build_temporal_module(features, temporal, classes),
            build_head=lambda features: cls.build_refinement_head(features, temporal, classes),
            watch_first=cls.watch_first,
            frame_stride=temporal.frame_stride,
        )

    def initialize(self) -> None:
        """Seed the initial weights, then do as nnU-Net."""
        torch.manual_seed(self.temporal.seed)
        np.random.seed(self.temporal.seed)
        super().initialize()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """Use nnU-Net's optimiser; parameters that are neither weights nor biases of a layer do not decay."""
        optimizer, lr_scheduler = super().configure_optimizers()
        named = self.network.named_parameters()
        free = [parameter for name, parameter in named if name.rpartition(".")[2] not in ("weight", "bias")]
        (group,) = optimizer.param_groups
        group["params"] = [p for p in group["params"] if not any(p is other for other in free)]
        if free:
            optimizer.add_param_group({"params": free, "weight_decay": 0.0})
        return optimizer, lr_scheduler

    @property
    def manifest(self) -> Manifest:
        """The dataset's manifest, copied to the preprocessed dataset by planning."""
        folder = Path(self.preprocessed_dataset_folder_base)
        if not (folder / MANIFEST_NAME).is_file():
            raise InputError(
                f"{folder / MANIFEST_NAME} is missing: the trainer reads from it which frames are labelled. "
                "It is written by 'nnunet_temporal plan_and_preprocess'; run that for this dataset."
            )
        return Manifest.read(folder / MANIFEST_NAME)

    def do_split(self) -> tuple[list[str], list[str]]:
        """Split by study, as nnU-Net's ``splits_final.json`` says; nothing without labels is validated.

        Raises:
            InputError: The fold does not exist, or a study is on both sides of a fold.
        """
        if self.fold != "all":
            manifest, splits_file = self.manifest, Path(self.preprocessed_dataset_folder_base) / SPLITS_NAME
            if not splits_file.is_file():
                self.print_to_log_file("Creating a cross-validation split by study...")
                write_json(study_splits(manifest), splits_file)
            splits = read_splits(splits_file)
            check_splits(splits, manifest)
            if not 0 <= self.fold < len(splits):
                raise InputError(
                    f"Fold {self.fold} does not exist: {splits_file} defines {len(splits)} folds "
                    f"(-f 0 to {len(splits) - 1}), because there are that many studies to hold out."
                )
        training, validation = super().do_split()
        # Fold "all" validates what it trains on, unlabelled sequences among it: scores of nothing.
        sequences = self.manifest.sequences
        return training, [case for case in validation if sequences[case].labelled_frames]

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(
        self,
    ) -> tuple[tuple[float, float], bool, np.ndarray, tuple[int, ...] | None]:
        """Read rotation and mirroring from the plans, and size the in-plane crop that is augmented."""
        radians = np.deg2rad(self.temporal.rotation_degrees)
        rotation = (-radians, radians)
        crop_size = get_patch_size(self.configuration_manager.patch_size[1:], rotation, rotation, rotation, _SCALING)
        self.inference_allowed_mirroring_axes = self.temporal.mirror_axes
        return rotation, True, crop_size, self.temporal.mirror_axes

    def get_dataloaders(self) -> tuple[Augmenter, Augmenter]:
        """Start the clip loaders of training and validation."""
        dataset_tr, dataset_val = self.get_tr_and_val_datasets()
        _, _, crop_size, _ = self.configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        patch_size = tuple(self.configuration_manager.patch_size[1:])
        scales = self._get_deep_supervision_scales()
        transforms = self.training_transforms(scales, self.regions)
        plain = clip_validation_transforms(scales, ignore_label=self.label_manager.ignore_label, regions=self.regions)
        training = self._clip_loader(dataset_tr, tuple(crop_size), transforms, stream=0)
        validation = self._clip_loader(dataset_val, patch_size, plain, stream=1)
        workers = get_allowed_n_proc_DA()
        return start_augmenter(training, workers, self.device), start_augmenter(validation, workers // 2, self.device)

    def training_transforms(self, scales: list[list[float]] | None, regions: Regions | None) -> BasicTransform:
        """Compose the augmentation of clips; see ``clip_training_transforms`` for scales and regions of the target."""
        return clip_training_transforms(
            tuple(self.configuration_manager.patch_size[1:]),
            self.temporal.rotation_degrees,
            self.temporal.mirror_axes,
            scales,
            ignore_label=self.label_manager.ignore_label,
            regions=regions,
            masked_channels=self.masked_channels,
            occluded_share=self.occluded_share,
        )

    @property
    def regions(self) -> Regions | None:
        """Labels of each region, None where labels exclude each other."""
        return self.label_manager.foreground_regions if self.label_manager.has_regions else None

    def _clip_loader(
        self, dataset: nnUNetBaseDataset, crop_size: tuple[int, int], transforms: BasicTransform, stream: int
    ) -> SequenceLoader:
        """Make the loader of training clips (stream 0) or validation clips (stream 1)."""
        temporal = self.temporal
        return ClipLoader(
            dataset,
            self.manifest.sequences,
            self.loader_options(self.batch_size, crop_size, transforms, stream),
            ClipSampler(temporal.clip_length, temporal.decoded_frames, temporal.frame_stride),
        )

    def loader_options(
        self, batch_size: int, crop_size: tuple[int, int], transforms: BasicTransform, stream: int
    ) -> LoaderOptions:
        """Return the options that every loader has; loaders of different streams draw different batches."""
        return LoaderOptions(
            batch_size,
            crop_size,
            tuple(self.configuration_manager.patch_size[1:]),
            transforms,
            ignore_label=self.label_manager.ignore_label,
            foreground_share=self.oversample_foreground_percent,
            seed=self.seed_of(stream),
        )

    def seed_of(self, stream: int) -> int:
        """Derive the seed of one source of randomness of this process, from this epoch on."""
        # A resumed training starts its loaders anew, and must not see the first epoch's batches again.
        entropy = [self.temporal.seed, self.current_epoch, self.local_rank, stream]
        return int(np.random.SeedSequence(entropy).generate_state(1)[0])

    @property
    def masked_channels(self) -> list[int]:
        """Image channels that the preprocessing normalised inside a nonzero mask."""
        return [channel for channel, mask in enumerate(self.configuration_manager.use_mask_for_norm) if mask]

    def save_checkpoint(self, filename: str) -> None:
        """Save as nnU-Net, but whole or not at all: a training killed while it saves must find one to resume from."""
        if self.local_rank != 0 or self.disable_checkpointing:
            super().save_checkpoint(filename)
            return
        with atomic_path(Path(filename)) as temporary:
            super().save_checkpoint(str(temporary))

    def train_step(self, batch: dict) -> dict:
        """Hand the network whole clips; the step itself is nnU-Net's."""
        return super().train_step({**batch, "data": self.network_input(batch)})

    def validation_step(self, batch: dict) -> dict:
        """Hand the network whole clips; the step itself is nnU-Net's."""
        return super().validation_step({**batch, "data": self.network_input(batch)})

    def network_input(self, batch: dict) -> Clip | SeededClip:
        """Make what the network takes of a batch."""
        return Clip(batch["data"], batch["valid"], batch["decoded"])

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as nnU-Net, then draw the worst, the median and the best sequence beside ``progress.png``."""
        super().perform_actual_validation(save_probabilities)
        # The process that has waited for all masks and written the summary; nothing waits for it any more.
        if self.local_rank == 0:
            draw_validation(self, self.manifest)
