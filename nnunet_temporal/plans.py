"""The keys nnunet_temporal adds to nnU-Net's plans, read and written here and nowhere else."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from nnunet_temporal.errors import InputError

TEMPORAL_CONFIGURATION = "2dt"
_KEY = "temporal"
_POSITIVE = (
    "clip_length",
    "decoded_frames",
    "frame_stride",
    "heads",
    "key_size",
    "value_size",
    "matching_patch",
    "matching_top_k",
    "unlabelled_clips",
    "window_frames",
)

LONGEST_UNLABELLED_WINDOW = 4
"""Consecutive frames at most that losses without labels see: more would reward a heart that stands still."""


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
        matching_patch: Side P of the patches that patch-level memory matching compares, in pixels of the deepest memory
            stage; even, and windows of half a patch apart tile that stage's feature map.
        matching_top_k: Patches of the memory that a patch of the frame reads from (K).
        neighbourhood: Odd extents (T, Y, X) of the window that neighbourhood modules attend to, in frames of the clip
            and pixels of the memory stage.
        unlabelled_clips: Clips of unlabelled frames that a step of a semi-supervised trainer adds.
        window_frames: Consecutive frames of such a clip that are decoded (W), 1 to 4; it has as many context frames as
            any other.
        mirror_axes: In-plane axes that may be flipped, 1 = Y and 2 = X of a (T, Y, X) patch; None for no mirroring.
        rotation_degrees: Largest in-plane rotation of the augmentation, in degrees.
        seed: Seed of everything random in training.
        reasons: One line per choice of the planner, for people; nothing reads them.
    """

    clip_length: int
    decoded_frames: int
    frame_stride: int
    memory_stages: tuple[int, ...]
    heads: int
    key_size: int
    value_size: int
    matching_patch: int
    matching_top_k: int
    neighbourhood: tuple[int, int, int]
    unlabelled_clips: int
    window_frames: int
    mirror_axes: tuple[int, ...] | None
    rotation_degrees: float
    seed: int
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"plans: {_KEY}.{name} must be a positive integer, got {value!r}")
        if self.decoded_frames > self.clip_length:
            raise InputError(
                f"plans: {_KEY}.decoded_frames must not exceed clip_length, "
                f"got {self.decoded_frames} > {self.clip_length}"
            )
        if self.window_frames > LONGEST_UNLABELLED_WINDOW:
            raise InputError(
                f"plans: {_KEY}.window_frames must be at most {LONGEST_UNLABELLED_WINDOW}, got {self.window_frames}"
            )
        if type(self.seed) is not int or self.seed < 0:
            raise InputError(f"plans: {_KEY}.seed must be a whole number of at least 0, got {self.seed!r}")
        if not isinstance(self.reasons, tuple) or any(not isinstance(reason, str) for reason in self.reasons):
            raise InputError(f"plans: {_KEY}.reasons must be lines of text, got {self.reasons}")
        self._check_memory()
        self._check_augmentation()

    def _check_memory(self) -> None:
        stages = self.memory_stages
        if (
            not isinstance(stages, tuple)
            or any(type(stage) is not int or stage < 0 for stage in stages)
            or list(stages) != sorted(set(stages))
        ):
            raise InputError(f"plans: {_KEY}.memory_stages must be ascending encoder stages from 0, got {stages}")
        if self.matching_patch % 2:
            raise InputError(f"plans: {_KEY}.matching_patch must be even, got {self.matching_patch}")
        window = self.neighbourhood
        if (
            not isinstance(window, tuple)
            or len(window) != 3
            or any(type(extent) is not int or extent < 1 or extent % 2 == 0 for extent in window)
        ):
            raise InputError(f"plans: {_KEY}.neighbourhood must be three odd extents (T, Y, X), got {window}")

    def _check_augmentation(self) -> None:
        if not isinstance(self.rotation_degrees, int | float) or not 0 <= self.rotation_degrees <= 180:
            raise InputError(f"plans: {_KEY}.rotation_degrees must lie in 0..180, got {self.rotation_degrees!r}")
        axes = self.mirror_axes
        if axes is not None and (axes not in ((1,), (2,), (1, 2)) or any(type(axis) is not int for axis in axes)):
            raise InputError(
                f"plans: {_KEY}.mirror_axes must be null or hold axes 1 (Y) and 2 (X) only, got {self.mirror_axes}. "
                "Axis 0 is time, which must not run backwards."
            )

    @property
    def context_frames(self) -> int:
        """Frames of a clip that are not decoded."""
        return self.clip_length - self.decoded_frames

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
        entries = configuration[_KEY]
        if not isinstance(entries, Mapping):
            raise InputError(f"plans: '{_KEY}' must be an object of named values, got {entries!r}")
        expected = {field.name for field in fields(cls)}
        if set(entries) != expected:
            raise InputError(
                f"plans: '{_KEY}' lacks {sorted(expected - set(entries))} and has unknown keys "
                f"{sorted(set(entries) - expected)}. Plan the dataset again with this version of nnunet_temporal."
            )
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in entries.items()}
        return cls(**values)

    def to_configuration(self, configuration: Mapping[str, Any]) -> dict[str, Any]:
        """Return a copy of a configuration of the plans with these temporal keys added, ready for JSON."""
        entries = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}
        return {**configuration, _KEY: entries}


