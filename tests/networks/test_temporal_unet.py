"""The temporal U-Net: the stock 2D network when untrained, and one answer however the frames are fed."""

import pytest
import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.networks.temporal_unet import FRAMES_PER_CHUNK, Clip, TemporalUNet

SIZE = (16, 12)
FRAMES = FRAMES_PER_CHUNK + 3
CLASSES = 3
KINDS = {"plain": PlainConvUNet, "residual": ResidualEncoderUNet}


def frame_network(kind="plain", channels=1, classes=CLASSES, deep_supervision=False, seed=0):
    torch.manual_seed(seed)
    per_stage = "n_conv_per_stage" if kind == "plain" else "n_blocks_per_stage"
    return KINDS[kind](
        input_channels=channels,
        n_stages=3,
        features_per_stage=(4, 6, 8),
        conv_op=nn.Conv2d,
        kernel_sizes=3,
        strides=(1, 2, 2),
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


def temporal_unet(awake=True, context_gradient=False, watch_first=False, **options):
    """A small network with memory on its two lower stages; ``awake`` memories have something to say."""
    unet = frame_network(**options)
    modules = {stage: GatedDeltaMemory(width, heads=2, key_size=4, value_size=4) for stage, width in ((2, 8), (1, 6))}
    if awake:
        for module in modules.values():
            nn.init.normal_(module.projection.weight, std=0.5)
    return TemporalUNet(unet, modules, watch_first=watch_first, context_gradient=context_gradient)


def movie(frames=FRAMES, batch=2, channels=1, seed=1):
    return torch.randn(batch, channels, frames, *SIZE, generator=torch.Generator().manual_seed(seed))


def clip_of(frames, decoded, padding=0):
    valid = torch.ones(frames.shape[0], frames.shape[2], dtype=torch.bool)
    valid[:, frames.shape[2] - padding :] = False
    return Clip(frames, valid, torch.tensor(decoded))


def scales_of(logits):
    return logits if isinstance(logits, list) else [logits]


def assert_same_logits(ours, expected, tolerance=1e-5):
    assert isinstance(ours, list) == isinstance(expected, list)
    torch.testing.assert_close(scales_of(ours), scales_of(expected), atol=tolerance, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("as_clip", [False, True])
@pytest.mark.parametrize("watch_first", [False, True])
def test_untrained_it_computes_exactly_what_the_stock_2d_network_computes(kind, deep_supervision, as_clip, watch_first):
    stock = frame_network(kind, deep_supervision=deep_supervision, seed=5)
    network = temporal_unet(False, watch_first=watch_first, kind=kind, deep_supervision=deep_supervision)
    network.load_state_dict(stock.state_dict(), strict=False)
    x, decoded = movie(), [[1, 4], [0, 10]] if as_clip else [range(FRAMES)] * 2
    ours = network(clip_of(x, decoded) if as_clip else x)
    frames = torch.cat([x[[b], :, t] for b in range(2) for t in decoded[b]])
    for our_scale, scale in zip(scales_of(ours), scales_of(stock(frames)), strict=True):
        expected = scale.unflatten(0, (2, -1)).transpose(1, 2)
        torch.testing.assert_close(our_scale, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_a_2d_network_load_and_only_temporal_ones_are_missing(kind):
    network = temporal_unet(kind=kind)
    missing, unexpected = network.load_state_dict(frame_network(kind, seed=5).state_dict(), strict=False)
    assert unexpected == []
    assert missing and all(name.startswith("temporal.") for name in missing)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 4, FRAMES])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_streaming_chunks_equals_the_whole_sequence(chunk, deep_supervision):
    network, x = temporal_unet(deep_supervision=deep_supervision), movie()
    state, parts = None, []
    for part in x.split(chunk, 2):
        logits, state = network.forward_chunk(part, state)
        parts.append(scales_of(logits))
    joined = [torch.cat(scale, 2) for scale in zip(*parts, strict=True)]
    assert_same_logits(joined if deep_supervision else joined[0], network(x), 1e-4)


@torch.no_grad()
def test_memory_reaches_across_the_chunks_of_a_long_sequence():
    network, x = temporal_unet(), movie()
    changed = x.clone()
    changed[:, :, 0] += 1
    assert (network(x) - network(changed))[:, :, FRAMES_PER_CHUNK:].abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 3), (5, 9)])
