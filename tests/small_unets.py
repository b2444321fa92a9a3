"""nnU-Net's 2D networks, small, and comparisons of their logits, shared by tests. Not a test."""

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import Tensor, nn

CLASSES = 3
KINDS = {"plain": PlainConvUNet, "residual": ResidualEncoderUNet}


def frame_network(
    kind: str = "plain",
    channels: int = 1,
    classes: int = CLASSES,
    deep_supervision: bool = False,
    seed: int = 0,
    strides: tuple = (1, 2, 2),
    wide: int = 1,
) -> nn.Module:
    """Build a network of three stages with 4, 6 and 8 times ``wide`` features."""
    torch.manual_seed(seed)
    per_stage = "n_conv_per_stage" if kind == "plain" else "n_blocks_per_stage"
    return KINDS[kind](
        input_channels=channels,
        n_stages=3,
        features_per_stage=(4 * wide, 6 * wide, 8 * wide),
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=strides,
        num_classes=classes,
        n_conv_per_stage_decoder=1,
        conv_bias=True,
        norm_op=nn.InstanceNorm2d,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=deep_supervision,
        **{per_stage: 1},
    )


def scales_of(logits: Tensor | list[Tensor]) -> list[Tensor]:
    """Return logits as with deep supervision."""
    return logits if isinstance(logits, list) else [logits]


def assert_same_logits(ours: Tensor | list[Tensor], expected: Tensor | list[Tensor], tolerance: float = 1e-5) -> None:
    """Check that logits agree at every scale."""
    assert isinstance(ours, list) == isinstance(expected, list)
    torch.testing.assert_close(scales_of(ours), scales_of(expected), atol=tolerance, rtol=0)
