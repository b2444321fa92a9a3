"""The mathematics of attention to neighbourhoods, as functions on tensors.

Shape legend: B batch, T frame, Y X pixel, H head, D channel per head. Queries, keys and values are (B, T, Y, X, H, D).
A query attends to a window of fixed extents around its position. Near a border the window is shifted inward and keeps
its extent, as in neighbourhood attention: along an axis of length L it starts at clamp(i - k // 2, 0, L - k).

Queries of a tile share a patch of keys that covers all their windows, so that a few matrix products with a mask stand
for the gather of every window. Work and memory grow with the number of pixels, not with its square.

Source: the 3D neighbourhood attention in the development code of NCM-Net (Deng and Wu, IEEE TMI 2025).
"""

from typing import NamedTuple

import torch
from torch import Tensor

TILE = 4
"""Side of a tile of queries, in pixels. Larger tiles waste products on masked keys, smaller ones copy more keys."""

COARSE_EXTENT = 3
"""Side of the neighbourhood that a position reads at a coarser level, in cells of that level."""


class AxisTiling(NamedTuple):
    """How the queries along one axis of length L are cut into tiles, and which keys each tile sees.

    Attributes:
        query: (tiles, tile) positions of the queries.
        key: (tiles, patch) positions of the keys, on the level of the keys.
        offset: (tiles, tile, patch) position of the key relative to the query, as an index into a table of biases.
        inside: (tiles, tile, patch) bool, whether the key lies in the window of the query.
        source: (L,) where position i of the axis stands among the queries of all tiles.
    """

    query: Tensor
    key: Tensor
    offset: Tensor
    inside: Tensor
    source: Tensor


class FrameWindow(NamedTuple):
    """The frames in the windows of Q query frames along time.

    Attributes:
        frame: (B, Q, W) indices of the key frames.
        exists: (B, Q, W) bool, False where a sequence has fewer frames than the window.
        offset: (B, Q, W) frames from query to key, as an index into a table of biases.
    """

    frame: Tensor
    exists: Tensor
    offset: Tensor


