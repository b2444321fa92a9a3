"""CSTM: the stock 2D network when untrained, one answer however the frames are fed, and given masks untouched."""

import pytest
import torch
from small_unets import CLASSES, KINDS, assert_same_logits, frame_network, scales_of
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from nnunet_temporal.errors import InputError
from nnunet_temporal.networks.cstm import CSTM, MatchingPlan
from nnunet_temporal.networks.memory_network import SeededClip
from nnunet_temporal.networks.temporal_unet import FRAMES_PER_CHUNK, Clip

SIZE = (16, 24)
FRAMES = FRAMES_PER_CHUNK + 3
MODES = [False, True]


def cstm(awake=True, stage=2, patch=4, top_k=3, memory_frames=2, per_object=False, channels=1, wide=1, **options):
    """A small network that matches at its two lower stages; an ``awake`` one uses what it recalls."""
    unet = frame_network(channels=channels, wide=wide, **options)
    plan = MatchingPlan(stage, patch, top_k, key_channels=5 * wide, value_channels=7 * wide)
    network = CSTM(unet, channels, plan, memory_frames=memory_frames, per_object=per_object)
    if awake:
        for parameter in network.projections.parameters():
            nn.init.normal_(parameter, std=0.5)
    return network


def movie(frames=FRAMES, batch=2, channels=1, seed=1):
    return torch.randn(batch, channels, frames, *SIZE, generator=torch.Generator().manual_seed(seed))


def mask_of(batch=2, classes=CLASSES, seed=2):
    labels = torch.randint(classes, (batch, *SIZE), generator=torch.Generator().manual_seed(seed))
    return nn.functional.one_hot(labels, classes).movedim(-1, 1).float()


def triplet(frames=3, decoded=None, padding=0, seed=1):
    x = movie(frames, seed=seed)
    valid = torch.ones(2, frames, dtype=torch.bool)
    valid[:, frames - padding :] = False
    decoded = torch.tensor([list(range(frames))] * 2 if decoded is None else decoded)
    return Clip(x, valid, decoded)


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("per_object", MODES)
@pytest.mark.parametrize("as_clip", [False, True])
def test_untrained_it_computes_exactly_what_the_stock_2d_network_computes(kind, per_object, as_clip):
    stock = frame_network(kind, deep_supervision=True, seed=5)
    network = cstm(False, kind=kind, deep_supervision=True, per_object=per_object)
    missing, unexpected = network.load_state_dict(stock.state_dict(), strict=False)
    assert unexpected == []
    assert {name.split(".")[0] for name in missing} == {"keys", "values", "projections", "overlapping"}
    clip = triplet()
    ours = network(clip if as_clip else clip.frames)
    for our_scale, scale in zip(ours, stock(clip.frames.transpose(1, 2).flatten(0, 1)), strict=True):
        torch.testing.assert_close(our_scale, scale.unflatten(0, (2, 3)).transpose(1, 2), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 4, FRAMES])
@pytest.mark.parametrize("memory_frames", [1, 2, 4])
@pytest.mark.parametrize("per_object", MODES)
def test_streaming_equals_the_whole_sequence_with_a_memory_that_does_not_grow(chunk, memory_frames, per_object):
    network = cstm(deep_supervision=True, memory_frames=memory_frames, per_object=per_object)
    x, state, parts = movie(), None, []
    for part in x.split(chunk, 2):
        logits, state = network.forward_chunk(part, state)
        parts.append(logits)
        assert state.written.shape[1] <= memory_frames
    assert_same_logits([torch.cat(scale, 2) for scale in zip(*parts, strict=True)], network(x), 1e-4)


@torch.no_grad()
def test_the_first_frame_is_segmented_without_memory_and_later_ones_with_it():
    network, x = cstm(), movie(3)
    alone = torch.cat([network(x[:, :, [t]]) for t in range(3)], 2)
    difference = (network(x) - alone).abs().amax((0, 1, 3, 4))
    assert difference[0] < 1e-5
    assert (difference[1:] > 1e-2).all()


@torch.no_grad()
@pytest.mark.parametrize("memory_frames", [1, 2, 4])
def test_a_frame_reads_the_first_frame_and_the_latest(memory_frames):
    network, x = cstm(memory_frames=memory_frames, top_k=1000), movie(6)
    state = network.forward_chunk(x[:, :, :5])[1]
    keys = [network.encode_key(x[:, :, t])[1][0] for t in range(5)]
    latest = range(6 - memory_frames, 5)
    torch.testing.assert_close(state.keys[0], torch.stack([keys[t] for t in (0, *latest)], 1))


