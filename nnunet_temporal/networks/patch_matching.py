"""The mathematics of patch-level memory matching, as functions on tensors.

Shape legend: B batch, T frame in memory, C channel of keys or values, Y X pixel of a feature map, P side of a patch,
N patches of a frame, M patches kept of the whole memory. Patches are P x P windows half a patch apart, row by row;
patch n of memory frame t has index t N + n. Callers see to float32: these sums overflow in float16.

Source: CSTM (WACV 2025, arXiv 2410.23191), patch-level memory matching, with the affinity of STCN. The paper writes
the softmax of a plus distance, which prefers what is least alike; here it is the negative squared distance.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from nnunet_temporal.errors import InputError


class BestPatches(NamedTuple):
    """Which patches of the memory each patch of a frame reads from.

    Attributes:
        indices: (B, N, M) int64, indices among the T * N patches of the memory.
        found: (B, N, M) bool, False where the memory holds fewer than M patches.
    """

    indices: Tensor
    found: Tensor


def check_tiling(height: int, width: int, patch: int) -> None:
    """Make sure that patches half a patch apart cover every pixel of a feature map.

    Raises:
        InputError: The patch is odd, or does not tile the map.
    """
    if patch < 2 or patch % 2:
        raise InputError(f"matching_patch must be even, because patches lie half a patch apart, got {patch}")
    if any(size < patch or size % (patch // 2) for size in (height, width)):
        raise InputError(
            f"patches of {patch} x {patch} pixels, {patch // 2} apart, do not tile a feature map of {height} x {width} "
            f"(y, x): its sides must be multiples of {patch // 2}, {patch} or more. Change matching_patch or "
            "memory_stages under 'temporal' in the plans, or feed images whose sides fit."
        )


def affinity(query: Tensor, memory: Tensor) -> Tensor:
    """Compare keys: 2 q.m - |m|^2, the negative squared distance up to |q|^2, which a softmax over memory cancels.

    Args:
        query: (..., Q, C).
        memory: (..., R, C).

    Returns:
        (..., Q, R), the larger the more alike.
    """
    return 2 * query @ memory.transpose(-1, -2) - memory.square().sum(-1).unsqueeze(-2)


def unfold_patches(maps: Tensor, patch: int) -> Tensor:
    """Cut maps (B, C, Y, X) into patches (B, N, C, P * P).

    Raises:
        InputError: The patches do not tile the maps.
    """
    check_tiling(maps.shape[-2], maps.shape[-1], patch)
    patches = functional.unfold(maps, patch, stride=patch // 2)  # (B, C * P * P, N)
    return patches.unflatten(1, (maps.shape[1], patch * patch)).permute(0, 3, 1, 2)


def fold_patches(patches: Tensor, size: tuple[int, int], patch: int) -> Tensor:
    """Put patches (B, N, C, P * P) back onto maps (B, C, Y, X) of the given size; overlaps are averaged."""
    columns = patches.flatten(2).transpose(1, 2)  # (B, C * P * P, N)
    ones = torch.ones_like(columns[:1, : patch * patch])
    coverage = functional.fold(ones, size, patch, stride=patch // 2)
    return functional.fold(columns, size, patch, stride=patch // 2) / coverage


@torch.no_grad()
def best_patches(query_keys: Tensor, memory_keys: Tensor, written: Tensor, patch: int, number: int) -> BestPatches:
    """Find the patches of the memory that are most like each patch of a frame, pixel by pixel.

    All frames of the memory compete in one pool. The choice has no gradient.

    Args:
        query_keys: (B, C, Y, X).
        memory_keys: (B, T, C, Y, X).
        written: (B, T) bool, False for frames that must not be read.
        patch: Side P of a patch.
        number: Patches M to keep; all of them if the memory has no more.

    Source: CSTM, patch scores at the coarse scale.
    """
    queries = unfold_patches(query_keys, patch).flatten(2)
    memory = unfold_patches(memory_keys.flatten(0, 1), patch)
    memory = memory.flatten(2).unflatten(0, memory_keys.shape[:2]).flatten(1, 2)  # (B, T * N, C * P * P)
    readable = written.repeat_interleave(queries.shape[1], 1)[:, None]  # (B, 1, T * N)
    scores = affinity(queries, memory).masked_fill(~readable, -math.inf)
    best = scores.topk(min(number, memory.shape[1]), -1)
    return BestPatches(best.indices, best.values > -math.inf)


def read_patches(
    query_keys: Tensor, memory_keys: Tensor, memory_values: Tensor, best: BestPatches, patch: int
) -> Tensor:
    """Read a frame's values out of its best patches.

    Every pixel of a patch compares itself with all M P^2 pixels of the patches it reads from, in one softmax of
    (2 q.m - |m|^2) / sqrt(C). What overlapping patches read for a pixel is averaged.

    Args:
        query_keys: (B, C, Y, X).
        memory_keys: (B, T, C, Y, X).
        memory_values: (B, T, C_v, Y, X).
        best: Patches to read from; of this scale, or of one with half the side, found with patches of half the side.
        patch: Side P of a patch.

    Returns:
        (B, C_v, Y, X); zero where nothing is found.

    Raises:
        InputError: The patches do not tile the maps.

    Source: CSTM, pixel scores inside the matched patches, and shared indices at the fine scale.
    """
    queries = unfold_patches(query_keys, patch).transpose(-1, -2)  # (B, N, P * P, C)
    if queries.shape[1] != best.indices.shape[1]:
        raise InputError(
            f"{queries.shape[1]} patches of {patch} x {patch} pixels on a map of {tuple(query_keys.shape[-2:])}, but "
            f"{best.indices.shape[1]} were matched: the sides of the fine map must be exactly twice those of the "
            "coarse one. Feed images whose sides can be halved without rest down to the memory stage."
        )
    keys, values = (_gather(maps, best.indices, patch) for maps in (memory_keys, memory_values))
    scores = affinity(queries, keys) / math.sqrt(queries.shape[-1])  # (B, N, P * P, M * P * P)
    found = best.found.repeat_interleave(patch * patch, -1).unsqueeze(2)
    # Not -inf: where nothing at all is found, the softmax and its gradient would not be finite.
    weights = scores.masked_fill(~found, torch.finfo(scores.dtype).min).softmax(-1) * found
    read = (weights @ values).transpose(-1, -2)  # (B, N, C_v, P * P)
    return fold_patches(read, (query_keys.shape[-2], query_keys.shape[-1]), patch)


def _gather(maps: Tensor, index: Tensor, patch: int) -> Tensor:
    """Pick patches (B, N, M) of maps (B, T, C, Y, X), pixel by pixel: (B, N, M * P * P, C)."""
    batch, frames = maps.shape[:2]
    patches = unfold_patches(maps.flatten(0, 1), patch).transpose(-1, -2)  # (B * T, N, P * P, C)
    rows = frames * patches.shape[1]
    index = index + rows * torch.arange(batch, device=index.device)[:, None, None]
    chosen = patches.flatten(0, 1).index_select(0, index.flatten())
    return chosen.unflatten(0, index.shape).flatten(2, 3)
