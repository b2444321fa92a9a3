"""State-space guidance: its mixers against plain loops, and the promises of a temporal module."""

import math

import pytest
import torch
from causal_modules import assert_chunks_agree_with_the_clip
from torch import nn

from nnunet_temporal.networks.state_space import scan
from nnunet_temporal.networks.state_space_guidance import (
    PAST_FRAMES,
    SPATIAL_MIXERS,
    AttentionMixer,
    FrameGate,
    SelectiveInputs,
    StateSpaceGuidance,
    StateSpaceMixer,
)

CHANNELS, FRAMES, HEADS, KEY, VALUE = 8, 9, 2, 4, 3
HALF, ALL, NOTHING = math.log(math.log(2)), -math.inf, 100.0
"""What to set ``carry_log_rate`` to for later frames to inherit so much."""


def guidance(mixer="mamba", awake=True):
    """A small module; ``awake`` gives the projection random weights, as training would."""
    torch.manual_seed(0)
    module = StateSpaceGuidance(CHANNELS, heads=HEADS, key_size=KEY, value_size=VALUE, mixer=mixer)
    if awake:
        nn.init.normal_(module.projection.weight, std=0.5)
    return module


def features(batch=2, frames=FRAMES, size=(4, 5), seed=1):
    return torch.randn(batch, frames, CHANNELS, *size, generator=torch.Generator().manual_seed(seed))


def mixer_and_tokens(kind, carry_log_rate=HALF, frames=4, pixels=6):
    torch.manual_seed(0)
    mixer = kind(CHANNELS, HEADS, KEY, VALUE).double()
    nn.init.constant_(mixer.carry_log_rate, carry_log_rate)
    return mixer, torch.randn(2, frames, pixels, CHANNELS, dtype=torch.float64), torch.ones(2, frames).bool()


def inherited(queries, share):
    """q~_t = q_t + a q~_{t-1}, of a list of (N, D_k) queries."""
    result = [queries[0]]
    for query in queries[1:]:
        result.append(query + share * result[-1])
    return result


def plain_state_space_mixer(mixer, tokens):
    """Frame by frame, token by token: (B, T, 2 H, N, D_v)."""
    (batch, frames, pixels), shares = tokens.shape[:3], (-mixer.carry_log_rate.exp()).exp()
    rows = []
    for b in range(batch):
        heads = []
        for order, inputs in enumerate((mixer.raster, mixer.reverse)):
            query, key, value, log_decay = inputs(tokens[b])
            for h in range(HEADS):
                share = shares[order * HEADS + h]
                queries = [q.flip(0) if order else q for q in query[:, h]]
                queries = [q.flip(0) if order else q for q in inherited(queries, share)]
                memory, of_frames = torch.zeros(VALUE, KEY, dtype=tokens.dtype), []
                for t in range(frames):
                    memory, of_tokens = (0 if order else share) * memory, [None] * pixels
                    for n in reversed(range(pixels)) if order else range(pixels):
                        memory = log_decay[t, h, n].exp() * memory + torch.outer(value[t, h, n], key[t, h, n])
                        of_tokens[n] = memory @ queries[t][n]
                    of_frames.append(torch.stack(of_tokens))
                heads.append(torch.stack(of_frames))
        rows.append(torch.stack(heads, 1))
    return torch.stack(rows)


def plain_attention_mixer(mixer, tokens):
    """Frame by frame, head by head: (B, T, H, N, D_v)."""
    (batch, frames), shares = tokens.shape[:2], (-mixer.carry_log_rate.exp()).exp()
    rows = []
    for b in range(batch):
        parts = mixer.token(tokens[b]).unflatten(-1, (HEADS, -1))
        heads = []
        for h in range(HEADS):
            query, key, value = parts[:, :, h].split((KEY, KEY, VALUE), -1)
            queries, of_frames = inherited(list(query), shares[h]), []
            for t in range(frames):
                window = slice(max(0, t - PAST_FRAMES), t + 1)
                logits = queries[t] @ key[window].flatten(0, 1).T / math.sqrt(KEY)
                of_frames.append(logits.softmax(-1) @ value[window].flatten(0, 1))
            heads.append(torch.stack(of_frames))
        rows.append(torch.stack(heads, 1))
    return torch.stack(rows)


PLAIN = {StateSpaceMixer: plain_state_space_mixer, AttentionMixer: plain_attention_mixer}


