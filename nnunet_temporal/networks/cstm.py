"""Patch-level matching with a memory of segmented frames, after CSTM."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nnunet_temporal.errors import InputError
from nnunet_temporal.networks.memory_bank import MemoryBank, Scales
from nnunet_temporal.networks.memory_network import MemoryNetwork
from nnunet_temporal.networks.patch_matching import best_patches, read_patches
from nnunet_temporal.networks.temporal_module import zero_initialise


@dataclass(frozen=True)
class MatchingPlan:
    """Where and how finely frames are matched.

    Attributes:
        stage: Encoder stage of the coarse scale; the stage before it, with sides twice as long, is the fine scale.
        patch: Side P of a patch at the coarse scale, in pixels of its feature map; twice that at the fine scale.
        top_k: Patches of the memory that a patch of the frame reads from.
        key_channels: Channels of a key at either scale.
        value_channels: Channels of a value at either scale.
    """

    stage: int
    patch: int = 6
    top_k: int = 4
    key_channels: int = 32
    value_channels: int = 256


class ValueEncoder(nn.Module):
    """Strided convolutions over image and mask, a quarter as wide as the frame encoder, down to the two scales.

    CSTM takes a ResNet-18. A mask is simpler than an image, and this encoder runs beside nnU-Net's.
    """

    def __init__(self, input_channels: int, channels: list[int], strides: list[list[int]], value_channels: int) -> None:
        """Build stages with a quarter of the given channels; the last two are read out."""
        super().__init__()
        widths = [max(8, number // 4) for number in channels]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, width, 3, (stride[0], stride[1]), padding=1),
                nn.InstanceNorm2d(width, affine=True),
                nn.LeakyReLU(inplace=True),
            )
            for before, width, stride in zip([input_channels, *widths], widths, strides, strict=False)
        )
        self.heads = nn.ModuleList(nn.Conv2d(width, value_channels, 3, padding=1) for width in (widths[-1], widths[-2]))
        for head in self.heads:
            # The projections of what is recalled start at zero and grow with it: with PyTorch's small values, nnU-Net's
            # optimiser takes several times as many steps until the memory is used.
            nn.init.orthogonal_(head.get_parameter("weight"), gain=2)

    def forward(self, x: Tensor) -> Scales:
        """Map (B, C, Y, X) to values (B, C_v, Y, X) of the coarse and the fine scale."""
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        coarse, fine = self.heads
        return coarse(maps[-1]), fine(maps[-2])


class CSTM(MemoryNetwork):
    """nnU-Net's 2D network with a memory of its own segmentations, matched patch by patch at two scales.

    Keys come from the encoder's features. What a frame recalls enters the decoder through projections onto the
    encoder's skips that are zero at the start: untrained, the network computes exactly what the 2D network computes.

    Masks are remembered jointly, all output channels in one value, so that the cost does not depend on their number.
    Per object, each channel has values of its own and is decoded with these alone; the softmax, or the sigmoids of
    regions, then puts the channels' log-odds together, as STCN aggregates objects.

    Source: CSTM (WACV 2025, arXiv 2410.23191), for which there is no public code: this is an independent
    re-implementation. Joint masks, the light value encoder and the zero projections are ours.
    """

    def __init__(
        self,
        unet: nn.Module,
        input_channels: int,
        matching: MatchingPlan,
        *,
        memory_frames: int = 2,
        per_object: bool = False,
    ) -> None:
        """Take over a 2D network.

        Args:
            unet: A 2D ``PlainConvUNet`` or ``ResidualEncoderUNet``.
            input_channels: Channels C of a frame.
            matching: Where and how finely to match.
            memory_frames: See ``MemoryNetwork``; CSTM has 2, the first frame and the one before.
            per_object: Whether each output channel has a memory of its own.

        Raises:
            InputError: There is no such stage, or the stage before it does not have sides twice as long.
        """
        super().__init__(memory_frames)
        self.encoder = unet.get_submodule("encoder")
        self.decoder = unet.get_submodule("decoder")
        channels: list[int] = list(self.encoder.output_channels)  # type: ignore[arg-type]  # set by nnU-Net's encoders
        strides: list[list[int]] = [list(stride) for stride in self.encoder.strides]  # type: ignore[union-attr, arg-type]  # as above
        _check_stage(matching.stage, strides)
        self.matching = matching
        self.per_object = per_object
        self.scales = (matching.stage, matching.stage - 1)
        self.read_stages: tuple[int, ...] = self.scales
        self.keys = nn.ModuleList(_key_projection(channels[stage], matching.key_channels) for stage in self.scales)
        mask_channels = 1 if per_object else int(self.decoder.num_classes)  # type: ignore[arg-type]  # as above
        down, seen = matching.stage + 1, input_channels + mask_channels
        self.values = ValueEncoder(seen, channels[:down], strides[:down], matching.value_channels)
        # No bias: what an empty memory recalls must add nothing.
        recalled = (nn.Conv2d(matching.value_channels, channels[stage], 1, bias=False) for stage in self.scales)
        self.projections = nn.ModuleList(recalled)
        zero_initialise(self.projections)

    def encode_key(self, frames: Tensor) -> tuple[list[Tensor], Scales]:
        """See ``MemoryNetwork``."""
        skips = self.encoder(frames)
        return skips, tuple(key(skips[stage]) for key, stage in zip(self.keys, self.scales, strict=True))

    def encode_value(self, frames: Tensor, masks: Tensor) -> Scales:
        """See ``MemoryNetwork``; per object, the values of all output channels follow each other along channels."""
        masks = masks.to(frames.dtype)
        if not self.per_object:
            return self.values(torch.cat((frames, masks), 1))
        objects = masks.shape[1]
        seen = torch.cat((frames.repeat_interleave(objects, 0), masks.flatten(0, 1).unsqueeze(1)), 1)
        return tuple(value.unflatten(0, (-1, objects)).flatten(1, 2) for value in self.values(seen))

    def match_as(
        self, *, patch: int | None = None, top_k: int | None = None, stages: tuple[int, ...] | None = None
    ) -> None:
        """Match otherwise than in training; None leaves things as they are.

        Args:
            patch: Side of a patch at the coarse scale, in pixels of its feature map.
            top_k: Patches of the memory that a patch of the frame reads from.
            stages: Encoder stages at which the memory is read, of the two that the network has.

        Raises:
            InputError: A number is not positive, or there is no memory at a stage.
        """
        plan = self.matching
        self.matching = replace(
            plan,
            patch=plan.patch if patch is None else patch,
            top_k=plan.top_k if top_k is None else top_k,
        )
        if self.matching.patch < 2 or self.matching.patch % 2 or self.matching.top_k < 1:
            raise InputError(
                f"found patches of {self.matching.patch} pixels of which {self.matching.top_k} are read, expected an "
                "even number of pixels and one patch or more"
            )
        if stages is not None:
            if not stages or set(stages) - set(self.scales):
                raise InputError(f"found scales {stages}, expected some of {sorted(self.scales)}: there the memory is")
            self.read_stages = stages

    def read(self, keys: Scales, bank: MemoryBank) -> Scales:
        """See ``MemoryNetwork``; the fine scale reads from the patches that the coarse scale has matched."""
        with torch.autocast(keys[0].device.type, enabled=False):
            keys, remembered, values = (tuple(map(Tensor.float, maps)) for maps in (keys, bank.keys, bank.values))
            patch = self.matching.patch
            best = best_patches(keys[0], remembered[0], bank.written, patch, self.matching.top_k)
            return tuple(
                read_patches(key, remembered_key, value, best, side)
                if stage in self.read_stages
                else torch.zeros_like(value[:, 0])
                for stage, key, remembered_key, value, side in zip(
                    self.scales, keys, remembered, values, (patch, 2 * patch), strict=True
                )
            )

    def decode(self, skips: list[Tensor], readouts: Scales | None) -> Tensor | list[Tensor]:
        """See ``MemoryNetwork``."""
        if readouts is None:
            return self.decoder(skips)
        if not self.per_object:
            return self.decoder(self._recall(skips, readouts))
        # (B, K, C_v, Y, X) per scale, and one decoding per output channel, of which only that channel is kept
        objects = [readout.unflatten(1, (-1, self.matching.value_channels)) for readout in readouts]
        decoded = [
            self.decoder(self._recall(skips, tuple(readout[:, k] for readout in objects)))
            for k in range(objects[0].shape[1])
        ]
        if isinstance(decoded[0], Tensor):
            return _own_channels(decoded)
        return [_own_channels(scale) for scale in zip(*decoded, strict=True)]

    def _recall(self, skips: list[Tensor], readouts: Scales) -> list[Tensor]:
        """Add what a frame recalls to its skips."""
        skips = list(skips)
        for stage, projection, readout in zip(self.scales, self.projections, readouts, strict=True):
            skips[stage] = skips[stage] + projection(readout.to(skips[stage].dtype))
        return skips


def _key_projection(channels: int, key_channels: int) -> nn.Conv2d:
    projection = nn.Conv2d(channels, key_channels, 3, padding=1)
    # Keys as spread out as the features: with PyTorch's default every pixel would match all others alike.
    nn.init.orthogonal_(projection.weight)
    return projection


def _own_channels(decoded: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """Take channel k of the k-th (B, K, Y, X) logits."""
    return torch.stack([logits[:, k] for k, logits in enumerate(decoded)], 1)


def _check_stage(stage: int, strides: list[list[int]]) -> None:
    if not 0 < stage < len(strides):
        raise InputError(
            f"CSTM matches at the last of temporal.memory_stages and the stage before it; got stage {stage} of an "
            f"encoder with stages 0..{len(strides) - 1}. Choose one of 1..{len(strides) - 1} in the plans."
        )
    if strides[stage] != [2, 2]:
        fitting = [number for number in range(1, len(strides)) if strides[number] == [2, 2]]
        raise InputError(
            f"CSTM needs a memory stage whose sides are exactly half of the stage before it, but stage {stage} has "
            f"strides {strides[stage]} (y, x). Let temporal.memory_stages of the plans end in one of {fitting}."
        )
