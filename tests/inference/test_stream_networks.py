"""Every kind of network takes its turns as its own forward pass does."""

import numpy as np
import pytest
import torch
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from trained_models import make_plans

from nnunet_temporal.inference.stream_networks import as_stream, deals
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM


def dealt(frames, stride, at_a_time):
    return [[chunk.tolist() for chunk in chunks] for chunks in deals(np.array(frames), stride, at_a_time)]


def test_frames_are_dealt_out_by_the_stride_and_cut_into_chunks():
    assert dealt([0, 1, 3, 4, 5], 2, 2) == [[[0, 3], [5]], [[1, 4]]]
    assert dealt(range(5), 1, 2) == [[[0, 1], [2, 3], [4]]]


@pytest.mark.parametrize("frames", [[], [4]])
def test_there_are_no_more_deals_than_frames(frames):
    assert dealt(frames, 5, 8) == [[[frame]] for frame in frames]


def test_watching_leaves_the_memory_that_segmenting_does():
    plans = PlansManager(make_plans())
    network = nnUNetTrainerGDKVM.build_network_architecture(plans, plans.get_configuration("2dt"), 1, 3, False).eval()
    assert as_stream(network) is network
    frames = torch.randn(1, 1, 4, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        halves = [network.encode(half) for half in frames.split(2, 2)]
        watched = network.watch(halves[1], network.watch(halves[0]))
        _, segmented = network.forward_chunk(frames)
        following, _ = network.forward_chunk(frames, watched)
        expected, _ = network.forward_chunk(frames, segmented)
    torch.testing.assert_close(following, expected)
