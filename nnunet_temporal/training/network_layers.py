"""A network under the layers that nnU-Net wraps around it, and what its decoder computes on the way."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from dynamic_network_architectures.building_blocks.plain_conv_encoder import PlainConvEncoder
from dynamic_network_architectures.building_blocks.unet_decoder import UNetDecoder
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

from nnunet_temporal.networks.temporal_unet import Clip


def without_wrappers(network: nn.Module) -> nn.Module:
    """Return the module that nnU-Net has compiled and distributed."""
    if isinstance(network, DistributedDataParallel):
        network = network.module
    # The original is registered under this name; torch types it as any attribute of a module.
    return network.get_submodule("_orig_mod") if isinstance(network, OptimizedModule) else network


class DecoderTap:
    """Keeps the features of one decoder stage while a network segments clips.

    Attributes:
        stage: Index of the decoder's stage; two below full resolution, where each pixel stands for a few of the image,
            or the coarsest there is.
        channels: Channels of its features.
    """

    def __init__(self, network: nn.Module) -> None:
        """Watch a network, compiled, distributed or plain."""
        network = without_wrappers(network)
        encoder, decoder = cast(PlainConvEncoder, network.encoder), cast(UNetDecoder, network.decoder)
        self.stage = max(0, len(decoder.stages) - 3)
        self.channels = encoder.output_channels[-(self.stage + 2)]
        self._kept: list[Tensor] | None = None
        decoder.stages[self.stage].register_forward_hook(self._keep)

    @contextmanager
    def open(self) -> Iterator[list[Tensor]]:
        """Collect the outputs of the stage into the list that is yielded."""
        self._kept = []
        try:
            yield self._kept
        finally:
            self._kept = None

    def _keep(self, module: nn.Module, inputs: object, output: Tensor) -> None:
        if self._kept is not None:
            self._kept.append(output)


def features_of_decoded(kept: list[Tensor], clip: Clip) -> Tensor:
    """Order what a tap kept of one pass over a clip in training by its decoded frames: (B, D, C, Y, X).

    A network decodes all decoded frames at once, or, if it remembers what it segmented, frame by frame all of them.

    Raises:
        ValueError: The network did neither.
    """
    batch, decoded = clip.decoded.shape
    if len(kept) == 1 and len(kept[0]) == batch * decoded:
        return kept[0].unflatten(0, (batch, decoded))
    if len(kept) == clip.frames.shape[2]:
        index = clip.decoded[:, :, None, None, None]
        return torch.take_along_dim(torch.stack(kept, 1), index, 1)
    shapes = [tuple(features.shape) for features in kept]
    raise ValueError(f"expected features of {decoded} decoded frames of {batch} clips, the decoder computed {shapes}")
