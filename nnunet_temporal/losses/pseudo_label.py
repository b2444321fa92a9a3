"""Cross entropy and soft Dice against labels that are trusted more or less, pixel by pixel."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_SMOOTH = 1e-5
"""nnU-Net's; a class that is neither predicted nor labelled has a Dice of 1."""


class PseudoLabelLoss(nn.Module):
    """The weighted mean cross entropy plus one minus the weighted soft Dice.

    Both are normalised by the sum of the weights: a factor common to all weights of a batch changes nothing. Whoever
    wants a batch of doubtful labels to count less multiplies the loss.

    Source: nnU-Net's sum of cross entropy and Dice. The weight per clip and the choice of confident pixels are those of
    our reconstruction of MSSNet's dynamic offset correction, whose public sketch has no segmentation loss.
    """

    def __init__(self, *, exclusive: bool, batch_dice: bool) -> None:
        """Make the loss.

        Args:
            exclusive: Whether channels are exclusive labels, the background first: softmax, and a Dice without
                background. Otherwise they are regions: sigmoid, and a Dice of each.
            batch_dice: Whether the batch has one Dice per class. Otherwise each clip has one, and the clips are
                averaged by their sums of weights.
        """
        super().__init__()
        self.exclusive = exclusive
        self.batch_dice = batch_dice

    def forward(self, logits: Tensor, memberships: Tensor, weight: Tensor) -> Tensor:
        """Compute the loss in float32.

        Args:
            logits: (B, K, T, Y, X).
            memberships: (B, K, T, Y, X), 0..1.
            weight: (B, 1, T, Y, X), at least 0; 0 for ignored pixels.

        Returns:
            The loss; a zero with a graph if all pixels are ignored.
        """
        with torch.autocast(logits.device.type, enabled=False):
            logits, memberships, weight = logits.float(), memberships.float(), weight.float()
            if self.exclusive:
                losses = functional.cross_entropy(logits, memberships, reduction="none").unsqueeze(1)
                probabilities, memberships = logits.softmax(1)[:, 1:], memberships[:, 1:]
            else:
                losses = functional.binary_cross_entropy_with_logits(logits, memberships, reduction="none")
                # Summed over regions, as nnU-Net does beside an ignore label: both losses then weigh alike.
                losses, probabilities = losses.sum(1, keepdim=True), logits.sigmoid()
            return _weighted_mean(losses, weight) + self._dice_loss(probabilities, memberships, weight)

    def _dice_loss(self, probabilities: Tensor, memberships: Tensor, weight: Tensor) -> Tensor:
        summed = (0, 2, 3, 4) if self.batch_dice else (2, 3, 4)
        shared = (weight * probabilities * memberships).sum(summed)
        sizes = (weight * (probabilities + memberships)).sum(summed)
        losses = 1 - ((2 * shared + _SMOOTH) / (sizes + _SMOOTH)).mean(-1)  # one, or one per clip
        return losses if self.batch_dice else _weighted_mean(losses, weight.flatten(1).sum(1))


def _weighted_mean(losses: Tensor, weight: Tensor) -> Tensor:
    total = weight.sum()
    return (losses * weight).sum() / total.where(total > 0, 1)
