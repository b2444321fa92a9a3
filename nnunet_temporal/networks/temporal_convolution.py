"""Causal convolution along time, factorised: the baseline that a memory has to beat."""

import torch
from torch import Tensor, nn

from nnunet_temporal.networks.frame_history import with_history
from nnunet_temporal.networks.temporal_module import ModuleState, TemporalModule, zero_initialise


class CausalFrameConvolution(nn.Module):
    """One kernel along time per channel, over a frame and the valid frames before it.

    The kernel starts as "this frame only". Taps that training clips are too short to reach then stay silent, where
    random ones would disturb the longer sequences of prediction.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(kernel_size, channels))
        with torch.no_grad():
            self.weight[-1] = 1

    def forward(self, features: Tensor, past: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve (B, T, C, Y, X) features that follow ``past`` (B, kernel_size - 1, C, Y, X); return both anew."""
        windows, past = with_history(features, past, valid)
        return torch.einsum("btkcyx,kc->btcyx", windows, self.weight), past


class TemporalConvolution(TemporalModule):
    """Two layers of depthwise convolution along time and pointwise convolution across channels; causal.

    Source: the factorisation into a spatial and a temporal part is R(2+1)D's (Tran et al., CVPR 2018), with nnU-Net's
    encoder for the spatial part; causal kernels are those of temporal convolutional networks (Bai et al., 2018).
    A frame sees ``layers * (kernel_size - 1)`` valid frames back; before the first one there are zeros.
    """

    def __init__(self, channels: int, *, layers: int = 2, kernel_size: int = 3) -> None:
        """Build the layers for features of ``channels`` channels.

        Args:
            channels: Feature channels C.
            layers: Number of layers.
            kernel_size: Extent of each layer's kernel along time, in frames.
        """
        super().__init__()
        self.kernel_size = kernel_size
        self.temporal = nn.ModuleList(CausalFrameConvolution(channels, kernel_size) for _ in range(layers))
        self.pointwise = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channels, channels, 1, bias=False),
                nn.InstanceNorm2d(channels, affine=True),
                nn.LeakyReLU(inplace=True),
            )
            for _ in range(layers)
        )
        self.projection = nn.Conv2d(channels, channels, 1)
        zero_initialise(self.projection)

    def forward(
        self, features: Tensor, state: ModuleState | None = None, valid: Tensor | None = None
    ) -> tuple[Tensor, ModuleState]:
        """Add what the convolutions make of each frame and its past; see ``TemporalModule``.

        The state holds the last ``kernel_size - 1`` valid inputs of each layer, (B, kernel_size - 1, C, Y, X) each.
        """
        batch, frames = features.shape[:2]
        if valid is None:
            valid = torch.ones(batch, frames, dtype=torch.bool, device=features.device)
        if state is None:
            nothing = features.new_zeros(batch, self.kernel_size - 1, *features.shape[2:])
            state = (nothing,) * len(self.temporal)
        hidden, after = features, []
        for temporal, pointwise, past in zip(self.temporal, self.pointwise, state, strict=True):
            mixed, past = temporal(hidden, past, valid)
            hidden = pointwise(mixed.flatten(0, 1)).unflatten(0, (batch, frames))
            after.append(past)
        return features + self.projection(hidden.flatten(0, 1)).view_as(features), tuple(after)
