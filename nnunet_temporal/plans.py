"""The keys nnunet_temporal adds to nnU-Net's plans, read and written here and nowhere else."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nnunet_temporal.errors import InputError

TEMPORAL_CONFIGURATION = "2dt"
_KEY = "temporal"


@dataclass(frozen=True)
class TemporalConfig:
    """What the planner decided about time, stored under ``configurations/2dt/temporal`` of the plans.

    Attributes:
        clip_length: Frames per training clip (T), decoded and context frames together.
        decoded_frames: Frames of a clip that are decoded and supervised; the others only feed the memory.
        frame_stride: Typical gap between the frames of a clip, in frames; sets how far context reaches.
        memory_stages: Encoder stages (0 = full resolution) whose features pass through a temporal module.
        heads: Memory heads per stage.
        key_size: Key channels per head (d_k).
        value_size: Value channels per head (d_v).
        mirror_axes: In-plane axes that may be flipped, 1 = Y and 2 = X of a (T, Y, X) patch; None for no mirroring.
        rotation_degrees: Largest in-plane rotation of the augmentation, in degrees.
        seed: Seed of everything random in training.
    """

    clip_length: int
    decoded_frames: int
    frame_stride: int
    memory_stages: tuple[int, ...]
    heads: int
    key_size: int
    value_size: int
    mirror_axes: tuple[int, ...] | None
    rotation_degrees: float
    seed: int

    def __post_init__(self) -> None:
        positive = ("clip_length", "decoded_frames", "frame_stride", "heads", "key_size", "value_size")
        for name in positive:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"plans: {_KEY}.{name} must be a positive integer, got {value!r}")
        if self.decoded_frames > self.clip_length:
            raise InputError(
                f"plans: {_KEY}.decoded_frames must not exceed clip_length, "
                f"got {self.decoded_frames} > {self.clip_length}"
            )
        if type(self.seed) is not int or self.seed < 0:
            raise InputError(f"plans: {_KEY}.seed must be a whole number of at least 0, got {self.seed!r}")
        if not isinstance(self.rotation_degrees, int | float) or not 0 <= self.rotation_degrees <= 180:
            raise InputError(f"plans: {_KEY}.rotation_degrees must lie in 0..180, got {self.rotation_degrees!r}")
        stages = self.memory_stages
        if any(type(stage) is not int or stage < 0 for stage in stages) or list(stages) != sorted(set(stages)):
            raise InputError(f"plans: {_KEY}.memory_stages must be ascending encoder stages from 0, got {stages}")
        if self.mirror_axes is not None and self.mirror_axes not in ((1,), (2,), (1, 2)):
            raise InputError(
                f"plans: {_KEY}.mirror_axes must be null or hold axes 1 (Y) and 2 (X) only, got {self.mirror_axes}. "
                "Axis 0 is time, which must not run backwards."
            )

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> "TemporalConfig":
        """Read the temporal keys of one configuration of the plans.

        Args:
            configuration: ``ConfigurationManager.configuration`` or an entry of ``plans["configurations"]``.

        Raises:
            InputError: The configuration is not temporal, or a key is missing, unknown or out of range.
        """
        if _KEY not in configuration:
            raise InputError(
                f"This trainer needs a configuration with a '{_KEY}' entry, such as '{TEMPORAL_CONFIGURATION}'. "
                "Run 'nnunet_temporal plan_and_preprocess' and train with its plans: "
                f"nnUNetv2_train DATASET {TEMPORAL_CONFIGURATION} FOLD -p nnUNetTemporalPlans"
            )
        entries = dict(configuration[_KEY])
        expected = {field.name for field in fields(cls)}
        if set(entries) != expected:
            raise InputError(
                f"plans: '{_KEY}' lacks {sorted(expected - set(entries))} and has unknown keys "
                f"{sorted(set(entries) - expected)}. Plan the dataset again with this version of nnunet_temporal."
            )
        entries["memory_stages"] = tuple(entries["memory_stages"])
        entries["mirror_axes"] = None if entries["mirror_axes"] is None else tuple(entries["mirror_axes"])
        return cls(**entries)

    def to_configuration(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of a configuration of the plans with these temporal keys added, ready for JSON."""
        entries = asdict(self)
        entries["memory_stages"] = list(self.memory_stages)
        entries["mirror_axes"] = None if self.mirror_axes is None else list(self.mirror_axes)
        return {**configuration, _KEY: entries}
