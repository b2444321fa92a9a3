"""What a module that corrects the decoder's logits promises."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class RefinementHead(nn.Module, ABC):
    """Features and logits of decoded frames in, corrected logits out; each frame by itself.

    The correction ends in a zero-initialised layer: untrained, the head returns the logits it was given.
    """

    @abstractmethod
    def forward(self, features: list[Tensor], logits: Tensor) -> Tensor:
        """Correct the logits of N frames.

        Args:
            features: The decoder's features (N, C, Y, X) per stage, full resolution first.
            logits: (N, K, Y, X), full resolution.

        Returns:
            Logits (N, K, Y, X).
        """