@torch.no_grad()
@pytest.mark.parametrize("per_object", MODES)
def test_the_memory_holds_the_predicted_soft_mask(per_object):
    network, x = cstm(per_object=per_object), movie(1)
    logits, state = network.forward_chunk(x)
    expected = network.encode_value(x[:, :, 0], logits[:, :, 0].softmax(1))
    torch.testing.assert_close([value[:, 0] for value in state.values], list(expected))


@torch.no_grad()
def test_masks_of_regions_are_remembered_as_sigmoids():
    network, x = cstm(), movie(1)
    network.overlapping.fill_(True)
    logits, state = network.forward_chunk(x)
    expected = network.encode_value(x[:, :, 0], logits[:, :, 0].sigmoid())
    torch.testing.assert_close([value[:, 0] for value in state.values], list(expected))
    assert "overlapping" in network.state_dict()


@torch.no_grad()
def test_per_object_a_channel_is_recalled_from_its_own_mask_only():
    network = cstm(per_object=True)
    x, mask = movie(1), mask_of()
    changed = mask.clone()
    changed[:, 2] = 1 - changed[:, 2]
    keys = network.encode_key(x[:, :, 0])
    results = []
    for given in (mask, changed):
        values = network.encode_value(x[:, :, 0], given)
        bank = network.forward_chunk(x)[1]._replace(values=tuple(value.unsqueeze(1) for value in values))
        results.append(network.decode(keys[0], network.read(keys[1], bank)))
    difference = (results[0] - results[1]).abs().amax((0, 2, 3))
    assert (difference[:2] == 0).all()
    assert difference[2] > 1e-3


@torch.no_grad()
@pytest.mark.parametrize(("before", "after"), [(2, 0), (0, 3), (5, 9)])
def test_zero_frames_at_the_ends_do_not_change_the_real_frames(before, after):
    network, x = cstm(deep_supervision=True), movie()
    logits = network(nn.functional.pad(x, (0, 0, 0, 0, before, after)))
    assert_same_logits([scale[:, :, before : before + FRAMES] for scale in logits], network(x))
    assert all((scale[:, :, :before] == 0).all() for scale in logits)
    assert all((scale[:, :, before + FRAMES :] == 0).all() for scale in logits)


@torch.no_grad()
@pytest.mark.parametrize("memory_frames", [2, 4])
def test_zero_frames_within_a_sequence_leave_the_memory_alone(memory_frames):
    network, x = cstm(memory_frames=memory_frames), movie()
    interrupted = torch.cat((x[:, :, :4], torch.zeros_like(x[:, :, :2]), x[:, :, 4:]), 2)
    logits = network(interrupted)
    assert_same_logits(torch.cat((logits[:, :, :4], logits[:, :, 6:]), 2), network(x))


@torch.no_grad()
def test_sequences_of_a_batch_may_be_padded_differently():
    network, x = cstm(), movie()
    x[0, :, :3] = 0
    together = network(x)
    assert_same_logits(together[:1, :, 3:], network(x[:1])[:, :, 3:])
    assert_same_logits(together[1:], network(x[1:]))


@torch.no_grad()
def test_an_all_zero_sequence_gets_finite_logits_of_full_shape():
    logits = cstm()(torch.zeros(1, 1, 5, *SIZE))
    assert logits.shape == (1, CLASSES, 5, *SIZE)
    assert logits.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("decoded", [[[0, 1, 2]] * 2, [[0, 2], [1, 2]]])
def test_decoded_frames_of_a_clip_get_the_logits_of_the_sequence(decoded):
    network, clip = cstm(), triplet(decoded=decoded)
    whole = network(clip.frames)
    assert_same_logits(network(clip), torch.stack([whole[b][:, decoded[b]] for b in range(2)]))


@torch.no_grad()
def test_padding_frames_of_a_clip_are_not_remembered():
    network, clip = cstm(), triplet(4)
    valid = clip.valid.clone()
    valid[:, 1] = False
    skipped = network(clip._replace(valid=valid))
    assert_same_logits(skipped[:, :, 2], network(clip.frames[:, :, [0, 2]])[:, :, 1])


