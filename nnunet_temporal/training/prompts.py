"""Masks of first frames, as a network that remembers masks is given them in training."""

import torch
from torch import Tensor

from nnunet_temporal.losses.memberships import memberships_of

UNKNOWN = -1.0
"""Marks pixels whose mask is not given: the network's own prediction counts there."""


def first_masks(target: Tensor, prompted: Tensor, outputs: int, *, ignore_label: int, has_regions: bool) -> Tensor:
    """Take the masks of the first decoded frames from the targets of a batch.

    Args:
        target: Labels (B, 1, D, Y, X), or regions (B, K + 1, D, Y, X) whose last channel marks ignored pixels.
        prompted: (B,) bool, False for clips whose mask is not given away.
        outputs: Output channels K of the network.
        ignore_label: Label of pixels that nobody labelled.
        has_regions: Whether the target consists of regions.

    Returns:
        (B, K, Y, X) float32 of 0 and 1, ``UNKNOWN`` where nothing is given.
    """
    first = target[:, :, 0]
    if has_regions:
        known, masks = ~first[:, -1:].bool(), first[:, :-1].float()
    else:
        masks, known = memberships_of(first, outputs, ignore_label=ignore_label)
    return torch.where(known & prompted[:, None, None, None], masks, UNKNOWN)
