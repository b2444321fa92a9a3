"""GDKVM: linear key-value association with a gated delta rule and key-pixel feature fusion."""

from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.plans import TemporalConfig
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal


class nnUNetTrainerGDKVM(nnUNetTrainerTemporal):
    """Gated delta memory on the planned encoder stages, with the implicit, contractive update.

    The network watches a sequence before it segments it: most cines start at end diastole, which a causal memory would
    have to segment with nothing to remember. ``TemporalUNet.forward_chunk`` stays causal, for live video.

    Source: GDKVM (Wang et al., ICCV 2025), which is causal. Backbone, losses and schedule are nnU-Net's.
    """

    watch_first = True

    @staticmethod
    def build_temporal_module(channels: int, temporal: TemporalConfig) -> GatedDeltaMemory:
        """Build one gated delta memory."""
        return GatedDeltaMemory(
            channels, heads=temporal.heads, key_size=temporal.key_size, value_size=temporal.value_size
        )
