"""What a network loses by answering otherwise than its teachers."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class SoftTarget(NamedTuple):
    """What teachers say of decoded frames. It moves between devices as one, so nnU-Net's step takes it for a tensor.

    Attributes:
        logits: (B, K, D, Y, X), the mean of the teachers' logits.
        counted: (B, 1, D, Y, X) bool, False for padding and for what lies outside the image.
    """

    logits: Tensor
    counted: Tensor

    def to(self, device: torch.device, non_blocking: bool = False) -> "SoftTarget":
        """Return the target on another device."""
        return SoftTarget(*(part.to(device, non_blocking=non_blocking) for part in self))


class Divergence(nn.Module):
    """Kullback-Leibler divergence KL(teachers || student), the mean over counted pixels, in nats.

    The teachers answer as an ensemble of nnU-Net does: softmax or sigmoid of their mean logits. The divergences of
    regions, each a yes or no, are summed per pixel.

    Source: knowledge distillation (Hinton et al., 2015) at temperature 1.
    """

    def __init__(self, *, exclusive: bool) -> None:
        """Make the loss; ``exclusive`` says whether channels are exclusive labels, or regions that may overlap."""
        super().__init__()
        self.exclusive = exclusive

    def forward(self, logits: Tensor, target: SoftTarget) -> Tensor:
        """Compare logits (B, K, D, Y, X) in float32.

        Returns:
            The loss; a zero with a graph if no pixel counts.
        """
        with torch.autocast(logits.device.type, enabled=False):
            student, teachers = logits.float(), target.logits.float()
            if self.exclusive:
                expected = teachers.log_softmax(1)
                divergences = expected.exp() * (expected - student.log_softmax(1))
            else:
                divergences = _divergence_of_one_side(teachers, student) + _divergence_of_one_side(-teachers, -student)
            per_pixel = divergences.sum(1, keepdim=True)
            return (per_pixel * target.counted).sum() / target.counted.sum().clamp(min=1)


class TaughtLoss(nn.Module):
    """A loss on labels, plus the divergence from teachers where the target has what they say.

    Attributes:
        supervised: The loss on labels.
        weight: Weight of the divergence.
    """

    def __init__(self, supervised: nn.Module, weight: float, *, exclusive: bool) -> None:
        """Add a ``Divergence`` to nnU-Net's loss, with deep supervision or without."""
        super().__init__()
        self.supervised = supervised
        self.weight = weight
        self.divergence = Divergence(exclusive=exclusive)

    def forward(self, output: Tensor | list[Tensor], target: Tensor | list[Tensor | SoftTarget]) -> Tensor:
        """Compute the loss.

        Args:
            output: Logits (B, K, D, Y, X), or nnU-Net's list of scales, full resolution first.
            target: What the supervised loss takes. In training a list: the labels at each scale, and at the end a
                ``SoftTarget``, which is compared at full resolution.
        """
        if not (isinstance(target, list) and isinstance(target[-1], SoftTarget)):
            return self.supervised(output, target)
        *labels, soft = target
        if isinstance(output, list):
            return self.supervised(output, labels) + self.weight * self.divergence(output[0], soft)
        return self.supervised(output, labels[0]) + self.weight * self.divergence(output, soft)


def _divergence_of_one_side(expected: Tensor, found: Tensor) -> Tensor:
    """Return p log(p / q) of the probabilities p and q that logits stand for."""
    return expected.sigmoid() * (functional.logsigmoid(expected) - functional.logsigmoid(found))
