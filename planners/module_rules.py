"""The planner's rules about temporal modules: where they stand, how large they are and how far they look."""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnunet_temporal.planners.rules import Choice, ClipPlan, Span, wall_path_mm

MEMORY_SIDE = 12
"""Pixels along the shorter side of the memory's feature map at least.

The published methods have theirs at a sixteenth of the image, where patches of 192 to 352 pixels then have it, too."""

MATCHING_TOP_K = 4
"""Patches read from the memory, as in CSTM, whose results hardly change from 2 to 6."""


@dataclass(frozen=True)
class MemorySize:
    """Size of a memory per stage; see ``TemporalConfig``."""

    heads: int
    key_size: int
    value_size: int


def feature_map_sizes(patch_size: Collection[int], strides: Collection[Collection[int]]) -> list[tuple[int, ...]]:
    """Compute the (Y, X) size of every encoder stage's feature map, full resolution first."""
    steps = np.cumprod(np.array(list(strides)), axis=0)
    return [tuple(int(size) for size in np.array(patch_size) // step) for step in steps]


def plan_memory_stages(sizes: Collection[tuple[int, ...]]) -> Choice[tuple[int, ...]]:
    """Put the memory where features are semantic and a frame still has pixels to tell apart.

    That is the deepest stage whose feature map has ``MEMORY_SIDE`` pixels along each axis; the bottleneck's own map is
    smaller. A network too shallow for that gets its memory at the bottleneck.
    """
    sizes = list(sizes)
    fine_enough = [stage for stage, size in enumerate(sizes) if stage > 0 and min(size) >= MEMORY_SIDE]
    stages = tuple(fine_enough[-1:]) or (len(sizes) - 1,)
    maps = ", ".join("x".join(map(str, sizes[stage])) for stage in stages)
    return Choice(stages, f"Memory at encoder stage {', '.join(map(str, stages))} (feature map {maps}).")


def plan_memory_size(channels: Collection[int]) -> Choice[MemorySize]:
    """Size a memory by the narrowest features it serves: four heads whose keys together take half as many.

    Keys below 16 channels could hardly tell pixels apart; above 64 the solve grows with the cube for nothing.
    """
    size = int(np.clip(min(channels) // 8, 16, 64))
    return Choice(MemorySize(4, size, size), f"4 memory heads with keys and values of {size} channels.")


def plan_matching_patch(size: Collection[int]) -> Choice[int]:
    """Match patches of a quarter of the field of view, as CSTM does (6 of 24 pixels).

    Patches are even and half a patch apart, so that windows tile the feature map to its border: the remainder of
    (side - P) / (P / 2) must be zero along both axes. P = 2 fits every map.
    """
    fitting = [p for p in range(2, max(2, min(size)) + 1, 2) if all((side - p) % (p // 2) == 0 for side in size)]
    patch = min(fitting, key=lambda p: (abs(p - min(size) / 4), -p))
    return Choice(patch, f"Matching patches of {patch}x{patch} pixels of a {'x'.join(map(str, size))} feature map.")


def plan_neighbourhood(
    temporal: Mapping[str, Any], clip: ClipPlan, span: Span, cell_mm: float
) -> Choice[tuple[int, int, int]]:
    """Let a pixel attend to the frames before and after it, as far as walls move from one clip frame to the next.

    Three to seven pixels wide: less holds no context, more is hardly a neighbourhood.
    """
    gaps = clip.clip_length if span.closes else max(1, clip.clip_length - 1)
    step = wall_path_mm(temporal, span) / cell_mm / gaps
    side = int(np.clip(2 * math.ceil(step) + 1, 3, 7))
    window = (3 if clip.clip_length >= 3 else 1, side, side)
    reason = f"walls move {step:.1f} pixels from frame to frame"
    if temporal["labelled_movies"]["displacement_mm"] is None:
        reason = "how far walls move is not measured"
    return Choice(window, f"Neighbourhoods of {window[0]} frames and {side}x{side} pixels: {reason}.")
