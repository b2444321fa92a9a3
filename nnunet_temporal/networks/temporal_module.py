"""What every module that works on a sequence of feature maps promises."""

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

from torch import Tensor, nn

ModuleState: TypeAlias = Any
"""What a module carries from frame to frame: a tensor, or tuples, lists and dictionaries of tensors."""


class TemporalModule(nn.Module, ABC):
    """Features of consecutive frames in, features of the same shape out, and a state to carry on with.

    The module ends in a zero-initialised projection on a residual path: untrained, it returns its input.
    Frame by frame, chunk by chunk and for the whole clip at once, ``stream`` gives the same answer.

    Attributes:
        delay: Frames that must follow a frame before the module can answer for it; 0 for a causal module, half a
            window for a centred one.
    """

    delay: int = 0

    @abstractmethod
    def forward(
        self, features: Tensor, state: ModuleState | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, ModuleState]:
        """Let the frames see each other, or their past; no frames follow, so that every frame is answered.

        Args:
            features: (B, T, C, Y, X).
            state: What an earlier call returned for the frames before these; None before the first frame.
            valid: (B, T) bool, False for padding frames, which must not change the state; None: all valid.

        Returns:
            Features (B, T, C, Y, X) and the state after the last frame.
        """

    def stream(
        self, features: Tensor, state: ModuleState | None, valid: Tensor | None, *, last: bool
    ) -> tuple[Tensor, ModuleState]:
        """Take the next frames, of which there may be none, and answer for those that have seen enough.

        Causal modules answer at once and need not override this. A module with a delay keeps the frames that it cannot
        answer for yet in its state, answers for them in a later call, and for all of them in the last one.

        Args:
            features: (B, T, C, Y, X), T >= 0.
            state: As in ``forward``.
            valid: As in ``forward``.
            last: Whether the sequence ends with these frames.

        Returns:
            Features (B, A, C, Y, X) of the next A >= 0 frames without an answer, in their order, and the state.
        """
        if self.delay:
            raise NotImplementedError(
                f"{type(self).__name__} has a delay of {self.delay} frames: it must say how to stream"
            )
        return self(features, state, valid) if features.shape[1] else (features, state)


def zero_initialise(projection: nn.Module) -> None:
    """Set all parameters of a module's last layer to zero, so that its residual branch starts as nothing."""
    for parameter in projection.parameters():
        nn.init.zeros_(parameter)
