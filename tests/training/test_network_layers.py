"""Under nnU-Net's wrappers, and what the decoder computes: the same for every network and however it is wrapped."""

import pytest
import torch
import torch.distributed as dist
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from torch.nn.parallel import DistributedDataParallel
from trained_models import make_plans

from nnunet_temporal.networks.temporal_unet import Clip
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.ncmnet import nnUNetTrainerNCMNet
from nnunet_temporal.training.network_layers import DecoderTap, features_of_decoded, without_wrappers

METHODS = {"modules": nnUNetTrainerGDKVM, "refinement": nnUNetTrainerNCMNet, "frame by frame": nnUNetTrainerCSTM}
DECODED = [[1, 3], [0, 2]]


def network_of(method):
    """A network of four stages, untrained: what it computes of a frame does not depend on other frames."""
    torch.manual_seed(0)
    manager = PlansManager(make_plans(neighbourhood=(3, 5, 5)))
    return METHODS[method].build_network_architecture(manager, manager.get_configuration("2dt"), 1, 3, True)


def clip():
    frames = torch.rand(2, 1, 5, 48, 48, generator=torch.Generator().manual_seed(0))
    return Clip(frames, torch.ones(2, 5, dtype=torch.bool), torch.tensor(DECODED))


@pytest.fixture(params=METHODS)
def network(request):
    return network_of(request.param)


@pytest.fixture
def process_group(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def compiled(network):
    return torch.compile(network, backend="eager")


def test_a_plain_network_is_itself_and_a_compiled_one_what_was_compiled(network):
    assert without_wrappers(network) is network
    assert without_wrappers(compiled(network)) is network


def test_what_was_distributed_is_found_compiled_or_not(process_group):
    network = network_of("modules")
    assert without_wrappers(DistributedDataParallel(network)) is network
    assert without_wrappers(DistributedDataParallel(compiled(network))) is network


def test_the_tap_gives_the_features_of_each_decoded_frame_in_order(network):
    tap, given = DecoderTap(network), clip()
    # With gradients, as in training: without them a CPU computes frame by frame.
    with tap.open() as kept:
        network(given)
    features = features_of_decoded(kept, given).detach()
    # The second of three decoder stages from below: four pixels of the image along each side.
    assert (tap.stage, features.shape) == (0, (2, 2, tap.channels, 12, 12))
    for row, decoded in enumerate(DECODED):
        for position, frame in enumerate(decoded):
            with torch.no_grad():
                skips = network.encoder(given.frames[row : row + 1, :, frame])
                stage = network.decoder.stages[tap.stage]
                below = network.decoder.transpconvs[tap.stage](skips[-1])
                expected = stage(torch.cat((below, skips[-2]), 1))[0]
            torch.testing.assert_close(features[row, position], expected, rtol=1e-4, atol=1e-4)


def test_gradients_run_through_the_tap(network):
    tap = DecoderTap(network)
    with tap.open() as kept:
        network(clip())
    features_of_decoded(kept, clip()).square().sum().backward()
    first = next(network.encoder.parameters())
    assert first.grad is not None and first.grad.abs().sum() > 0


def test_a_closed_tap_keeps_nothing_and_each_opening_begins_anew():
    network = network_of("modules")
    tap = DecoderTap(network)
    network(clip())
    for _ in range(2):
        with tap.open() as kept:
            network(clip())
        network(clip())
        assert len(kept) == 1


def test_the_tap_works_in_a_compiled_network_that_ran_before_it_was_opened():
    plain, inside = network_of("modules"), network_of("modules")
    network = compiled(inside)
    taps = DecoderTap(plain), DecoderTap(network)
    network(clip())
    features = []
    for tap, each in zip(taps, (plain, network), strict=True):
        with tap.open() as kept:
            each(clip())
        features.append(features_of_decoded(kept, clip()))
    network(clip())
    torch.testing.assert_close(*features, rtol=1e-4, atol=1e-5)


def test_a_shallow_network_is_tapped_at_its_coarsest_stage():
    network = network_of("modules")
    network.decoder.stages = network.decoder.stages[1:]
    assert DecoderTap(network).stage == 0


def test_features_of_other_frames_than_the_decoded_or_all_are_refused():
    with pytest.raises(ValueError, match=r"features of 2 decoded frames of 2 clips, the decoder computed \[\(3, 4"):
        features_of_decoded([torch.zeros(3, 4, 5, 5)], clip())
