"""NCM-Net: neighbourhood correlation mining, and masked attention to unreliable pixels."""

from nnunet_temporal.networks.neighbourhood import NeighbourhoodCorrelation
from nnunet_temporal.networks.unreliable_pixels import UnreliablePixelAttention
from nnunet_temporal.plans import TemporalConfig
from nnunet_temporal.trainers.semi_supervised import SemiSupervised
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal


class nnUNetTrainerNCMNetSupervised(nnUNetTrainerTemporal):
    """Neighbourhood correlation on the planned encoder stages, unreliable-pixel attention after the decoder.

    A frame's window is centred: in a stream, answers wait for half a window per layer.

    Source: NCM-Net (Deng and Wu, IEEE TMI 2025), rebuilt from its abstract and development code, without what learns
    from unlabelled frames. Backbone, losses and schedule are nnU-Net's.
    """

    @staticmethod
    def build_temporal_module(channels: int, temporal: TemporalConfig, classes: int) -> NeighbourhoodCorrelation:
        """Build the neighbourhood correlation of one stage."""
        return NeighbourhoodCorrelation(
            channels,
            window=temporal.neighbourhood,
            heads=temporal.heads,
            key_size=temporal.key_size,
            value_size=temporal.value_size,
        )

    @staticmethod
    def build_refinement_head(
        channels: tuple[int, ...], temporal: TemporalConfig, classes: int
    ) -> UnreliablePixelAttention:
        """Build the attention to unreliable pixels."""
        return UnreliablePixelAttention(
            channels, classes, heads=temporal.heads, width=temporal.heads * temporal.value_size
        )

    def initialize(self) -> None:
        """Do as the base, then tell the head whether classes exclude each other; the checkpoint keeps it."""
        super().initialize()
        for module in self.network.modules():
            if isinstance(module, UnreliablePixelAttention):
                module.exclusive.fill_(not self.label_manager.has_regions)


class nnUNetTrainerNCMNet(SemiSupervised, nnUNetTrainerNCMNetSupervised):
    """The same with the cross-frame boundary constraint on unlabelled frames.

    Source: the abstract names the constraint; its form is ours. The development code has neither teacher nor
    pseudo-labels.
    """

    boundary_weight = 0.1
