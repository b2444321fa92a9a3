"""A memory of every place."""

from nnunet_temporal.networks.place_memory import PlaceMemory
from nnunet_temporal.plans import TemporalConfig
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal


class nnUNetTrainerPlaceMemory(nnUNetTrainerTemporal):
    """Attention along time at each place of the planned encoder stages; no paper's method.

    The network watches a sequence before it segments it, for the reason given at ``nnUNetTrainerGDKVM``.
    """

    watch_first = True

    @staticmethod
    def build_temporal_module(channels: int, temporal: TemporalConfig, classes: int) -> PlaceMemory:
        """Build one memory; watching first, its frames are those of a clip twice over."""
        return PlaceMemory(
            channels, memory_frames=2 * temporal.clip_length, heads=temporal.heads, key_size=temporal.key_size
        )
