"""What is known of windows of unlabelled frames, and the losses on what a network makes of them."""

from typing import NamedTuple

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn
from torch.nn import functional

from nnunet_temporal.losses.boundary import BoundaryBand, CrossFrameBoundaryLoss
from nnunet_temporal.losses.contrastive import ContrastiveLoss
from nnunet_temporal.losses.memberships import memberships_of
from nnunet_temporal.losses.pseudo_label import PseudoLabelLoss
from nnunet_temporal.training.cross_mix import MixedClips

BOUNDARY, PSEUDO_LABEL, CONTRASTIVE = LOSSES = ("boundary_losses", "pseudo_label_losses", "contrastive_losses")
"""Names under which the losses are logged."""


class Window(NamedTuple):
    """What is known of the decoded frames of unlabelled clips.

    Attributes:
        labels: (B, 1, W, Y, X) label map.
        weight: (B, 1, W, Y, X), 1 for true labels.
        seam: (B, 1, W, Y, X) bool, pixels that belong to two clips.
        labelled: (B, W) bool, frames that a person labelled.
        valid: (B, W) bool, False for padding frames.
    """

    labels: Tensor
    weight: Tensor
    seam: Tensor
    labelled: Tensor
    valid: Tensor

    @classmethod
    def of_clips(cls, mixed: MixedClips, labelled: Tensor, valid: Tensor, decoded: Tensor) -> "Window":
        """Take the decoded frames (B, W) of mixed clips; ``labelled`` and ``valid`` are (B, T)."""
        index = decoded[:, None, :, None, None]
        labels, weight, seam = (
            torch.take_along_dim(part, index, 2) for part in (mixed.labels, mixed.weight, mixed.seam)
        )
        return cls(labels, weight, seam, labelled.gather(1, decoded), valid.gather(1, decoded))


class WindowLosses(nn.Module):
    """Boundary constraint, segmentation by pseudo-labels, and contrast, each with its weight.

    Attributes:
        weights: Weight of each of ``LOSSES``; one that weighs nothing is not computed.
    """

    def __init__(
        self,
        weights: dict[str, float],
        labels: LabelManager,
        *,
        image_size: tuple[int, int],
        feature_channels: int,
        batch_dice: bool,
        scale_weights: tuple[float, ...] | None,
    ) -> None:
        """Make the losses.

        Args:
            weights: Weight of each of ``LOSSES``.
            labels: What the network's outputs mean.
            image_size: (Y, X) of the clips.
            feature_channels: Channels of the features that are contrasted.
            batch_dice: See ``PseudoLabelLoss``.
            scale_weights: Weight of each scale of nnU-Net's deep supervision; None without it.
        """
        super().__init__()
        exclusive = not labels.has_regions
        self.weights = weights
        self.labels = labels
        self.boundary = CrossFrameBoundaryLoss(BoundaryBand.of_image(image_size), exclusive=exclusive)
        self.pseudo_label = PseudoLabelLoss(exclusive=exclusive, batch_dice=batch_dice)
        self.contrastive = ContrastiveLoss(labels.all_labels, feature_channels, ignore_label=labels.ignore_label)
        self.scale_weights = scale_weights

    def forward(
        self, scales: list[Tensor], features: Tensor | None, window: Window, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Compute the losses, unweighted.

        Args:
            scales: Logits (B, K, W, Y, X) of each scale, full resolution first.
            features: (B, W, C, y, x) of a decoder stage; None if they are not contrasted.
            window: What is known.
            generator: Draws the pixels that are contrasted.
        """
        # Every output has to have a gradient, or distributed training takes the missing ones for a fault.
        nothing = torch.stack([0 * scale.float().sum() for scale in scales]).sum()
        losses = dict.fromkeys(LOSSES, nothing)
        if self.weights[BOUNDARY]:
            losses[BOUNDARY] = nothing + self._boundary(scales[0], window)
        if self.weights[PSEUDO_LABEL]:
            losses[PSEUDO_LABEL] = nothing + self._pseudo_label(scales, window)
        if features is not None and self.weights[CONTRASTIVE]:
            weight = window.weight.amin((1, 3, 4))
            losses[CONTRASTIVE] = nothing + self.contrastive(features, window.labels, weight, generator)
        return losses

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Sum the losses by their weights."""
        return torch.stack([weight * losses[key] for key, weight in self.weights.items()]).sum()

    def _boundary(self, logits: Tensor, window: Window) -> Tensor:
        probabilities = logits.float().sigmoid() if self.labels.has_regions else logits.float().softmax(1)
        memberships, known = self._memberships(window.labels)
        is_true = known & (window.weight == 1)
        memberships = memberships.masked_fill(~is_true, -1)
        return self.boundary(probabilities, memberships, window.labelled, window.valid, ~window.seam)

    def _pseudo_label(self, scales: list[Tensor], window: Window) -> Tensor:
        inputs = []
        for logits in scales:
            labels, weight = _resize(window.labels, logits), _resize(window.weight, logits)
            memberships, known = self._memberships(labels)
            inputs.append((logits, memberships, weight * known))
        # The loss is a mean by weight: without this factor, doubtful labels alone would count as much as true ones.
        trust = inputs[0][2].sum() / inputs[0][2].count_nonzero().clamp(min=1)
        if self.scale_weights is None:
            return trust * self.pseudo_label(*inputs[0])
        at_all_scales = DeepSupervisionWrapper(self.pseudo_label, self.scale_weights)
        return trust * at_all_scales(*zip(*inputs, strict=True))

    def _memberships(self, labels: Tensor) -> tuple[Tensor, Tensor]:
        regions = self.labels.foreground_regions if self.labels.has_regions else None
        outputs = self.labels.num_segmentation_heads
        return memberships_of(labels, outputs, ignore_label=self.labels.ignore_label, regions=regions)


def _resize(maps: Tensor, logits: Tensor) -> Tensor:
    """Bring maps (B, 1, W, Y, X) to the size of the logits of a scale, by the nearest pixel."""
    return functional.interpolate(maps[:, 0].float(), logits.shape[-2:], mode="nearest-exact")[:, None]
