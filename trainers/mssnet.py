"""MSSNet: state-space guidance of later frames by earlier ones."""

from nnunet_temporal.networks.state_space_guidance import StateSpaceGuidance
from nnunet_temporal.plans import TemporalConfig
from nnunet_temporal.trainers.semi_supervised import SemiSupervised
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal


class nnUNetTrainerMSSNetSupervised(nnUNetTrainerTemporal):
    """State-space guidance on the planned encoder stages.

    The network watches a sequence before it segments it, for the reason given at ``nnUNetTrainerGDKVM``.

    Source: MSSNet (Chen et al., IEEE TMI 2026), without what learns from unlabelled frames. Backbone, losses and
    schedule are nnU-Net's.

    Attributes:
        mixer: How the tokens of a frame are mixed, ``mamba`` or ``attention``; see ``StateSpaceGuidance``.
    """

    watch_first = True
    mixer: str = "mamba"

    @classmethod
    def build_temporal_module(cls, channels: int, temporal: TemporalConfig, classes: int) -> StateSpaceGuidance:
        """Build one guidance module."""
        return StateSpaceGuidance(
            channels,
            heads=temporal.heads,
            key_size=temporal.key_size,
            value_size=temporal.value_size,
            mixer=cls.mixer,
        )


class nnUNetTrainerMSSNet(SemiSupervised, nnUNetTrainerMSSNetSupervised):
    """The same with region-wise cross-mix, dynamic offset correction and its contrast on unlabelled frames.

    Source: MSSNet; the paper's weights and schedule are not public.
    """

    pseudo_label_weight = 1.0
    contrastive_weight = 0.1
    cross_mix_probability = 0.5
