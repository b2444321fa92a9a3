"""The temporal baseline: plain convolution along time."""

from nnunet_temporal.networks.temporal_convolution import TemporalConvolution
from nnunet_temporal.plans import TemporalConfig
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal


class nnUNetTrainerTemporalConv(nnUNetTrainerTemporal):
    """Causal temporal convolutions on the planned encoder stages: what a memory has to beat.

    Like the others it watches a sequence before it segments it, so that a comparison is about the module.
    """

    watch_first = True

    @staticmethod
    def build_temporal_module(channels: int, temporal: TemporalConfig, classes: int) -> TemporalConvolution:
        """Build one stack of temporal convolutions."""
        return TemporalConvolution(channels)