def check_configuration(configuration: Mapping[str, Any]) -> TemporalConfig:
    """Check a temporal configuration against itself, because people edit plans by hand.

    Args:
        configuration: ``ConfigurationManager.configuration``.

    Returns:
        Its temporal keys.

    Raises:
        InputError: Names the entry, what was found and what the rest of the plans asks for.
    """
    temporal = TemporalConfig.from_configuration(configuration)
    arguments = configuration.get("architecture", {}).get("arch_kwargs", {})
    patch: Any = configuration.get("patch_size")
    strides: Any = arguments.get("strides")
    if not _are_numbers(patch, 3, int) or not _are_numbers(configuration.get("spacing"), 2, float):
        raise InputError(
            "plans: a temporal configuration has a patch_size (T, Y, X) of whole numbers and a spacing (Y, X), all "
            f"above 0, because time is never resampled; got {patch} and {configuration.get('spacing')}"
        )
    if not _are_numbers([configuration.get("batch_size")], 1, int):
        raise InputError(f"plans: batch_size must be a number of clips, got {configuration.get('batch_size')!r}")
    for name in ("strides", "kernel_sizes"):
        entries = arguments.get(name)
        if not isinstance(entries, list | tuple) or not all(_are_numbers(e, 3, int) and e[0] == 1 for e in entries):
            raise InputError(
                f"plans: {name} must be one [1, Y, X] per stage, because nothing reaches along time, got {entries}"
            )
    for name in ("kernel_sizes", "features_per_stage"):
        if len(arguments.get(name, ())) != len(strides):
            raise InputError(f"plans: {name} must have an entry for each of {len(strides)} stages, as strides have")
    if temporal.memory_stages and max(temporal.memory_stages) >= len(strides):
        raise InputError(
            f"plans: {_KEY}.memory_stages {list(temporal.memory_stages)} go beyond the encoder's {len(strides)} stages"
        )
    for axis, size in enumerate(patch[1:], start=1):
        _check_axis(temporal, size, [stride[axis] for stride in strides])
    return temporal


def _are_numbers(values: object, count: int, kind: type) -> bool:
    """Tell whether ``values`` is a list of so many numbers above 0; whole ones if ``kind`` is int."""
    kinds = (int,) if kind is int else (int, float)
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(type(value) in kinds and 0 < value < math.inf for value in values)
    )


def _check_axis(temporal: TemporalConfig, size: int, strides: list[int]) -> None:
    whole = math.prod(strides)
    if size % whole:
        raise InputError(f"plans: patch_size {size} must be a multiple of {whole}, the product of its axis' strides")
    if not temporal.memory_stages:
        return
    side, patch = size // math.prod(strides[: temporal.memory_stages[-1] + 1]), temporal.matching_patch
    if patch > side or (side - patch) % (patch // 2):
        raise InputError(
            f"plans: {_KEY}.matching_patch {patch} does not tile a feature map of {side} pixels in steps of half a "
            "patch; 2 always does"
        )
