"""Masked attention to unreliable pixels, which corrects the decoder's logits there; after NCM-Net."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_temporal.networks.refinement_head import RefinementHead
from nnunet_temporal.networks.temporal_module import zero_initialise

UNRELIABLE_MARGIN = 0.2
"""Largest margin of an unreliable pixel: for two classes, probabilities of 0.4 to 0.6."""

LEAST_SHARE = 0.05
"""Share of the pixels that is unreliable at least: on coarse levels hardly any has so small a margin."""

LARGEST_SHARE = 0.5
"""Share of the pixels that is unreliable at most; in an untrained network nearly all would be."""

_LARGEST_LOGIT = 1e4
_LEVELS = 3
_CORRECTED_STAGE = 2


def margins(logits: Tensor, size: Sequence[int], exclusive: Tensor) -> Tensor:
    """Measure how clearly the cells of a coarser grid are decided, from the average logits in them; without gradient.

    Args:
        logits: (N, K, Y, X); infinite ones count as very large.
        size: (cells along Y, cells along X).
        exclusive: Bool scalar. True: classes exclude each other, and the margin is that of the largest over the second
            largest softmax probability, the same for all classes. False: regions, with the margin |2 p - 1| of each.

    Returns:
        (N, K, *size) in 0..1, float32.
    """
    bounded = logits.detach().float().clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)
    cells = functional.adaptive_avg_pool2d(bounded, (size[0], size[1]))
    of_regions = (2 * torch.sigmoid(cells) - 1).abs()
    if logits.shape[1] == 1:
        return of_regions
    first, second = cells.softmax(1).topk(2, 1).values.split(1, 1)
    return torch.where(exclusive, first - second, of_regions)


def unreliable(margin: Tensor) -> Tensor:
    """Mark the pixels with a small margin, within ``LEAST_SHARE`` and ``LARGEST_SHARE`` of all.

    Args:
        margin: (..., P), P pixels.

    Returns:
        (..., P) bool, with at least one True each.
    """
    pixels = margin.shape[-1]
    least = math.ceil(LEAST_SHARE * pixels)
    most = max(least, math.floor(LARGEST_SHARE * pixels))
    ordered, pixel = margin.sort(dim=-1, stable=True)
    place = torch.arange(pixels, device=margin.device)
    chosen = (place < least) | ((ordered <= UNRELIABLE_MARGIN) & (place < most))
    return torch.zeros_like(chosen).scatter(-1, pixel, chosen)


class QueryUpdate(nn.Module):
    """Let the class queries attend to visible pixels and to each other; post-norm, as in NCM-Net's code."""

    def __init__(self, channels: int, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.pixels = nn.Conv2d(channels, width, 1)
        self.position = nn.Linear(2, width)
        self.cross_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.self_attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.feed_forward = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))

    def forward(self, queries: Tensor, features: Tensor, visible: Tensor) -> Tensor:
        """Update the queries from one level.

        Args:
            queries: (N, K, width).
            features: (N, C, Y, X).
            visible: (N, K, Y * X) bool, the pixels that each query may attend to.

        Returns:
            (N, K, width).
        """
        values = self.pixels(features).flatten(2).transpose(1, 2)
        keys = values + self.position(_coordinates(features))
        blocked = ~visible.repeat_interleave(self.heads, 0)
        seen, _ = self.cross_attention(queries, keys, values, attn_mask=blocked, need_weights=False)
        queries = self.norms[0](queries + seen)
        told, _ = self.self_attention(queries, queries, queries, need_weights=False)
        queries = self.norms[1](queries + told)
        return self.norms[2](queries + self.feed_forward(queries))


class UnreliablePixelAttention(RefinementHead):
    """One query per class gathers what the unreliable pixels show, and corrects the logits there and nowhere else.

    The queries pass the decoder's three coarsest levels, coarse to fine. A correction is the product of a query and a
    pixel's features at stride 4, weighted by 1 - margin. Which pixels are unreliable is decided from the decoder's own
    full-resolution logits, averaged over each level's cells: its coarsest auxiliary outputs are hardly trained.

    Source: NCM-Net (Deng and Wu, IEEE TMI 2025), unreliable-pixel masked attention, in whose code pixels with
    probabilities of 0.4 to 0.6 are visible to a single query; the margin for any number of classes, the bounds on the
    share of visible pixels and the correction of logits are ours (section 3.8 RECON-N of our reading of it).
    """

    exclusive: Tensor

    def __init__(self, channels: tuple[int, ...], classes: int, *, heads: int = 4, width: int = 128) -> None:
        """Build the head.

        Args:
            channels: Channels of the decoder's stages, full resolution first.
            classes: Channels K of the logits.
            heads: Attention heads.
            width: Channels of a query, a multiple of ``heads``.
        """
        super().__init__()
        self.register_buffer("exclusive", torch.tensor(True))
        self.corrected = min(_CORRECTED_STAGE, len(channels) - 1)
        self.queries = nn.Parameter(torch.randn(classes, width) * width**-0.5)
        self.updates = nn.ModuleList(QueryUpdate(level, width, heads) for level in channels[: -_LEVELS - 1 : -1])
        self.pixels = nn.Conv2d(channels[self.corrected], width, 1)
        self.classifier = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.GELU())
        self.projection = nn.Linear(width, width)
        zero_initialise(self.projection)

    def forward(self, features: list[Tensor], logits: Tensor) -> Tensor:
        """Correct the logits of unreliable pixels; see ``RefinementHead``."""
        queries = self.queries.expand(len(logits), -1, -1)
        for update, level in zip(self.updates, features[::-1], strict=False):
            margin = margins(logits, level.shape[2:], self.exclusive)
            queries = update(queries, level, unreliable(margin.flatten(2)))
        level = features[self.corrected]
        margin = margins(logits, level.shape[2:], self.exclusive)
        weight = unreliable(margin.flatten(2)).view_as(margin) * (1 - margin)
        kernels = self.projection(self.classifier(queries)) * queries.shape[-1] ** -0.5
        correction = torch.einsum("nkc,ncyx->nkyx", kernels, self.pixels(level))
        size = logits.shape[2:]
        # Nearest for the weight: a reliable cell must not be touched by its neighbours' correction.
        weight = functional.interpolate(weight, size, mode="nearest")
        correction = weight * functional.interpolate(correction, size, mode="bilinear")
        return logits + correction.to(logits.dtype)


def _coordinates(features: Tensor) -> Tensor:
    """List the positions (Y * X, 2) of a feature map's pixels, from -1 to 1 along each axis."""
    axes = (torch.linspace(-1, 1, size, dtype=features.dtype, device=features.device) for size in features.shape[2:])
    return torch.cartesian_prod(*axes)
