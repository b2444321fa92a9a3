"""Key-pixel feature fusion: its gate chooses, and no frame sees another."""

import pytest
import torch
from torch import nn

from nnunet_temporal.networks.key_pixel_fusion import KeyPixelFusion

CHANNELS = 8


def fusion_and_frames():
    torch.manual_seed(0)
    return KeyPixelFusion(CHANNELS, 6), torch.randn(10, CHANNELS, 5, 6)


@torch.no_grad()
def test_the_fused_key_is_the_stated_blend():
    fusion, x = fusion_and_frames()
    local = fusion.key(x)
    local = local + local.mean((-2, -1), keepdim=True)
    gate = 1 / (1 + torch.exp(-fusion.gate(local)))
    assert gate.shape == (10, 1, 5, 6)
    torch.testing.assert_close(fusion(x), gate * local + (1 - gate) * fusion.pixel(x))


@torch.no_grad()
@pytest.mark.parametrize("bias", [-50.0, 50.0])
def test_the_gate_chooses_between_pixel_features_and_local_plus_average_keys(bias):
    fusion, x = fusion_and_frames()
    nn.init.constant_(fusion.gate.bias, bias)
    local = fusion.key(x)
    expected = local + local.mean((-2, -1), keepdim=True) if bias > 0 else fusion.pixel(x)
    torch.testing.assert_close(fusion(x), expected)


@torch.no_grad()
def test_keys_of_a_frame_do_not_depend_on_other_frames():
    fusion, x = fusion_and_frames()
    torch.testing.assert_close(fusion(x)[3:4], fusion(x[3:4]))
