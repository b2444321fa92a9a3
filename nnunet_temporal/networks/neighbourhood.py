"""Neighbourhood correlation over a spatio-temporal window and coarser levels, after NCM-Net."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_temporal.networks import neighbourhood_ops as ops
from nnunet_temporal.networks.temporal_module import TemporalModule, zero_initialise

COARSER_STRIDES = (2, 4)
"""Levels that a position reads besides its own, as multiples of its stride."""


class NeighbourhoodAttention(nn.Module):
    """Each position attends to a window of frames and pixels, and to coarser neighbourhoods in its own frame.

    One softmax runs over the window and over 3x3 cells of each coarser level, which is the frame's average pooled
    keys and values; pooling and projecting commute. Every kind of key has its own learned relative position bias.

    Source: NCM-Net (Deng and Wu, IEEE TMI 2025): correlations with spatio-temporal neighbourhoods and across scales.
    Its development code follows the window with deformable attention; the fixed coarse neighbourhoods are ours.
    """

    def __init__(self, width: int, window: tuple[int, int, int], heads: int, key_size: int) -> None:
        """Build the attention on tokens of ``width`` channels, a multiple of ``heads``."""
        super().__init__()
        self.window, self.heads = window, heads
        self.query = nn.Linear(width, heads * key_size)
        self.key = nn.Linear(width, heads * key_size)
        self.value = nn.Linear(width, width)
        self.merge = nn.Linear(width, width)
        self.window_bias = nn.Parameter(torch.zeros(2 * window[0] - 1, heads, 2 * window[1] - 1, 2 * window[2] - 1))
        offsets = 2 * ops.COARSE_EXTENT - 1
        self.coarse_bias = nn.Parameter(torch.zeros(len(COARSER_STRIDES), heads, offsets, offsets))

    def forward(self, tokens: Tensor, valid: Tensor, first: int, stop: int) -> Tensor:
        """Let the frames ``first`` .. ``stop`` - 1 of the tokens attend.

        Args:
            tokens: (B, T, Y, X, width).
            valid: (B, T) bool, False for padding frames, which nobody attends to.
            first: First frame that attends.
            stop: One past the last.

        Returns:
            (B, stop - first, Y, X, width), in the type of the weights: half precision is too coarse for exponentials.
        """
        with torch.autocast(tokens.device.type, enabled=False):
            tokens = tokens.to(self.query.weight.dtype)
            query, key, value = (
                projection(part).unflatten(-1, (self.heads, -1))
                for projection, part in ((self.query, tokens[:, first:stop]), (self.key, tokens), (self.value, tokens))
            )
            near, near_weights = self._attend_to_window(
                query, key, value, ops.frame_window(valid, self.window[0], first, stop)
            )
            far, far_weights = self._attend_to_coarser_levels(query, key[:, first:stop], value[:, first:stop])
            return self.merge(ops.join(near + far, near_weights + far_weights).flatten(-2))

    def _attend_to_window(
        self, query: Tensor, key: Tensor, value: Tensor, frames: ops.FrameWindow
    ) -> tuple[list[Tensor], list[Tensor]]:
        rows, columns = (ops.window_tiling(query.shape[axis], self.window[axis - 1], query.device) for axis in (2, 3))
        bias = ops.tiled_bias(self.window_bias, rows, columns)
        query = ops.cut(query, rows.query, columns.query)
        key, value = (ops.cut(part, rows.key, columns.key) for part in (key, value))
        values, weights = [], []
        for frame, exists, offset in zip(*(part.unbind(-1) for part in frames), strict=True):
            picked = (ops.take_frames(key, frame), ops.take_frames(value, frame), ops.pick(bias, 0, offset))
            mean, weight = ops.attend(query, *picked)
            weight = weight.masked_fill(~exists[..., None, None, None, None], -torch.inf)
            values.append(ops.assemble(mean, rows, columns))
            weights.append(ops.assemble(weight, rows, columns))
        return values, weights

    def _attend_to_coarser_levels(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        values, weights = [], []
        for stride, table in zip(COARSER_STRIDES, self.coarse_bias, strict=True):
            rows, columns = (ops.coarse_tiling(query.shape[axis], stride, query.device) for axis in (2, 3))
            mean, weight = ops.attend(
                ops.cut(query, rows.query, columns.query),
                ops.cut(_pool(key, stride), rows.key, columns.key),
                ops.cut(_pool(value, stride), rows.key, columns.key),
                ops.tiled_bias(table, rows, columns),
            )
            values.append(ops.assemble(mean, rows, columns))
            weights.append(ops.assemble(weight, rows, columns))
        return values, weights


class Held(NamedTuple):
    """What a layer keeps of a stream.

    Attributes:
        tokens: (B, W, Y, X, width), frames that later frames will look back at, and frames without an answer.
        valid: (B, W) bool.
        answered: How many of these frames, the first ones, have their answer.
    """

    tokens: Tensor
    valid: Tensor
    answered: int


class NeighbourhoodLayer(nn.Module):
    """Neighbourhood attention and a feed-forward network, both pre-norm and residual."""

    def __init__(self, width: int, window: tuple[int, int, int], heads: int, key_size: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = NeighbourhoodAttention(width, window, heads, key_size)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(
        self, tokens: Tensor, valid: Tensor, held: Held | None, last: bool
    ) -> tuple[Tensor, Tensor, Held | None]:
        """Take the next frames and answer for those whose window is complete.

        Args:
            tokens: (B, T, Y, X, width).
            valid: (B, T) bool.
            held: What the call for the preceding frames returned.
            last: Whether the sequence ends with these frames.

        Returns:
            Tokens (B, A, Y, X, width) and validity (B, A) of the answered frames, and what to hold; None at the end.
        """
        first, stop = 0, tokens.shape[1]
        if held is not None:
            tokens, valid = torch.cat((held.tokens, tokens), 1), torch.cat((held.valid, valid), 1)
            first, stop = held.answered, tokens.shape[1]
        if not last:
            stop = _frames_with_whole_window(valid, self.attention.window[0])
        out = tokens[:, first:stop] + self.attention(self.attention_norm(tokens), valid, first, stop)
        out = out + self.feed_forward(out)
        after = None if last else _hold(tokens, valid, stop, self.attention.window[0])
        return out, valid[:, first:stop], after


class NeighbourhoodCorrelation(TemporalModule):
    """Layers of neighbourhood attention over a centred window of frames; an answer waits for half a window per layer.

    Windows that would reach beyond the first or last frame are shifted inward, so the first frames wait for one whole
    window. Padding frames are not counted as frames. What lies ahead is seen in any case: nothing to watch first.

    Source: the neck of NCM-Net (Deng and Wu, IEEE TMI 2025; section 3.8 RECON-N of our reading of it). Its code shares
    one layer norm before and after the feed-forward network and adds a second skip; here layers are plain pre-norm.
    """

    def __init__(
        self,
        channels: int,
        *,
        window: tuple[int, int, int] = (3, 5, 5),
        heads: int = 4,
        key_size: int = 32,
        value_size: int = 32,
        layers: int = 2,
    ) -> None:
        """Build the module for features of ``channels`` channels.

        Args:
            channels: Feature channels C.
            window: Odd extents (T, Y, X) of the window; axes that are shorter are seen as a whole.
            heads: Number of heads.
            key_size: Query and key channels per head.
            value_size: Value channels per head; the tokens have ``heads`` times as many.
            layers: Number of layers.

        Raises:
            ValueError: An extent of the window is even or not positive.
        """
        super().__init__()
        if any(extent < 1 or extent % 2 == 0 for extent in window):
            raise ValueError(f"window must be three odd extents (T, Y, X), got {window}")
        width = heads * value_size
        self.delay = layers * (window[0] // 2)
        self.reduce = nn.Linear(channels, width)
        self.layers = nn.ModuleList(NeighbourhoodLayer(width, window, heads, key_size) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.projection = nn.Linear(width, channels)
        zero_initialise(self.projection)

    def forward(
        self, features: Tensor, state: tuple | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, tuple | None]:
        """Let each frame see its neighbours; see ``TemporalModule``."""
        return self.stream(features, state, valid, last=True)

    def stream(
        self, features: Tensor, state: tuple | None, valid: Tensor | None, *, last: bool
    ) -> tuple[Tensor, tuple | None]:
        """Answer for the frames whose windows are complete; see ``TemporalModule``.

        The state is the features that wait for an answer, and what each layer holds. None after the last frames, so
        that whatever follows starts a new sequence. Padding frames within a stream lengthen what is held.
        """
        waiting, held = state or (features[:, :0], [None] * len(self.layers))
        waiting = torch.cat((waiting, features), 1)
        tokens = self.reduce(features.movedim(2, -1))
        valid = features.new_ones(features.shape[:2], dtype=torch.bool) if valid is None else valid
        after = []
        for layer, before in zip(self.layers, held, strict=True):
            tokens, valid, kept = layer(tokens, valid, before, last)
            after.append(kept)
        answered = tokens.shape[1]
        out = waiting[:, :answered] + self.projection(self.norm(tokens)).movedim(-1, 2)
        return out, None if last else (waiting[:, answered:].clone(), after)


def _pool(maps: Tensor, stride: int) -> Tensor:
    """Average (B, T, Y, X, H, D) maps over cells of ``stride`` pixels; cells at the end may be smaller."""
    flat = maps.flatten(4).flatten(0, 1).movedim(-1, 1)
    pooled = functional.avg_pool2d(flat, stride, ceil_mode=True)
    return pooled.movedim(1, -1).unflatten(0, maps.shape[:2]).unflatten(-1, maps.shape[4:])


def _frames_with_whole_window(valid: Tensor, extent: int) -> int:
    """Count the first frames whose windows lie within the frames seen so far, in every sequence of the batch."""
    seen = valid.cumsum(1)
    number = valid.sum(1, keepdim=True)
    return int(((number - seen >= extent // 2) & (number >= extent)).all(0).sum())


def _hold(tokens: Tensor, valid: Tensor, answered: int, extent: int) -> Held:
    """Keep the frames without an answer and, before them, all that their windows can reach."""
    seen = functional.pad(valid.cumsum(1), (1, 0))[:, : answered + 1]
    reachable = (seen[:, -1:] - seen >= extent - 1).all(0)
    start = max(int(reachable.sum()) - 1, 0)
    # Copies, because views would keep all frames so far alive.
    return Held(tokens[:, start:].clone(), valid[:, start:].clone(), answered - start)
