"""The temporal U-Net: the stock 2D network when untrained, and one answer however the frames are fed."""

import pytest
import torch
from small_unets import CLASSES, KINDS, assert_same_logits, frame_network, scales_of
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.networks.neighbourhood import NeighbourhoodCorrelation
from nnunet_temporal.networks.refinement_head import RefinementHead
from nnunet_temporal.networks.temporal_module import TemporalModule
from nnunet_temporal.networks.temporal_unet import FRAMES_PER_CHUNK, Clip, TemporalUNet
from nnunet_temporal.networks.unreliable_pixels import UnreliablePixelAttention

SIZE = (16, 12)
FRAMES = FRAMES_PER_CHUNK + 3


def temporal_unet(awake=True, context_gradient=False, watch_first=False, **options):
    """A small network with memory on its two lower stages; ``awake`` memories have something to say."""
    unet = frame_network(**options)
    modules = {stage: GatedDeltaMemory(width, heads=2, key_size=4, value_size=4) for stage, width in ((2, 8), (1, 6))}
    if awake:
        for module in modules.values():
            nn.init.normal_(module.projection.weight, std=0.5)
    return TemporalUNet(unet, modules, watch_first=watch_first, context_gradient=context_gradient)


class Centred(TemporalModule):
    """Adds the difference of the neighbours, of which the missing one at an end counts as zero."""

    def __init__(self, delay=1):
        super().__init__()
        self.delay = delay

    def forward(self, features, state=None, valid=None):
        return self.stream(features, state, valid, last=True)

    def stream(self, features, state, valid, *, last):
        reach, held = self.delay, features[:, :0] if state is None else state[0]
        answered = 0 if state is None else state[1]
        frames = torch.cat((held, features), 1)
        stop = frames.shape[1] if last else max(frames.shape[1] - reach, 0)
        padded = nn.functional.pad(frames, (0, 0, 0, 0, 0, 0, reach, reach))
        out = frames + padded[:, 2 * reach :] - padded[:, : frames.shape[1]]
        start = max(stop - reach, 0)
        return out[:, answered:stop], None if last else (frames[:, start:], stop - start)


class Sharpening(RefinementHead):
    """Scales the logits by what the finest features say."""

    def forward(self, features, logits):
        return logits * (1 + features[0].mean(1, keepdim=True))


class Nothing(RefinementHead):
    """Leaves the logits as they are."""

    def forward(self, features, logits):
        return logits


def looking_ahead(delays=(1, 3), refinement=None, **options):
    """A network with a centred module on each of the two lower stages."""
    modules = {stage: Centred(delay) for stage, delay in zip((1, 2), delays, strict=True)}
    return TemporalUNet(frame_network(**options), modules, refinement=refinement)


def movie(frames=FRAMES, batch=2, channels=1, seed=1):
    return torch.randn(batch, channels, frames, *SIZE, generator=torch.Generator().manual_seed(seed))


def clip_of(frames, decoded, padding=0):
    valid = torch.ones(frames.shape[0], frames.shape[2], dtype=torch.bool)
    valid[:, frames.shape[2] - padding :] = False
    return Clip(frames, valid, torch.tensor(decoded))


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


def stream(network, x, sizes):
    """Feed the frames in chunks of the given sizes; return the logits of each call, full resolution first."""
    state, parts, start = None, [], 0
    for number, size in enumerate(sizes, start=1):
        logits, state = network.forward_chunk(x[:, :, start : start + size], state, last=number == len(sizes))
        parts.append(scales_of(logits))
        start += size
    assert start == x.shape[2]
    return parts


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * FRAMES, [1] * FRAMES + [0], [4, 0, FRAMES - 4], [FRAMES], [FRAMES, 0]])
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize("delays", [(1, 3), (2, 0), (0, 0)])
def test_streaming_with_a_delay_equals_the_whole_sequence_and_the_clip(sizes, deep_supervision, delays):
    network, x = looking_ahead(delays, deep_supervision=deep_supervision), movie()
    joined = [torch.cat(scale, 2) for scale in zip(*stream(network, x, sizes), strict=True)]
    expected = network(clip_of(x, [range(FRAMES)] * 2))
    assert_same_logits(joined if deep_supervision else joined[0], expected, 1e-4)
    assert_same_logits(network(x), expected, 1e-4)


@torch.no_grad()
def test_a_frame_is_segmented_once_the_longest_delay_has_passed():
    network = looking_ahead((1, 3))
    assert network.delay == 3
    assert [parts[0].shape[2] for parts in stream(network, movie(6), [1] * 6)] == [0, 0, 0, 1, 1, 4]
    assert temporal_unet().delay == 0


@torch.no_grad()
def test_a_delay_longer_than_a_chunk_still_segments_every_frame_of_a_sequence():
    network, x = looking_ahead((FRAMES_PER_CHUNK + 2, 0), deep_supervision=True), movie(3 * FRAMES_PER_CHUNK)
    assert_same_logits(network(x), network(clip_of(x, [range(x.shape[2])] * 2)), 1e-4)


@torch.no_grad()
def test_what_waits_for_a_delayed_stage_does_not_grow_with_the_sequence():
    network, state, waiting = looking_ahead((1, 3)), None, []
    for chunk in movie(30).split(3, 2):
        _, state = network.forward_chunk(chunk, state)
        waiting.append([tuple(skip.shape) for skip in state.waiting])
        assert all(skip.untyped_storage().nbytes() == skip.nbytes for skip in state.waiting)
    assert all(entry == waiting[2] for entry in waiting[2:])


