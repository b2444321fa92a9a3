"""Parts of networks compiled for batches of fixed sizes, so that no length of a sequence compiles them anew."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nnunet_temporal.errors import InputError


class FixedBatches(nn.Module):
    """A compiled part of a network, which takes frames one by one or ``size`` at a time, however many there are.

    A batch that is not full is filled up with zeros. Frames do not see each other here, so that no answer changes.

    Attributes:
        part: The encoder or the decoder.
        size: Largest number of frames that pass it together.
    """

    def __init__(self, part: nn.Module, size: int) -> None:
        """Have a part compiled when it is first called."""
        super().__init__()
        self.part, self.size = part, size
        part.compile(dynamic=False)

    def _full(self, batch: Tensor) -> Tensor:
        """Fill a batch (N, C, Y, X) up, unless it is full or a single frame."""
        missing = 0 if len(batch) == 1 else self.size - len(batch)
        full = functional.pad(batch, (0, 0, 0, 0, 0, 0, 0, missing)) if missing else batch
        # A view of one frame in many has the stride of a longer batch, for which it would be compiled anew.
        return full.flatten().view(full.shape)


class FixedEncoder(FixedBatches):
    """An encoder: frames (N, C, Y, X), N > 0, to one feature map (N, C, Y, X) per stage."""

    def forward(self, frames: Tensor) -> list[Tensor]:
        """Encode frames."""
        passes = [[stage[: len(batch)] for stage in self.part(self._full(batch))] for batch in frames.split(self.size)]
        return [_joined(stage) for stage in zip(*passes, strict=True)]


class FixedDecoder(FixedBatches):
    """A decoder: one feature map (N, C, Y, X) per stage, N > 0, to logits (N, K, Y, X)."""

    deep_supervision = False

    def forward(self, skips: list[Tensor]) -> Tensor:
        """Decode feature maps."""
        batches = zip(*(skip.split(self.size) for skip in skips), strict=True)
        return _joined([self.part([self._full(skip) for skip in batch])[: len(batch[0])] for batch in batches])


def compile_parts(network: nn.Module, size: int) -> None:
    """Have the encoder and the decoder of a network compiled, in place.

    A decoder whose features a refinement head takes is run layer by layer, and stays as it is.

    Args:
        network: A network for prediction, without deep supervision.
        size: Largest number of frames that pass together: on a CPU, where batches only cost, 1.

    Raises:
        InputError: The network has no encoder and decoder.
    """
    encoder, decoder = getattr(network, "encoder", None), getattr(network, "decoder", None)
    if encoder is None or decoder is None:
        raise InputError(
            f"{type(network).__name__} has no encoder and decoder to compile, as nnU-Net's U-Nets have; do without it"
        )
    if isinstance(encoder, FixedEncoder):
        return
    network.encoder = FixedEncoder(encoder, size)
    if getattr(network, "refinement", None) is None:
        network.decoder = FixedDecoder(decoder, size)


def _joined(passes: Sequence[Tensor]) -> Tensor:
    return passes[0] if len(passes) == 1 else torch.cat(list(passes))