@pytest.mark.parametrize("watch_first", [False, True])
def test_zero_frames_at_the_ends_do_not_change_the_real_frames(before, after, watch_first):
    network, x = temporal_unet(watch_first=watch_first, deep_supervision=True), movie()
    padded = nn.functional.pad(x, (0, 0, 0, 0, before, after))
    logits = network(padded)
    assert_same_logits([scale[:, :, before : before + FRAMES] for scale in logits], network(x))
    assert all((scale[:, :, :before] == 0).all() for scale in logits)
    assert all((scale[:, :, before + FRAMES :] == 0).all() for scale in logits)


@torch.no_grad()
def test_zero_frames_within_a_sequence_leave_the_memory_alone():
    network, x = temporal_unet(), movie()
    interrupted = torch.cat((x[:, :, :4], torch.zeros_like(x[:, :, :2]), x[:, :, 4:]), 2)
    logits = network(interrupted)
    assert_same_logits(torch.cat((logits[:, :, :4], logits[:, :, 6:]), 2), network(x))


@torch.no_grad()
def test_sequences_of_a_batch_may_be_padded_differently():
    network, x = temporal_unet(), movie()
    x[0, :, :3] = 0
    together = network(x)
    assert_same_logits(together[:1, :, 3:], network(x[:1])[:, :, 3:])
    assert_same_logits(together[1:], network(x[1:]))


@torch.no_grad()
def test_an_all_zero_sequence_gets_finite_logits_of_full_shape():
    logits = temporal_unet()(torch.zeros(1, 1, 5, *SIZE))
    assert logits.shape == (1, CLASSES, 5, *SIZE)
    assert logits.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, FRAMES])
def test_deep_supervision_returns_every_scale_with_all_frames_full_resolution_first(frames):
    network, x = temporal_unet(deep_supervision=True), movie(frames)
    assert [tuple(scale.shape) for scale in network(x)] == [(2, CLASSES, frames, 16, 12), (2, CLASSES, frames, 8, 6)]
    clip = network(clip_of(x, [[0], [0]]))
    assert [tuple(scale.shape) for scale in clip] == [(2, CLASSES, 1, 16, 12), (2, CLASSES, 1, 8, 6)]
    network.decoder.deep_supervision = False  # as nnU-Net does to validate
    assert network(x).shape == (2, CLASSES, frames, 16, 12)


@torch.no_grad()
@pytest.mark.parametrize("context_gradient", [False, True])
@pytest.mark.parametrize("watch_first", [False, True])
@pytest.mark.parametrize("decoded", [[[1, 4], [0, 3]], [[4, 5], [0, 1]], [list(range(6))] * 2])
def test_decoded_frames_of_a_clip_get_the_logits_of_the_whole_sequence(decoded, context_gradient, watch_first):
    network, x = temporal_unet(context_gradient=context_gradient, watch_first=watch_first), movie(6)
    whole = network(x)
    expected = torch.stack([whole[b][:, decoded[b]] for b in range(2)])
    assert_same_logits(network(clip_of(x, decoded)), expected)


@torch.no_grad()
def test_watching_first_is_segmenting_a_second_time_with_the_state_of_the_first():
    network, x = temporal_unet(watch_first=True), movie()
    causal, state = network.forward_chunk(x)
    again, _ = network.forward_chunk(x, state)
    assert_same_logits(network(x), again, 1e-4)
    assert (causal - again)[:, :, 0].abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("watch_first", [False, True])
def test_padding_frames_of_a_clip_change_nothing_even_when_decoded(watch_first):
    network, x = temporal_unet(watch_first=watch_first), movie(6)
    short = network(clip_of(x[:, :, :4], [[1, 3]] * 2))
    x[:, :, 4:] = 0
    long = network(clip_of(x, [[1, 3, 5]] * 2, padding=2))
    assert_same_logits(long[:, :, :2], short)
    assert long.isfinite().all()


