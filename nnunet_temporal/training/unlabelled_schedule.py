"""When frames without labels begin to count, how much, and when pseudo-labels are predicted anew."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class UnlabelledSchedule:
    """Fractions of a training, so that short and long ones go through the same stages.

    Source: the shape of the ramp and of the falling threshold is that of EchoForge's schedule (Fang et al., CVPR 2026);
    the papers' values are not public, and these are ours.

    Attributes:
        epochs: Epochs of the training.
        begin: Fraction after which unlabelled frames have a part; the teacher's first predictions are made then.
        full: Fraction after which they have their full weight.
        rounds: Times that pseudo-labels are predicted.
        confidence: Smallest probability of a pixel of a pseudo-label that counts, in the first round and at the end. It
            falls from round to round: within one a resumed training goes on with the same.
    """

    epochs: int
    begin: float = 0.1
    full: float = 0.3
    rounds: int = 10
    confidence: tuple[float, float] = (0.95, 0.80)

    @property
    def first_epoch(self) -> int:
        """First epoch with unlabelled frames. A training of a few epochs has them from the start."""
        return int(self.begin * self.epochs)

    def is_active(self, epoch: int) -> bool:
        """Whether unlabelled frames have a part in an epoch."""
        return epoch >= self.first_epoch

    def starts_round(self, epoch: int) -> bool:
        """Whether pseudo-labels are predicted before an epoch."""
        return self.is_active(epoch) and epoch == self._start_of_round(epoch)

    def weight(self, epoch: int) -> float:
        """Return how much unlabelled frames count in an epoch, from above 0 to 1."""
        ramp = max(1, int(self.full * self.epochs) - self.first_epoch)
        return min(1.0, (epoch - self.first_epoch + 1) / ramp) if self.is_active(epoch) else 0.0

    def confidence_threshold(self, epoch: int) -> float:
        """Return the smallest probability that counts in the round that an epoch belongs to."""
        passed = (self._start_of_round(epoch) - self.first_epoch) / max(1, self.epochs - 1 - self.first_epoch)
        return self.confidence[0] + (self.confidence[1] - self.confidence[0]) * min(1.0, max(0.0, passed))

    def _start_of_round(self, epoch: int) -> int:
        interval = max(1, math.ceil((self.epochs - self.first_epoch) / self.rounds))
        return epoch - (epoch - self.first_epoch) % interval
