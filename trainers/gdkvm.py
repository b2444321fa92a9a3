"""GDKVM: linear key-value association with a gated delta rule and key-pixel feature fusion."""

from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.networks.memory_rules import MemoryRule
from nnunet_temporal.plans import TemporalConfig
from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal


class nnUNetTrainerGDKVM(nnUNetTrainerTemporal):
    """Gated delta memory on the planned encoder stages, with the implicit, contractive update.

    The network watches a sequence before it segments it: most cines start at end diastole, which a causal memory would
    have to segment with nothing to remember. ``TemporalUNet.forward_chunk`` stays causal, for live video.

    Source: GDKVM (Wang et al., ICCV 2025), which is causal. Backbone, losses and schedule are nnU-Net's.

    Attributes:
        mode: How frames are written, a key of ``memory_rules.MODES``.
        update: Which parts of the gated delta rule there are, a key of ``memory_rules.UPDATES``.
        gate_source: What the gates are projected from, "frame" or "state".
        feedback: Whether values also see class probabilities estimated from the features.
    """

    watch_first = True
    mode: str = "implicit"
    update: str = "gated_delta"
    gate_source: str = "frame"
    feedback: bool = False

    @classmethod
    def build_temporal_module(cls, channels: int, temporal: TemporalConfig, classes: int) -> GatedDeltaMemory:
        """Build one gated delta memory."""
        # A single output is one region: it and its complement.
        feedback_classes = max(classes, 2) if cls.feedback else 0
        return GatedDeltaMemory(
            channels,
            heads=temporal.heads,
            key_size=temporal.key_size,
            value_size=temporal.value_size,
            rule=MemoryRule(cls.mode, cls.update, cls.gate_source),
            feedback_classes=feedback_classes,
        )


class nnUNetTrainerGDKVMPaper(nnUNetTrainerGDKVM):
    """GDKVM as published, as far as the paper is consistent with itself.

    As in the paper: keys are softmaxes over their channels, the update is explicit and sums over a frame's pixels, both
    gates are projected from the memory's previous state, a frame is read after it is written, nothing looks ahead.

    Where the paper's equation cannot be followed: its plain sum over the pixels diverges once b N / D_k exceeds 2 for N
    pixels and D_k key channels, and its matrix gates do not type-check. Here keys are divided by the root of their
    frame's sums, and gates act per key channel, from both sides of the erased term, which bounds the transition by a
    at every resolution; the equation itself is ``mode = "raw"``. The first frame is written as every other. Values see
    class probabilities estimated from the frame, where the paper's value encoder sees the mask of the frame before.
    """

    watch_first = False
    mode = "symmetric"
    gate_source = "state"
    feedback = True