@torch.no_grad()
@pytest.mark.parametrize("stride", [2, 3, FRAMES + 5])
@pytest.mark.parametrize("make", [temporal_unet, looking_ahead])
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_every_frame_of_a_sequence_sees_those_a_multiple_of_the_stride_away(stride, make, deep_supervision):
    network, x = make(deep_supervision=deep_supervision).eval(), movie()
    parts = {first: scales_of(network(x[:, :, first::stride])) for first in range(min(stride, FRAMES))}
    network.frame_stride = stride
    for number, scale in enumerate(scales_of(network(x))):
        for first, part in parts.items():
            assert_same_logits(scale[:, :, first::stride], part[number])


def test_a_stride_does_not_count_zero_frames():
    network, x = temporal_unet().eval(), movie()
    network.frame_stride = 2
    with_gap = torch.cat((torch.zeros_like(x[:, :, :3]), x[:, :, :4], torch.zeros_like(x[:, :, :1]), x[:, :, 4:]), 2)
    expected = network(x)
    assert_same_logits(network(with_gap)[:, :, [3, 4, 5, 6, *range(8, FRAMES + 4)]], expected)


def test_zero_frames_are_skipped_by_modules_that_look_ahead():
    network, x = looking_ahead(), movie()
    interrupted = torch.cat((torch.zeros_like(x[:, :, :2]), x[:, :, :4], torch.zeros_like(x[:, :, :1]), x[:, :, 4:]), 2)
    logits = network(interrupted)
    assert_same_logits(torch.cat((logits[:, :, 2:6], logits[:, :, 7:]), 2), network(x))
    assert (logits[:, :, [0, 1, 6]] == 0).all()


def test_watching_first_is_refused_for_modules_that_look_ahead():
    with pytest.raises(ValueError, match="watch_first"):
        TemporalUNet(frame_network(), {1: Centred()}, watch_first=True)


def test_a_module_with_a_delay_must_say_how_to_stream():
    module = temporal_unet().temporal["1"]
    module.delay = 1
    with pytest.raises(NotImplementedError, match="GatedDeltaMemory has a delay of 1"):
        module.stream(torch.zeros(1, 1, 6, 8, 6), None, None, last=False)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("deep_supervision", [False, True])
def test_running_the_decoder_layer_by_layer_equals_its_own_forward(kind, deep_supervision):
    x, stock = movie(3), frame_network(kind, deep_supervision=deep_supervision)
    network = TemporalUNet(frame_network(kind, deep_supervision=deep_supervision), {}, refinement=Nothing()).eval()
    # On a CPU, frames are predicted one at a time.
    frames = [scales_of(stock(frame)) for frame in x.transpose(1, 2).flatten(0, 1).split(1)]
    for ours, scale in zip(scales_of(network(x)), zip(*frames, strict=True), strict=True):
        assert torch.equal(ours, torch.cat(scale).unflatten(0, (2, 3)).transpose(1, 2))


@torch.no_grad()
@pytest.mark.parametrize(("training", "passes"), [(False, [1, 1, 1]), (True, [3])])
def test_on_a_cpu_frames_are_predicted_one_at_a_time_and_trained_together(training, passes):
    # Planning rehearses a training step on fake tensors of a CPU: with a pass per frame it would take hours.
    network, encoded, decoded = looking_ahead().train(training), [], []
    network.encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(len(inputs[0])))
    network.decoder.register_forward_pre_hook(lambda _, inputs: decoded.append(len(inputs[0][0])))
    network(clip_of(movie(3, batch=1), [[0, 1, 2]]))
    assert encoded == decoded == passes


@torch.no_grad()
@pytest.mark.parametrize("as_clip", [False, True])
def test_a_head_refines_the_full_resolution_with_the_features_it_was_built_for(as_clip):
    x = movie(4)
    plain, refined = (looking_ahead(refinement=head, deep_supervision=True) for head in (None, Sharpening()))
    given = clip_of(x, [[0, 2], [1, 3]]) if as_clip else x
    seen = []
    refined.refinement.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    before, after = plain(given), refined(given)
    features, logits = seen[0]
    assert [tuple(level.shape[1:]) for level in features] == [(4, 16, 12), (6, 8, 6)]
    assert logits.shape[1:] == (CLASSES, *SIZE)
    assert (before[0] - after[0]).abs().max() > 1e-3
    assert_same_logits(after[1:], before[1:])
    refined.decoder.deep_supervision = False  # as nnU-Net does to validate
    assert_same_logits(refined(given), after[0])


def test_a_head_gets_gradients_and_gives_them_to_the_decoder():
    network = looking_ahead(
        refinement=UnreliablePixelAttention((4, 6), CLASSES, heads=2, width=4), deep_supervision=True
    )
    train_once(network, clip_of(movie(5), [[1, 3]] * 2))
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.slow
def test_a_compiled_network_with_look_ahead_and_head_gives_the_same():
    torch.manual_seed(0)
    modules = {
        stage: NeighbourhoodCorrelation(width, heads=2, key_size=2, value_size=2) for stage, width in ((1, 6), (2, 8))
    }
    head = UnreliablePixelAttention((4, 6), CLASSES, heads=2, width=4)
    for last in (head.projection, *(module.projection for module in modules.values())):
        nn.init.normal_(last.weight)
    network = TemporalUNet(frame_network(deep_supervision=True), modules, refinement=head)
    compiled, graphs = compiled_and_graphs(network)
    compilations = []
    for decoded in ([[1, 3]] * 2, [[0, 4], [2, 3]]):
        clip = clip_of(movie(5), decoded)
        assert_same_logits(compiled(clip), network(clip))
        train_once(compiled, clip)
        compilations.append(len(graphs))
    assert compilations[0] == compilations[1] > 0


def test_a_clip_moves_to_another_device_as_one():
    moved = clip_of(movie(5), [[1, 3]] * 2).to(torch.device("meta"), non_blocking=True)
    assert isinstance(moved, Clip)
    assert all(part.is_meta for part in moved)
