"""The planner's rules about time: small functions, each with its reason, each explaining its choice in one line."""

import re
from collections.abc import Sequence as Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from nnunet_temporal.sequences import Sequence

Value = TypeVar("Value")

LONGEST_WINDOW = 128
"""Frames handed to the network at once in prediction. Activations do not grow with it; logits do."""

_ULTRASOUND = re.compile(r"\b(us|ultrasound|echo\w*)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Choice(Generic[Value]):
    """A planned value and the line that explains it."""

    value: Value
    reason: str


@dataclass(frozen=True)
class ClipPlan:
    """Frames of a training clip; see ``TemporalConfig``."""

    clip_length: int
    decoded_frames: int
    frame_stride: int


@dataclass(frozen=True)
class MemorySize:
    """Size of a memory per stage; see ``TemporalConfig``."""

    heads: int
    key_size: int
    value_size: int


@dataclass(frozen=True)
class Geometry:
    """Geometric augmentation; see ``TemporalConfig``."""

    mirror_axes: tuple[int, ...] | None
    rotation_degrees: float


def plan_clip(labelled: Collection[Sequence]) -> Choice[ClipPlan]:
    """Build clips of two frames, labelled ones if there are two, because these are what a step can learn from.

    ED and ES where those are labelled: they lie furthest apart, and each is the other's memory. Context frames, which
    are encoded but not segmented, would take steps from the training, and on ACDC they brought nothing in exchange.
    Where sequences have one labelled frame only, one context frame feeds the memory. The stride is the gap that lets
    the clip span the typical distance of its labelled frames.

    Args:
        labelled: The sequences with at least one labelled frame.
    """
    per_sequence = np.median([len(sequence.labelled_frames) for sequence in labelled])
    shortest = int(np.median([sequence.n_frames for sequence in labelled]))
    decoded = 2 if per_sequence >= 2 else 1
    clip_length = min(2, shortest)
    decoded = min(decoded, clip_length)
    gaps = [max(s.labelled_frames) - min(s.labelled_frames) for s in labelled if len(s.labelled_frames) > 1]
    span = float(np.median(gaps)) if gaps else shortest / 2
    stride = max(1, round(span / max(1, clip_length - 1)))
    return Choice(
        ClipPlan(clip_length, decoded, stride),
        f"Clips of {clip_length} frames, {decoded} of them decoded, about {stride} frames apart: sequences have "
        f"{per_sequence:g} labelled of {shortest} frames (median), {span:g} frames from first to last.",
    )


def plan_clips_per_step(labelled_frames_2d: int, decoded_frames: int) -> Choice[int]:
    """Let a step see as many labelled frames as the step of nnU-Net's 2D trainer."""
    clips = max(1, round(labelled_frames_2d / decoded_frames))
    return Choice(clips, f"{clips} clips per step, {clips * decoded_frames} labelled frames; 2d: {labelled_frames_2d}.")


def plan_prediction_window(sequences: Collection[Sequence]) -> Choice[int]:
    """Hand the longest sequence to the network at once, so that its memory never starts in mid-sequence.

    Shorter sequences are padded, which costs nothing: padding frames are skipped.
    """
    longest = max(sequence.n_frames for sequence in sequences)
    window = min(longest, LONGEST_WINDOW)
    return Choice(window, f"Prediction window of {window} frames: the longest sequence has {longest}.")


def plan_memory_stages(patch_size: Collection[int], strides: Collection[Collection[int]]) -> Choice[tuple[int, ...]]:
    """Put the memory where features are semantic and a frame still has pixels to tell apart.

    That is the deepest stage whose feature map has at least eight pixels along each axis; the bottleneck's own map is
    usually smaller. A network too shallow for that gets its memory at the bottleneck.
    """
    sizes = [np.array(patch_size) // np.prod(np.array(strides[: stage + 1]), axis=0) for stage in range(len(strides))]
    fine_enough = [stage for stage, size in enumerate(sizes) if stage > 0 and size.min() >= 8]
    stages = tuple(fine_enough[-1:]) or (len(strides) - 1,)
    maps = ", ".join("x".join(str(int(n)) for n in sizes[stage]) for stage in stages)
    return Choice(stages, f"Memory at encoder stage {', '.join(map(str, stages))} (feature map {maps}).")


def plan_memory_size(channels: Collection[int]) -> Choice[MemorySize]:
    """Size a memory by the narrowest features it serves: four heads whose keys together take half as many.

    Keys below 16 channels could hardly tell pixels apart; above 64 the solve grows with the cube for nothing.
    """
    size = int(np.clip(min(channels) // 8, 16, 64))
    return Choice(MemorySize(4, size, size), f"4 memory heads with keys and values of {size} channels.")


def plan_geometry(channel_names: Collection[str], patch_size: Collection[int]) -> Choice[Geometry]:
    """Choose mirroring and rotation by modality.

    Hearts have a handedness: seen from the apex, the right ventricle lies always on the same side, and a mirrored
    short axis shows a heart that does not exist. Learning it costs a short training much, so cine is not mirrored;
    it is rotated by nnU-Net's 2D rule, to any angle unless the patch is elongated. An ultrasound sector has a top and
    is tilted only a little, but is flipped left to right, because laboratories differ in where they put the marker.
    """
    if any(_ULTRASOUND.search(name) for name in channel_names):
        return Choice(Geometry((2,), 15.0), "Ultrasound: mirrored left to right only, rotated by up to 15 degrees.")
    rotation = 15.0 if max(patch_size) / min(patch_size) > 1.5 else 180.0
    reason = f"Not mirrored, because hearts have a handedness; rotated by up to {rotation:g} degrees."
    return Choice(Geometry(None, rotation), reason)