def values_and_gradients(run, mixer, tokens):
    mixed = run(tokens)
    weight = torch.randn(mixed.shape, generator=torch.Generator().manual_seed(3), dtype=mixed.dtype)
    return mixed.detach(), torch.autograd.grad((mixed * weight).sum(), list(mixer.parameters()))


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("carry_log_rate", [HALF, ALL, NOTHING])
def test_a_mixer_equals_its_loop_in_values_and_gradients(kind, carry_log_rate):
    mixer, tokens, valid = mixer_and_tokens(kind, carry_log_rate)
    ours = values_and_gradients(lambda x: mixer(x, None, valid)[0], mixer, tokens)
    expected = values_and_gradients(lambda x: PLAIN[kind](mixer, x), mixer, tokens)
    torch.testing.assert_close(ours, expected)


@torch.no_grad()
def test_frames_that_inherit_nothing_are_mixed_each_by_itself():
    mixer, tokens, valid = mixer_and_tokens(StateSpaceMixer, NOTHING)
    alone = [mixer(tokens[:, [t]], None, valid[:, [t]])[0] for t in range(tokens.shape[1])]
    torch.testing.assert_close(mixer(tokens, None, valid)[0], torch.cat(alone, 1))


@torch.no_grad()
def test_reversing_the_tokens_of_a_frame_exchanges_the_two_orders():
    mixer, tokens, valid = mixer_and_tokens(StateSpaceMixer, frames=1)
    mixer.reverse.load_state_dict(mixer.raster.state_dict())
    raster, reverse = mixer(tokens, None, valid)[0].split(HEADS, 2)
    swapped_raster, swapped_reverse = mixer(tokens.flip(2), None, valid)[0].split(HEADS, 2)
    torch.testing.assert_close((raster, reverse), (swapped_reverse.flip(3), swapped_raster.flip(3)))
    assert not torch.allclose(raster, reverse)


@torch.no_grad()
def test_frames_that_inherit_everything_share_one_memory_as_one_long_sequence_would():
    mixer, tokens, valid = mixer_and_tokens(StateSpaceMixer, ALL)
    one_frame = tokens.flatten(1, 2)[:, None]
    memory, queries = mixer(tokens, None, valid)[1]
    long_memory, long_queries = mixer(one_frame, None, valid[:, :1])[1]
    torch.testing.assert_close(memory, long_memory)
    by_frame = long_queries[:, :HEADS].unflatten(2, tokens.shape[1:3])
    torch.testing.assert_close(queries[:, :HEADS], by_frame.sum(2))


@torch.no_grad()
def test_at_the_start_memories_last_from_ten_to_a_thousand_tokens_and_frames_inherit_half():
    log_decay = SelectiveInputs(CHANNELS, 3, KEY, VALUE, (10, 1000))(torch.zeros(1, CHANNELS))[3]
    torch.testing.assert_close(-1 / log_decay[:, 0], torch.tensor([10.0, 100.0, 1000.0]))
    share = (-StateSpaceMixer(CHANNELS, HEADS, KEY, VALUE).carry_log_rate.exp()).exp()
    torch.testing.assert_close(share, torch.full((2 * HEADS,), 0.5))


@torch.no_grad()
def test_a_head_reads_a_running_mean_so_that_it_answers_alike_however_long_its_memory():
    inputs, tokens = SelectiveInputs(CHANNELS, 2, KEY, VALUE, (10, 100)).double(), torch.randn(1, CHANNELS).double()
    nn.init.zeros_(inputs.step.weight)
    query, key, value, log_decay = inputs(tokens.expand(1000, CHANNELS))
    read, _ = scan(query, key, value, log_decay, key.new_zeros(2, VALUE, KEY))
    projected = inputs.token(tokens[0]).view(2, -1)
    expected = (projected[:, :KEY] * projected[:, KEY : 2 * KEY]).sum(1, keepdim=True) * projected[:, 2 * KEY :]
    torch.testing.assert_close(read[:, -1], expected, rtol=0.06, atol=0)


@torch.no_grad()
def test_decays_never_exceed_one_and_the_gate_stays_in_its_range():
    inputs, tokens = SelectiveInputs(CHANNELS, HEADS, KEY, VALUE, (3, 50)), 1e3 * features(size=(1, 1)).flatten(2)
    assert (inputs(tokens)[3] <= 0).all()
    gate, _ = FrameGate(CHANNELS, 5, HEADS, KEY, VALUE)(tokens, None, torch.ones(2, FRAMES).bool())
    assert gate.shape == (2, FRAMES, 5)
    assert gate.abs().max() <= 1