@torch.no_grad()
@pytest.mark.parametrize("seed_frame", [0, 4, FRAMES - 1])
def test_a_given_mask_comes_back_bit_for_bit_and_drives_both_directions(seed_frame):
    network, x, mask = cstm(deep_supervision=True), movie(), mask_of()
    result = network.propagate(x, mask, seed_frame)
    assert result.shape == (2, CLASSES, FRAMES, *SIZE)
    assert torch.equal(result[:, :, seed_frame], mask)
    torch.testing.assert_close(result.sum(1), torch.ones(2, FRAMES, *SIZE))
    other = network.propagate(x, mask_of(seed=3), seed_frame)
    assert ((result - other).abs().amax((0, 1, 3, 4)) > 1e-4).all()


@torch.no_grad()
def test_propagation_goes_from_frame_to_frame_away_from_the_seed():
    network, x, mask = cstm(), movie(5), mask_of()
    result = network.propagate(x, mask, 2)
    assert_same_logits(result[:, :, 2:], network.propagate(x[:, :, 2:], mask))
    assert_same_logits(result[:, :, :3].flip(2), network.propagate(x[:, :, :3].flip(2), mask))


@torch.no_grad()
def test_a_seeded_clip_equals_propagation_and_an_unknown_seed_the_automatic_mode():
    network, clip, mask = cstm(), triplet(), mask_of()
    seeds = mask.clone()
    seeds[1] = -1
    mixed = network(SeededClip(clip, seeds))
    assert_same_logits(network.probabilities(mixed)[:1, :, 1:], network.propagate(clip.frames[:1], mask[:1])[:, :, 1:])
    assert_same_logits(mixed[1:], network(clip)[1:])
    assert_same_logits(mixed[:1, :, 0], network(clip)[:1, :, 0])


@pytest.mark.parametrize(
    ("mask", "seed_frame", "message"),
    [
        (mask_of(classes=4), 0, r"mask must be \(B, K, Y, X\) = \(2, 3, 16, 24\), got \(2, 4"),
        (mask_of(), 3, r"seed_frame must lie in 0\.\.2, got 3"),
        (2 * mask_of(), 0, "one-hot encode labels"),
        (mask_of() * 0.5, 0, "one-hot encode labels"),
    ],
)
def test_a_seed_that_is_no_mask_of_its_frame_raises(mask, seed_frame, message):
    with pytest.raises(ValueError, match=message):
        cstm().propagate(movie(3), mask, seed_frame)


def train_once(network, x):
    sum(scale.square().mean() for scale in scales_of(network(x))).backward()


@pytest.mark.parametrize("per_object", MODES)
def test_every_parameter_gets_a_gradient_from_the_first_step(per_object):
    network = cstm(False, deep_supervision=True, per_object=per_object)
    train_once(network, triplet())
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("mixed_precision", [False, True])
@pytest.mark.parametrize("per_object", MODES)
def test_the_whole_memory_learns_finitely_once_the_projections_have_left_zero(mixed_precision, per_object):
    network = cstm(deep_supervision=True, per_object=per_object)
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed_precision):
        train_once(network, SeededClip(triplet(), mask_of()))
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert all(gradient.isfinite().all() for gradient in gradients.values())
    memory = [name for name in gradients if name.split(".")[0] in ("keys", "values", "projections")]
    # A bias of all keys shifts every affinity alike; one before an instance norm is removed by it.
    still = [name for name in memory if gradients[name].abs().max() == 0 and not name.endswith("bias")]
    assert still == []


@torch.no_grad()
def test_bfloat16_autocast_matches_in_float32():
    network, x = cstm(), movie(3)
    keys = network.encode_key(x[:, :, 0])[1]
    _, bank = network.forward_chunk(x)
    exact = network.read(keys, bank)
    with torch.autocast("cpu", torch.bfloat16):
        read = network.read(keys, bank)
    assert all(readout.dtype == torch.float32 for readout in read)
    torch.testing.assert_close(list(read), list(exact))


@pytest.mark.parametrize(
    ("strides", "stage", "message"),
    [
        ((1, 2, (2, 1)), 2, r"stage 2 has strides \[2, 1\].*end in one of \[1\]"),
        ((1, 2, 2), 3, r"got stage 3 of an encoder with stages 0\.\.2"),
        ((1, 2, 2), 0, r"got stage 0.*Choose one of 1\.\.2"),
    ],
)
def test_a_stage_that_cannot_be_matched_raises_and_says_which_can(strides, stage, message):
    with pytest.raises(InputError, match=message):
        cstm(strides=strides, stage=stage)


def test_frames_that_patches_do_not_tile_raise():
    with pytest.raises(InputError, match="do not tile a feature map of 4 x 7"):
        cstm()(torch.randn(1, 1, 2, 16, 28))


