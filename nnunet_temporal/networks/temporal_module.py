"""What every module that works on a sequence of feature maps promises."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class TemporalModule(nn.Module, ABC):
    """Features of consecutive frames in, features of the same shape out, and a state to carry on with.

    The module ends in a zero-initialised projection on a residual path: untrained, it returns its input.
    A causal module gives the same answer frame by frame, chunk by chunk and for the whole clip at once.
    """

    @abstractmethod
    def forward(
        self, features: Tensor, state: Tensor | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Let the frames see their past.

        Args:
            features: (B, T, C, Y, X).
            state: What an earlier call returned for the frames before these; None before the first frame.
            valid: (B, T) bool, False for padding frames, which must not change the state; None: all valid.

        Returns:
            Features (B, T, C, Y, X) and the state after the last frame.
        """


def zero_initialise(projection: nn.Module) -> None:
    """Set all parameters of a module's last layer to zero, so that its residual branch starts as nothing."""
    for parameter in projection.parameters():
        nn.init.zeros_(parameter)