@torch.no_grad()
def test_the_gate_of_a_frame_depends_on_earlier_frames():
    module, x = guidance(), features()
    changed = x.clone()
    changed[:, 2] += 1 + features(frames=1, seed=4)[:, 0]
    averages = [module.norm(f.flatten(3).transpose(2, 3)).mean(2) for f in (x, changed)]
    first, second = (module.gate(average, None, torch.ones(2, FRAMES).bool())[0] for average in averages)
    difference = (first - second).abs().amax((0, 2))
    assert (difference[:2] == 0).all() and (difference[2:5] > 1e-4).all()


@pytest.mark.parametrize("mixer", SPATIAL_MIXERS)
def test_untrained_it_returns_its_input(mixer):
    x = features()
    assert torch.equal(guidance(mixer, awake=False)(x)[0], x)


@pytest.mark.parametrize("mixer", SPATIAL_MIXERS)
@pytest.mark.parametrize("chunk", [1, 2, 4, FRAMES])
def test_frame_by_frame_chunks_and_clip_agree(mixer, chunk):
    assert_chunks_agree_with_the_clip(guidance(mixer), features(), chunk, atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("mixer", SPATIAL_MIXERS)
def test_a_frame_sees_the_past_and_not_the_future(mixer):
    module, x = guidance(mixer), features()
    changed = x.clone()
    changed[:, 5] += features(frames=1, seed=4)[:, 0]
    difference = (module(changed)[0] - module(x)[0]).abs().amax((0, 2, 3, 4))
    assert (difference[:5] == 0).all()
    assert (difference[5:8] > 1e-3).all()


@torch.no_grad()
@pytest.mark.parametrize("mixer", SPATIAL_MIXERS)
@pytest.mark.parametrize("padding", [(0, 1), (3, 4, 5), (7, 8)])
def test_padding_frames_change_neither_later_frames_nor_the_state(mixer, padding):
    module, x = guidance(mixer), features()
    valid = torch.ones(2, FRAMES, dtype=torch.bool)
    valid[0, list(padding)] = False
    out, state = module(x, None, valid)
    for row in range(2):
        alone, expected = module(x[[row]][:, valid[row]])
        torch.testing.assert_close(out[[row]][:, valid[row]], alone, atol=1e-4, rtol=0)
        own = ([part[[row]] for part in state[0]], state[1][[row]])
        torch.testing.assert_close(own, (list(expected[0]), expected[1]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("mixer", SPATIAL_MIXERS)
@pytest.mark.parametrize("frames", [1, FRAMES])
def test_gradients_are_finite_and_every_parameter_has_one(mixer, frames):
    module, x = guidance(mixer), features(frames=frames).requires_grad_()
    module(x)[0].pow(3).mean().backward()
    gradients = {"input": x.grad, **{name: parameter.grad for name, parameter in module.named_parameters()}}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    silent = {name for name, gradient in gradients.items() if gradient.abs().max() == 0}
    # A single frame has nothing to inherit or to forget.
    assert silent <= ({"mixer.carry_log_rate", "gate.inputs.log_rate"} if frames == 1 else set())


@torch.no_grad()
@pytest.mark.parametrize("mixer", SPATIAL_MIXERS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_computes_in_float32_under_autocast_and_on_features_of_half_precision(mixer, dtype):
    module, x = guidance(mixer), features().to(dtype)
    exact, exact_state = module(x.float())
    with torch.autocast("cpu", dtype):
        out, state = module(x)
    assert out.dtype == dtype
    torch.testing.assert_close(out, exact.to(dtype))
    torch.testing.assert_close(state, exact_state)


@torch.no_grad()
@pytest.mark.parametrize("mixer", SPATIAL_MIXERS)
def test_a_long_sequence_stays_bounded_and_the_state_does_not_grow(mixer):
    module, x = guidance(mixer), features(batch=1, frames=500, size=(2, 3)) + features(1, 1, (2, 3), seed=5)
    out, state = module(x)
    _, early = module(x[:, :100])
    assert out[:, 250:].abs().max() < 2 * out[:, :250].abs().max()
    for now, then in zip((*state[0], state[1]), (*early[0], early[1]), strict=True):
        assert now.shape == then.shape
        assert now.float().norm() < 2 * then.float().norm()


def test_the_name_chooses_the_mixer():
    assert isinstance(guidance("mamba").mixer, StateSpaceMixer)
    assert isinstance(guidance("attention").mixer, AttentionMixer)


def test_an_unknown_mixer_raises_and_names_the_known_ones():
    with pytest.raises(ValueError, match=r"attention.*mamba.*'convolution'"):
        guidance("convolution")
