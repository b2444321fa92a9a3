"""Cross entropy of the hardest pixels, more and more of it as training goes on."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

PLAIN_UNTIL = 0.13
"""Share of the training in which every pixel counts; STCN's 20,000 of 150,000 iterations."""
HARDEST_FROM = 0.47
"""Share of the training after which ``SMALLEST_FRACTION`` of the pixels count; STCN's 70,000 of 150,000."""
SMALLEST_FRACTION = 0.15


def hardest_fraction(progress: float) -> float:
    """Return which fraction of the pixels of an image counts at a moment of the training.

    Args:
        progress: Share of the training that is done, 0..1.

    Source: schedule of STCN, which CSTM names; its iterations as shares, so that it fits trainings of any length.
    """
    ramp = (progress - PLAIN_UNTIL) / (HARDEST_FROM - PLAIN_UNTIL)
    return SMALLEST_FRACTION + (1 - SMALLEST_FRACTION) * (1 - min(max(ramp, 0.0), 1.0))


def mean_of_hardest(losses: Tensor, counted: Tensor, fraction: float) -> Tensor:
    """Average the largest losses of each image, then the images.

    Args:
        losses: (I, P), one row per image.
        counted: (I, P) bool, False for pixels that nobody labelled.
        fraction: Fraction of an image's counted pixels, rounded up, that enter its mean.

    Returns:
        The mean; images without a counted pixel have no part in it, and it is zero if no image has one.
    """
    numbers = (counted.sum(1, keepdim=True) * fraction).ceil()
    losses = torch.where(counted, losses, torch.zeros_like(losses))
    if fraction < 1:
        # A loss is never negative: pixels that do not count rank behind all that do.
        ranked = torch.where(counted, losses, torch.full_like(losses, -1)).topk(math.ceil(losses.shape[1] * fraction))
        is_hardest = torch.arange(ranked.values.shape[1], device=losses.device) < numbers
        losses = torch.where(is_hardest, ranked.values, torch.zeros_like(ranked.values))
    means = losses.sum(1, keepdim=True) / numbers.clamp(min=1)
    return means.sum() / (numbers > 0).sum().clamp(min=1)


class BootstrappedCrossEntropy(nn.Module):
    """Cross entropy over the hardest pixels of each frame, in nnU-Net's form for classes and for regions.

    Source: bootstrapped cross entropy of CSTM, "following MiVOS/STCN"; the ignore label is nnU-Net's.
    """

    def __init__(self, progress: Callable[[], float], *, ignore_label: int | None, has_regions: bool) -> None:
        """Make the loss.

        Args:
            progress: Tells the share of the training that is done, 0..1.
            ignore_label: Label of pixels that nobody labelled, None if every pixel counts.
            has_regions: Whether logits are of regions. Their target's last channel then marks ignored pixels, if there
                is an ignore label.
        """
        super().__init__()
        self.progress = progress
        self.ignore_label = ignore_label
        self.has_regions = has_regions

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            logits: (B, K, T, Y, X).
            target: Labels (B, 1, T, Y, X), or regions (B, K or K + 1, T, Y, X).
        """
        with torch.autocast(logits.device.type, enabled=False):
            losses, counted = self._pixels(logits.float(), target)  # (B, T, Y, X)
            return mean_of_hardest(
                losses.flatten(0, 1).flatten(1), counted.flatten(0, 1).flatten(1), hardest_fraction(self.progress())
            )

    def _pixels(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if self.has_regions:
            ignored = target[:, -1].bool() if self.ignore_label is not None else torch.zeros_like(target[:, 0]).bool()
            regions = target[:, : logits.shape[1]].to(logits.dtype)
            return functional.binary_cross_entropy_with_logits(logits, regions, reduction="none").mean(1), ~ignored
        labels = target[:, 0].long()
        counted = labels != self.ignore_label if self.ignore_label is not None else torch.ones_like(labels).bool()
        return functional.cross_entropy(logits, labels.where(counted, 0), reduction="none"), counted


class SumOfLosses(nn.Module):
    """Adds up losses of the same logits and target."""

    def __init__(self, *losses: nn.Module) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the sum; shapes as the losses ask for."""
        return torch.stack([loss(logits, target) for loss in self.losses]).sum()