def test_a_memory_of_no_frames_is_refused():
    with pytest.raises(ValueError, match="memory_frames must be 1 or more, got 0"):
        cstm(memory_frames=0)


def wandering_discs(number, frames, generator):
    """Movies of a bright and a dark disc, and masks of one of them: only the first mask can tell which."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    centres = torch.rand(number, 2, 2, generator=generator) * 8 + torch.tensor([[4.0], [20.0]])
    chosen = torch.randint(2, (number,), generator=generator)
    images, labels = [], []
    for _ in range(frames):
        discs = (y - centres[..., :1, None]).square() + (x - centres[..., 1:, None]).square() < 16  # (B, 2, Y, X)
        images.append(discs[:, 0].float() - discs[:, 1].float())
        labels.append(discs[torch.arange(number), chosen].long())
        centres = (centres + 2 * torch.randn(number, 2, 2, generator=generator)).clamp(3, 28)
    images = torch.stack(images, 1).unsqueeze(1)
    return images + 0.1 * torch.randn(images.shape, generator=generator), torch.stack(labels, 1)


def one_hot(labels):
    return nn.functional.one_hot(labels, 2).movedim(-1, 1).float()


@pytest.mark.slow
def test_it_learns_to_follow_the_object_that_only_the_first_mask_tells():
    network, generator = cstm(False, classes=2, wide=3), torch.Generator().manual_seed(1)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(150):
        x, labels = wandering_discs(8, 3, generator)
        clip = Clip(x, torch.ones(8, 3, dtype=torch.bool), torch.arange(3).expand(8, 3))
        logits = network(SeededClip(clip, one_hot(labels[:, 0])))
        optimizer.zero_grad()
        nn.functional.cross_entropy(logits[:, :, 1:], labels[:, 1:]).backward()
        optimizer.step()
    x, labels = wandering_discs(16, 6, generator)
    with torch.no_grad():
        found = network.propagate(x, one_hot(labels[:, 0])).argmax(1)[:, 1:] == 1
    truth = labels[:, 1:] == 1
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_distributed_training_needs_no_search_for_unused_parameters(process_group):
    network = cstm(False, deep_supervision=True)
    distributed = DistributedDataParallel(network)
    for seed in range(2):  # an unused parameter is an error of the second step
        distributed.zero_grad()
        train_once(distributed, triplet(seed=seed))
    gradients = [parameter.grad.clone() for parameter in network.parameters()]
    network.zero_grad()
    train_once(network, triplet(seed=1))
    torch.testing.assert_close(gradients, [parameter.grad for parameter in network.parameters()])


def test_a_compiled_network_gives_the_same_and_compiles_once():
    torch.compiler.reset()
    network, graphs = cstm(deep_supervision=True), []

    def count(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled, counts = torch.compile(network, backend=count), []
    for seed in range(2):
        clip = SeededClip(triplet(seed=seed), mask_of())
        assert_same_logits(compiled(clip), network(clip))
        train_once(compiled, clip)
        counts.append(len(graphs))
    assert counts[0] == counts[1] > 0


def test_a_seeded_clip_moves_to_another_device_as_one():
    moved = SeededClip(triplet(), mask_of()).to(torch.device("meta"), non_blocking=True)
    assert isinstance(moved.clip, Clip)
    assert moved.seeds.is_meta and all(part.is_meta for part in moved.clip)


@torch.no_grad()
def test_it_may_match_otherwise_than_planned():
    frames, network = movie(3), cstm(top_k=2)
    planned = network(frames)
    network.match_as(top_k=1)
    assert network.matching == MatchingPlan(2, 4, 1, key_channels=5, value_channels=7)
    assert not torch.allclose(network(frames), planned)
    network.match_as(patch=2, top_k=2)
    assert not torch.allclose(network(frames), planned)
    network.match_as(patch=4)
    torch.testing.assert_close(network(frames), planned)


@torch.no_grad()
@pytest.mark.parametrize("stage", [1, 2])
def test_a_scale_that_is_not_read_brings_nothing(stage):
    frames, network, muted = movie(3), cstm(), cstm()
    network.match_as(stages=(stage,))
    silent = muted.scales.index(3 - stage)
    muted.projections[silent].weight.zero_()
    torch.testing.assert_close(network(frames), muted(frames))


@pytest.mark.parametrize("options", [{"patch": 3}, {"top_k": -1}, {"stages": (0,)}, {"stages": ()}])
def test_matching_that_is_impossible_is_refused(options):
    with pytest.raises(InputError, match="expected"):
        cstm().match_as(**options)
