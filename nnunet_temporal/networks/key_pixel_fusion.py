"""Key-pixel feature fusion, after GDKVM."""

import torch
from torch import Tensor, nn


class KeyPixelFusion(nn.Module):
    """Blend local keys, their frame average and pixel features by a learned gate.

    Source: GDKVM (Wang et al., ICCV 2025), key-pixel feature fusion: with F_g the frame average of the key features,
    G = sigmoid(conv(F_K + F_g)) per pixel, the fused key is G (F_K + F_g) + (1 - G) F_pix. No frame sees another.
    """

    def __init__(self, channels: int, key_channels: int) -> None:
        super().__init__()
        self.key = nn.Sequential(
            nn.Conv2d(channels, key_channels, 1),
            nn.LeakyReLU(inplace=True),
            nn.Conv2d(key_channels, key_channels, 3, padding=1),
        )
        self.pixel = nn.Conv2d(channels, key_channels, 1)
        self.gate = nn.Conv2d(key_channels, 1, 1)

    def forward(self, features: Tensor) -> Tensor:
        """Map (B*T, C, Y, X) features to (B*T, key_channels, Y, X) keys."""
        local = self.key(features)
        local = local + local.mean((-2, -1), keepdim=True)
        gate = torch.sigmoid(self.gate(local))
        return gate * local + (1 - gate) * self.pixel(features)
