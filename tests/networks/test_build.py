"""From plans to networks: between the 2D and the temporal form of an architecture."""

import copy

import pytest
import torch
from torch import nn

from nnunet_temporal.networks.build import (
    build_frame_network,
    build_temporal_network,
    frame_architecture,
    sequence_architecture,
)
from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.networks.unreliable_pixels import UnreliablePixelAttention


def architecture_2d(**arguments):
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 6, 8],
            "conv_op": "torch.nn.modules.conv.Conv2d",
            "kernel_sizes": [[3, 3], [3, 3], [3, 3]],
            "strides": [[1, 1], [2, 2], [2, 1]],
            "n_conv_per_stage": [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
            **arguments,
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


DROPOUT = {"dropout_op": "torch.nn.modules.dropout.Dropout2d"}


@pytest.mark.parametrize("arguments", [{}, DROPOUT, {"norm_op": None}])
def test_frame_and_sequence_architecture_are_inverse(arguments):
    planned = architecture_2d(**arguments)
    there = sequence_architecture(planned)
    assert frame_architecture(there) == planned
    assert sequence_architecture(frame_architecture(there)) == there


def test_the_sequence_architecture_is_three_dimensional_and_trivial_along_time():
    arguments = sequence_architecture(architecture_2d(**DROPOUT))["arch_kwargs"]
    assert arguments["kernel_sizes"] == [[1, 3, 3]] * 3
    assert arguments["strides"] == [[1, 1, 1], [1, 2, 2], [1, 2, 1]]
    assert [arguments[name][-2:] for name in ("conv_op", "norm_op", "dropout_op")] == ["3d"] * 3


@pytest.mark.parametrize("translate", [sequence_architecture, frame_architecture])
def test_translating_changes_neither_its_argument_nor_shares_lists_with_it(translate):
    planned = architecture_2d() if translate is sequence_architecture else sequence_architecture(architecture_2d())
    before = copy.deepcopy(planned)
    translate(planned)["arch_kwargs"]["strides"][0][-1] = 7
    assert planned == before


@pytest.mark.parametrize("name", ["kernel_sizes", "strides"])
@pytest.mark.parametrize("entry", [[3, 3, 3], [3, 3]])
def test_an_architecture_that_extends_along_time_or_has_no_time_raises(name, entry):
    planned = sequence_architecture(architecture_2d())
    planned["arch_kwargs"][name][1] = entry
    with pytest.raises(ValueError, match=f"{name} of a temporal configuration must start with 1"):
        frame_architecture(planned)


@pytest.mark.parametrize("deep_supervision", [True, False])
def test_the_frame_network_is_nnunets_2d_network(deep_supervision):
    network = build_frame_network(sequence_architecture(architecture_2d()), 2, 5, deep_supervision)
    assert not any(isinstance(layer, nn.Conv3d | nn.InstanceNorm3d) for layer in network.modules())
    out = network(torch.randn(1, 2, 16, 16))
    assert (
        [tuple(scale.shape[1:]) for scale in out] == [(5, 16, 16), (5, 8, 8)]
        if deep_supervision
        else (out.shape == (1, 5, 16, 16))
    )


def test_each_planned_stage_gets_a_module_of_its_width():
    frame_network = build_frame_network(sequence_architecture(architecture_2d()), 1, 2, False)
    asked = []

    def build_module(channels):
        asked.append(channels)
        return GatedDeltaMemory(channels, heads=1, key_size=2, value_size=2)

    network = build_temporal_network(frame_network, (2, 0), build_module)
    assert sorted(asked) == [4, 8]
    assert list(network.temporal) == ["0", "2"]
    assert network(torch.randn(1, 1, 3, 16, 16)).shape == (1, 2, 3, 16, 16)


def test_a_refinement_head_is_built_for_the_widths_of_the_decoder():
    frame_network = build_frame_network(sequence_architecture(architecture_2d()), 1, 2, False)
    asked = []

    def build_head(channels):
        asked.append(channels)
        return UnreliablePixelAttention(channels, 2, heads=1, width=4)

    network = build_temporal_network(frame_network, (), lambda channels: None, build_head=build_head)
    assert asked == [(4, 6)]
    assert network(torch.randn(1, 1, 3, 16, 16)).shape == (1, 2, 3, 16, 16)
