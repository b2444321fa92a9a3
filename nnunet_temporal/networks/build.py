"""Networks built from nnU-Net plans: the stock frame network, and the temporal network around it."""

from collections.abc import Callable
from typing import Any

from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch import nn

from nnunet_temporal.networks.refinement_head import RefinementHead
from nnunet_temporal.networks.temporal_module import TemporalModule
from nnunet_temporal.networks.temporal_unet import TemporalUNet

_PER_AXIS_OPERATIONS = ("conv_op", "norm_op", "dropout_op")


def frame_architecture(architecture: dict[str, Any]) -> dict[str, Any]:
    """Translate the architecture of configuration ``2dt`` into that of its 2D frame network.

    The plans describe 3D operations that are trivial along time (kernels and strides with a leading 1), because
    nnU-Net derives its deep supervision from them. Here the leading 1 and the third dimension are dropped.

    Args:
        architecture: ``plans["configurations"]["2dt"]["architecture"]``; it is not changed.

    Raises:
        ValueError: A kernel or stride extends along time.
    """
    arguments = dict(architecture["arch_kwargs"])
    for name in ("kernel_sizes", "strides"):
        if any(len(entry) != 3 or entry[0] != 1 for entry in arguments[name]):
            raise ValueError(f"{name} of a temporal configuration must start with 1 (time), got {arguments[name]}")
        arguments[name] = [list(entry[1:]) for entry in arguments[name]]
    for name in _PER_AXIS_OPERATIONS:
        if arguments.get(name) is not None:
            arguments[name] = arguments[name].replace("3d", "2d")
    return {**architecture, "arch_kwargs": arguments}


def sequence_architecture(architecture: dict[str, Any]) -> dict[str, Any]:
    """Translate the architecture of configuration ``2d`` into ``2dt`` form; the inverse of ``frame_architecture``."""
    arguments = dict(architecture["arch_kwargs"])
    for name in ("kernel_sizes", "strides"):
        arguments[name] = [[1, *entry] for entry in arguments[name]]
    for name in _PER_AXIS_OPERATIONS:
        if arguments.get(name) is not None:
            arguments[name] = arguments[name].replace("2d", "3d")
    return {**architecture, "arch_kwargs": arguments}


def build_frame_network(
    architecture: dict[str, Any], input_channels: int, output_channels: int, deep_supervision: bool
) -> nn.Module:
    """Build nnU-Net's 2D network of configuration ``2dt``, initialised as nnU-Net does."""
    planned = frame_architecture(architecture)
    return get_network_from_plans(
        planned["network_class_name"],
        planned["arch_kwargs"],
        planned["_kw_requires_import"],
        input_channels,
        output_channels,
        allow_init=True,
        deep_supervision=deep_supervision,
    )


def build_temporal_network(
    frame_network: nn.Module,
    memory_stages: tuple[int, ...],
    build_module: Callable[[int], TemporalModule],
    *,
    build_head: Callable[[tuple[int, ...]], RefinementHead | None] = lambda _: None,
    watch_first: bool = False,
    frame_stride: int = 1,
) -> TemporalUNet:
    """Put a temporal module on each planned encoder stage, and a refinement head after the decoder if there is one.

    Args:
        frame_network: What ``build_frame_network`` returned.
        memory_stages: Encoder stages that get a module.
        build_module: Makes the module for features of the given number of channels.
        build_head: Makes the refinement head from the channels of the decoder's stages, full resolution first, or None.
        watch_first: See ``TemporalUNet``.
        frame_stride: See ``TemporalUNet``.

    Raises:
        ValueError: A memory stage does not exist.
    """
    channels: list[int] = frame_network.get_submodule("encoder").output_channels  # type: ignore[assignment]  # set by nnU-Net's encoders
    if memory_stages and max(memory_stages) >= len(channels):
        raise ValueError(f"memory_stages {memory_stages} go beyond the encoder, which has {len(channels)} stages")
    modules = {stage: build_module(channels[stage]) for stage in memory_stages}
    # The decoder's stages have the widths of the encoder's, up to the one below the bottleneck.
    head = build_head(tuple(channels[:-1]))
    return TemporalUNet(frame_network, modules, refinement=head, watch_first=watch_first, frame_stride=frame_stride)