def window_tiling(length: int, extent: int, device: torch.device) -> AxisTiling:
    """Tile an axis for windows on its own level.

    Args:
        length: L, positions along the axis.
        extent: Odd extent of the window; a shorter axis is seen as a whole.
        device: Where the tensors live.
    """
    window = min(extent, length)
    tiles = -(-length // TILE)
    tile = -(-length // tiles)
    patch = min(tile + window - 1, length)
    index = torch.arange(tiles, device=device)
    first = (index * tile).clamp(max=length - tile)
    query = first[:, None] + torch.arange(tile, device=device)
    key = (first - window // 2).clamp(0, length - patch)[:, None] + torch.arange(patch, device=device)
    start = (query - window // 2).clamp(0, length - window)[:, :, None]
    inside = (key[:, None] >= start) & (key[:, None] < start + window)
    position = torch.arange(length, device=device)
    of_tile = position // tile
    # Keys outside the window are masked; clamping only keeps their look-up within the table.
    offset = (key[:, None] - query[:, :, None] + extent - 1).clamp(0, 2 * extent - 2)
    return AxisTiling(query, key, offset, inside, of_tile * tile + position - first[of_tile])


def coarse_tiling(length: int, stride: int, device: torch.device) -> AxisTiling:
    """Tile an axis for 3-cell neighbourhoods on a level that is ``stride`` times coarser.

    Args:
        length: L, positions along the axis; the coarser level has ceil(L / stride) cells.
        stride: Positions per cell.
        device: Where the tensors live.
    """
    cells = -(-length // stride)
    window = min(COARSE_EXTENT, cells)
    cell = torch.arange(cells, device=device)
    query = (cell[:, None] * stride + torch.arange(stride, device=device)).clamp(max=length - 1)
    key = (cell - window // 2).clamp(0, cells - window)[:, None] + torch.arange(window, device=device)
    offset = (key - cell[:, None] + COARSE_EXTENT - 1)[:, None].expand(-1, stride, -1)
    return AxisTiling(
        query, key, offset, torch.ones_like(offset, dtype=torch.bool), torch.arange(length, device=device)
    )


def frame_window(valid: Tensor, extent: int, first: int, stop: int) -> FrameWindow:
    """Find the frames that the frames ``first`` .. ``stop`` - 1 see; padding frames are not counted as frames.

    Args:
        valid: (B, T) bool, False for padding frames.
        extent: Odd extent of the window, in frames; a shorter sequence is seen as a whole.
        first: First query frame.
        stop: One past the last query frame.
    """
    number = valid.sum(1)[:, None, None]
    rank = (valid.cumsum(1)[:, first:stop, None] - 1).clamp(min=0)
    steps = torch.arange(min(extent, valid.shape[1]), device=valid.device)
    seen = (rank - extent // 2).clamp(min=0).minimum((number - extent).clamp(min=0)) + steps
    by_rank = torch.argsort((~valid).long(), dim=1, stable=True)[:, None].expand(-1, stop - first, -1)
    # A sequence of padding only must see something; it sees its first frame.
    return FrameWindow(by_rank.gather(2, seen), seen < number.clamp(min=1), seen - rank + extent - 1)


def tiled_bias(table: Tensor, rows: AxisTiling, columns: AxisTiling) -> Tensor:
    """Look up the bias of every query and key of a tile; minus infinity outside the window.

    Args:
        table: (..., offsets along Y, offsets along X).
        rows: Tiling of the Y axis.
        columns: Tiling of the X axis.

    Returns:
        (..., tiles, queries of a tile, keys of a patch).
    """
    every = slice(None)
    along_y, along_x = (every, None, every, None, every, None), (None, every, None, every, None, every)
    # (..., tiles, queries and keys of Y, tiles, queries and keys of X).
    bias = pick(pick(table, -1, columns.offset), -4, rows.offset)
    bias = bias.movedim(-3, -5).movedim(-2, -3)
    inside = rows.inside[along_y] & columns.inside[along_x]
    bias = bias.masked_fill(~inside, -torch.inf)
    return bias.flatten(-6, -5).flatten(-4, -3).flatten(-2, -1)


def cut(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Cut (B, T, Y, X, H, D) maps into patches (B, T, H, tiles, positions of a patch, D)."""
    patches = maps.index_select(2, rows.flatten()).index_select(3, columns.flatten())
    patches = patches.unflatten(3, columns.shape).unflatten(2, rows.shape)
    return patches.permute(0, 1, 6, 2, 4, 3, 5, 7).flatten(5, 6).flatten(3, 4)


def assemble(patches: Tensor, rows: AxisTiling, columns: AxisTiling) -> Tensor:
    """Put tiles (B, T, H, tiles, queries of a tile, D) together to maps (B, T, Y, X, H, D)."""
    maps = patches.unflatten(4, (rows.query.shape[1], -1)).unflatten(3, (rows.query.shape[0], -1))
    maps = maps.permute(0, 1, 3, 5, 4, 6, 2, 7).flatten(4, 5).flatten(2, 3)
    return maps.index_select(2, rows.source).index_select(3, columns.source)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Attend within tiles.

    Args:
        query: (B, T, H, tiles, queries, D).
        key: (B, T, H, tiles, keys, D).
        value: (B, T, H, tiles, keys, D_v).
        bias: Added to the logits, broadcast to (B, T, H, tiles, queries, keys).

    Returns:
        The mean value (B, T, H, tiles, queries, D_v), and the logarithm of the sum of the exponentials of the logits
        (B, T, H, tiles, queries, 1), by which attention to several sets of keys can be joined.
    """
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2) + bias
    # One exponential serves both results; the largest logit cancels out of them, so it needs no gradient.
    largest = logits.detach().amax(-1, keepdim=True)
    weights = (logits - largest).exp()
    total = weights.sum(-1, keepdim=True)
    return weights @ value / total, largest + total.log()


def join(values: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Join attention to several sets of keys into the attention to all of them.

    Args:
        values: Mean value of each set, (..., D).
        weights: Logarithm of the sum of exponentials of each set, (..., 1); minus infinity for a set that is not there.
    """
    shares = torch.stack(weights).softmax(0)
    return (shares * torch.stack(values)).sum(0)


def take_frames(maps: Tensor, frame: Tensor) -> Tensor:
    """Pick frames (B, Q) of maps (B, T, ...): (B, Q, ...)."""
    batch, frames = maps.shape[:2]
    flat = frame + frames * torch.arange(batch, device=frame.device)[:, None]
    return pick(maps.flatten(0, 1), 0, flat)


def pick(table: Tensor, axis: int, index: Tensor) -> Tensor:
    """Pick positions along one axis, which the axes of ``index`` replace.

    Indexing with brackets gives the same, but on several CPU threads its gradients are summed in any order.
    """
    return table.index_select(axis, index.flatten()).unflatten(axis, index.shape)