@pytest.mark.parametrize("context_gradient", [False, True])
def test_the_encoder_learns_from_context_frames_only_when_asked_to(context_gradient):
    network, x = temporal_unet(context_gradient=context_gradient), movie(5).requires_grad_()
    network(clip_of(x, [[1, 3]] * 2)).square().sum().backward()
    reached = x.grad.abs().amax((0, 1, 3, 4)) > 0
    # The last frame lies in the future of every decoded one.
    assert reached.tolist() == [context_gradient, True, context_gradient, True, False]


def train_once(network, clip):
    logits = network(clip)
    sum(scale.square().mean() for scale in logits).backward()


@pytest.mark.parametrize("decoded", [[[1, 3]] * 2, [[0], [4]], [list(range(5))] * 2])
@pytest.mark.parametrize("watch_first", [False, True])
def test_every_parameter_gets_a_gradient_from_the_first_step(decoded, watch_first):
    network = temporal_unet(awake=False, watch_first=watch_first, deep_supervision=True)
    train_once(network, clip_of(movie(5), decoded))
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("watch_first", [False, True])
@pytest.mark.parametrize("mixed_precision", [False, True])
def test_every_temporal_parameter_learns_once_the_projection_has_left_zero(watch_first, mixed_precision):
    network = temporal_unet(watch_first=watch_first, deep_supervision=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision):
        train_once(network, clip_of(movie(5), [[1, 3]] * 2))
    still = [name for name, parameter in network.temporal.named_parameters() if parameter.grad.abs().max() == 0]
    assert still == []


@pytest.fixture
def process_group(tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(("context_gradient", "watch_first"), [(False, False), (True, False), (False, True)])
def test_distributed_training_needs_no_search_for_unused_parameters(process_group, context_gradient, watch_first):
    options = {"context_gradient": context_gradient, "watch_first": watch_first, "deep_supervision": True}
    network = temporal_unet(awake=False, **options)
    distributed = DistributedDataParallel(network)
    for seed in range(2):  # an unused parameter is an error of the second step
        distributed.zero_grad()
        train_once(distributed, clip_of(movie(5, seed=seed), [[1, 3]] * 2))
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    train_once(network, clip_of(movie(5, seed=1), [[1, 3]] * 2))
    torch.testing.assert_close(gradients, [parameter.grad for parameter in network.parameters()])


def compiled_and_graphs(network):
    torch.compiler.reset()
    graphs = []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    return torch.compile(network, backend=count), graphs


def test_a_compiled_network_gives_the_same_and_does_not_recompile_for_other_decoded_frames():
    network = temporal_unet(watch_first=True, deep_supervision=True)
    compiled, graphs = compiled_and_graphs(network)
    compilations = []
    for decoded in ([[1, 3]] * 2, [[0, 4], [2, 3]]):
        clip = clip_of(movie(5), decoded)
        assert_same_logits(compiled(clip), network(clip))
        train_once(compiled, clip)
        compilations.append(len(graphs))
    assert compilations[0] == compilations[1] > 0


@torch.no_grad()
def test_a_compiled_network_takes_sequences_of_any_length_without_compiling():
    network = temporal_unet()
    compiled, graphs = compiled_and_graphs(network)
    for frames in (2, 3, FRAMES):
        assert_same_logits(compiled(movie(frames)), network(movie(frames)))
    assert graphs == []


@torch.no_grad()
@pytest.mark.parametrize(("channels", "classes"), [(1, 2), (3, 5)])
def test_any_number_of_channels_and_classes(channels, classes):
    network, x = temporal_unet(channels=channels, classes=classes), movie(4, channels=channels)
    assert network(x).shape == (2, classes, 4, *SIZE)
    assert network(clip_of(x, [[1, 2]] * 2)).shape == (2, classes, 2, *SIZE)


def test_a_clip_moves_to_another_device_as_one():
    moved = clip_of(movie(5), [[1, 3]] * 2).to(torch.device("meta"), non_blocking=True)
    assert isinstance(moved, Clip)
    assert all(part.is_meta for part in moved)
