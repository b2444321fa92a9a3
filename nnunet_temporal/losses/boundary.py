"""The cross-frame boundary constraint: contours move smoothly from frame to frame, whether labelled or not.

Shape legend: B clip, K class, W consecutive frame, Y X pixel.

Source: NCM-Net (Deng and Wu, IEEE TMI 2025) names cross-frame boundary constraints on its predictions; their form is
not public. This one is ours, from section 3.8 (RECON-N) of our reading of it, with an exact distance.
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

_RIM = 0.5
"""Distance between a contour and the centres of the pixels beside it."""

_LARGEST_LIMIT = 179
"""Pixels; squares of larger distances overflow 16-bit integers, which are much faster than float32 on a CPU."""

_PULLED = {
    "interpolated": [(slice(1, -1), slice(None, -2), slice(2, None))],
    "adjacent": [
        (slice(None, -1), slice(1, None), slice(1, None)),
        (slice(1, None), slice(None, -1), slice(None, -1)),
    ],
}
"""Which frames are pulled, and the two frames that each is pulled towards the mean of."""


class BoundaryBand(NamedTuple):
    """How far a contour may stray, in pixels.

    Attributes:
        dead_zone: Distance from the reference contour up to which a pixel costs nothing.
        limit: Distance beyond which a pixel costs no more.
    """

    dead_zone: float
    limit: float

    @classmethod
    def of_image(cls, size: Sequence[int]) -> "BoundaryBand":
        """Scale 2 and 10 pixels of an image of 256 pixels to the shorter side of an image, at least to 1 and 5.

        A mask says only to about half a pixel where its contour is. With a dead zone as small as that, the steps of a
        mask's edge would count as motion.

        Args:
            size: (Y, X) in pixels.
        """
        scale = max(min(size) / 256, 0.5)
        return cls(2 * scale, 10 * scale)


def signed_distance(masks: Tensor, limit: float) -> Tensor:
    """Measure how far pixel centres are from the contour of a mask, which runs midway between pixels.

    Exact within the limit: the distance of a pixel to the nearest one of the other side, less half a pixel.

    Args:
        masks: (..., Y, X) bool.
        limit: Largest distance, in pixels; a mask without contour is this far away everywhere.

    Returns:
        (..., Y, X) float32 in pixels, positive outside, negative inside, clipped to +-``limit``.

    Raises:
        ValueError: The limit is larger than 179 pixels.
    """
    if limit > _LARGEST_LIMIT:
        raise ValueError(f"distances are measured up to {_LARGEST_LIMIT} pixels, got a limit of {limit}")
    steps = math.ceil(limit + _RIM)
    to_mask, to_rest = _nearest_squared(torch.stack((masks, ~masks)), steps).float().sqrt()
    return torch.where(masks, _RIM - to_rest, to_mask - _RIM).clamp(-limit, limit)


def _nearest_squared(members: Tensor, steps: int) -> Tensor:
    """Return the squared distance (..., Y, X) of each pixel to the nearest member, at most ``steps`` squared.

    A square is the sum of the first odd numbers: step k along an axis costs 2 k - 1, so that d steps cost d squared.
    """
    squared = (~members).short() * steps**2
    for axis in (-1, -2):
        inner = squared.shape[axis] - 1
        for step in range(1, steps):
            for here, there in ((0, 1), (1, 0)):
                target = squared.narrow(axis, here, inner)
                torch.minimum(target, squared.narrow(axis, there, inner) + (2 * step - 1), out=target)
    return squared


class CrossFrameBoundaryLoss(nn.Module):
    """Pulls the contours of each frame towards where the neighbouring frames say they are, class by class.

    Neighbours' signed distances are averaged to a reference r, in pixels. A pixel of probability p costs
    relu(|r| - dead zone) / limit x |p - 1/2| where r > 0 and p > 1/2, or r < 0 and p < 1/2. The costs of a class in a
    clip are summed and divided by the length of the reference contours, in pixels; classes and clips are averaged.

    The reference is data: no gradient runs through it. ``interpolated`` takes it from both neighbours, and motion at
    constant speed is free. ``adjacent`` takes it from each neighbour in turn, and motion is free within the dead zone.
    Interpolation holds for structures that move less than half their thickness plus the dead zone per frame; thinner or
    faster ones leave no pixel that both neighbours know.

    Source: see the module.
    """

    def __init__(
        self, band: BoundaryBand, *, exclusive: bool, reference: Literal["interpolated", "adjacent"] = "interpolated"
    ) -> None:
        """Make the loss.

        Args:
            band: Dead zone and limit.
            exclusive: Whether classes exclude each other; their first is the background then, and has no part.
            reference: Where a frame's contours are expected.

        Raises:
            ValueError: The band is not 0 <= dead zone < limit or the limit below a pixel, or the reference is neither
                of the two.
        """
        super().__init__()
        if not 0 <= band.dead_zone < band.limit or band.limit < 1:
            raise ValueError(f"the dead zone must be at least 0, the limit larger and at least 1 pixel, got {band}")
        if reference not in _PULLED:
            raise ValueError(f"reference must be one of {', '.join(_PULLED)}, got {reference!r}")
        self.band = band
        self.exclusive = exclusive
        self.pulled = _PULLED[reference]

    def forward(
        self,
        probabilities: Tensor,
        memberships: Tensor,
        labelled: Tensor,
        valid: Tensor,
        counted: Tensor | None = None,
    ) -> Tensor:
        """Compute the loss.

        A class has no part where a neighbour does not show its contour: it may have appeared or vanished.

        Args:
            probabilities: (B, K, W, Y, X) of consecutive frames.
            memberships: (B, K, W, Y, X), 1 inside and 0 outside, negative where nobody knows. Read in labelled frames.
            labelled: (B, W) bool, frames whose memberships are the truth: others are pulled to it, they are not pulled.
            valid: (B, W) bool, False for padding frames.
            counted: (B, 1, W, Y, X) bool, False for pixels that are left out; None: all count.

        Returns:
            The mean; zero, with a graph, if no frame can be pulled.
        """
        with torch.autocast(probabilities.device.type, enabled=False):
            foreground = slice(1 if self.exclusive else 0, None)
            p, truth = probabilities[:, foreground].float(), memberships[:, foreground]
            is_known = labelled[:, None, :, None, None] & (truth >= 0)
            distance = signed_distance(torch.where(is_known, truth, p.detach()) > 0.5, self.band.limit)
            pullable = (valid & ~labelled)[:, None]
            pixels = torch.ones_like(p[:, :1]).bool() if counted is None else counted
            costs, lengths = self._costs(p, distance, valid[:, None], pullable, pixels)
            return (costs / lengths.clamp(min=1)).sum() / (lengths > 0).sum().clamp(min=1)

    def _costs(
        self, p: Tensor, distance: Tensor, valid: Tensor, pullable: Tensor, pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the summed costs (B, K), and the length of the contours they refer to (B, K), in pixels."""
        # Half the pixels on both sides of the contour; zero exactly if the frame shows no contour.
        length = (distance.abs() <= _RIM).sum((3, 4)) / 2
        shown = (length > 0) & valid
        costs, lengths = [], []
        for frame, one, other in self.pulled:
            applies = shown[:, :, one] & shown[:, :, other] & pullable[:, :, frame]
            reference = (distance[:, :, one] + distance[:, :, other]) / 2
            pull = functional.softshrink(reference, self.band.dead_zone) / self.band.limit
            cost = functional.relu(pull * (p[:, :, frame] - 0.5))
            cost = torch.where(applies[..., None, None] & pixels[:, :, frame], cost, torch.zeros_like(cost))
            costs.append(cost.sum((2, 3, 4)))
            lengths.append(torch.where(applies, (length[:, :, one] + length[:, :, other]) / 2, 0).sum(2))
        return torch.stack(costs).sum(0), torch.stack(lengths).sum(0)
