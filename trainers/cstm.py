"""CSTM: patch-level matching with a memory of segmented frames."""

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from torch import nn

from nnunet_temporal.errors import InputError
from nnunet_temporal.losses.bootstrapped import BootstrappedCrossEntropy, SumOfLosses
from nnunet_temporal.networks.cstm import CSTM, MatchingPlan
from nnunet_temporal.networks.memory_network import SeededClip
from nnunet_temporal.networks.temporal_unet import Clip
from nnunet_temporal.plans import TemporalConfig
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal
from nnunet_temporal.training.frame_transforms import frame_training_transforms
from nnunet_temporal.training.prompts import first_masks
from nnunet_temporal.training.triplet_loader import FRAMES, TripletLoader


class nnUNetTrainerCSTM(nnUNetTrainerTemporal):
    """A memory of segmented frames, trained on triplets along time and along the slices of a study.

    Stock prediction is automatic: the first frame is segmented without memory. So that the network can also start from
    a given mask, part of the triplets remember the true first mask instead of the predicted one.

    Source: CSTM (WACV 2025). Its loss is bootstrapped cross entropy; nnU-Net's Dice is added, as XMem does.

    Attributes:
        memory_frames: Frames in the memory: the first, and the ones just before.
        per_object: Whether each output channel has a memory of its own; see ``CSTM``.
        prompted_share: Share of the triplets that remember the true first mask. The paper's training always does.
        with_dice: Whether nnU-Net's Dice loss is added. The paper's loss has none.
    """

    memory_frames: int = 2
    per_object: bool = False
    prompted_share: float = 0.5
    with_dice: bool = True

    @classmethod
    def add_memory(cls, frame_network: nn.Module, temporal: TemporalConfig, channels: int, classes: int) -> nn.Module:
        """Build the network that remembers what it segmented."""
        if not temporal.memory_stages:
            raise InputError(f"plans: {cls.__name__} needs a stage in temporal.memory_stages to match at, got none")
        matching = MatchingPlan(
            temporal.memory_stages[-1],
            temporal.matching_patch,
            temporal.matching_top_k,
            key_channels=temporal.key_size,
            value_channels=temporal.heads * temporal.value_size,
        )
        return CSTM(frame_network, channels, matching, memory_frames=cls.memory_frames, per_object=cls.per_object)

    def initialize(self) -> None:
        """Do as nnU-Net, and tell the network whether its outputs are regions."""
        super().initialize()
        for name, buffer in self.network.named_buffers():  # whatever it is wrapped in
            if name.endswith("overlapping"):
                buffer.fill_(self.label_manager.has_regions)

    def _build_loss(self) -> nn.Module:
        """Put bootstrapped cross entropy in the place of nnU-Net's own."""
        stock = super()._build_loss()
        dice = stock.loss if self.enable_deep_supervision else stock
        dice.weight_ce = 0
        cross_entropy = BootstrappedCrossEntropy(
            lambda: self.current_epoch / self.num_epochs,
            ignore_label=self.label_manager.ignore_label,
            has_regions=self.label_manager.has_regions,
        )
        loss = SumOfLosses(dice, cross_entropy) if self.with_dice else cross_entropy
        return DeepSupervisionWrapper(loss, stock.weight_factors) if self.enable_deep_supervision else loss

    def _clip_loader(
        self, dataset: nnUNetBaseDataset, crop_size: tuple[int, int], transforms: BasicTransform, stream: int
    ) -> TripletLoader:
        """Load triplets, as many as make the labelled frames that a step of the planned clips has."""
        is_training = stream == 0
        frame_transforms = frame_training_transforms(
            crop_size,
            self.temporal.rotation_degrees,
            ignore_label=self.label_manager.ignore_label,
            masked_channels=self.masked_channels,
        )
        batch_size = max(1, round(self.batch_size * self.temporal.decoded_frames / FRAMES))
        return TripletLoader(
            dataset,
            self.manifest.sequences,
            self.loader_options(batch_size, crop_size, transforms, stream),
            frame_transforms=frame_transforms if is_training else None,
            prompted_share=self.prompted_share if is_training else 0.0,
        )

    def network_input(self, batch: dict) -> Clip | SeededClip:
        """Give the network triplets, in training some with their first mask."""
        clip = super().network_input(batch)
        if not self.network.training:
            return clip
        target = batch["target"][0] if self.enable_deep_supervision else batch["target"]
        seeds = first_masks(
            target,
            batch["prompted"],
            self.label_manager.num_segmentation_heads,
            ignore_label=self.label_manager.ignore_label,
            has_regions=self.label_manager.has_regions,
        )
        return SeededClip(clip, seeds)
