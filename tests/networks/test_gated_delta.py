"""The gated delta memory as a temporal module: identity at first, causal, streamable, safe for padding."""

import pytest
import torch
from torch import nn

from nnunet_temporal.networks import memory_ops
from nnunet_temporal.networks.gated_delta import FrameGates, GatedDeltaMemory, KeyPixelFusion

CHANNELS, FRAMES = 8, 10


def memory(awake=True, **options):
    """A small memory; ``awake`` gives what is zero at the start random weights, as training would."""
    torch.manual_seed(0)
    module = GatedDeltaMemory(CHANNELS, heads=2, key_size=4, value_size=4, **options)
    if awake:
        for layer in (module.projection, module.gates.decay, module.gates.write):
            nn.init.normal_(layer.weight, std=0.5)
    return module


def features(batch=2, frames=FRAMES, size=(5, 6), seed=1):
    return torch.randn(batch, frames, CHANNELS, *size, generator=torch.Generator().manual_seed(seed))


def test_an_untrained_memory_returns_its_input():
    x = features()
    assert torch.equal(memory(awake=False)(x)[0], x)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 3, FRAMES])
@pytest.mark.parametrize("mode", memory_ops.TRANSITIONS)
def test_frame_by_frame_chunks_and_clip_agree(chunk, mode):
    # One pixel, where the explicit rule is stable too.
    module, x = memory(mode=mode), features(size=(5, 6) if mode == "implicit" else (1, 1))
    state, parts = None, []
    for part in x.split(chunk, 1):
        out, state = module(part, state)
        parts.append(out)
    whole, last = module(x)
    assert (whole - x).abs().max() > 0.1
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(state, last, atol=1e-4, rtol=0)


@torch.no_grad()
def test_a_frame_sees_the_past_and_not_the_future():
    module, x = memory(), features()
    changed = x.clone()
    changed[:, 5] += 1
    difference = (module(changed)[0] - module(x)[0]).abs().amax((0, 2, 3, 4))
    assert (difference[:5] == 0).all()
    assert (difference[5:8] > 1e-4).all()


@torch.no_grad()
@pytest.mark.parametrize("padding", [(0, 1), (4, 5, 6), (10, 11)])
def test_invalid_frames_change_neither_later_frames_nor_the_state(padding):
    module, x = memory(), features(frames=12)
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[:, list(padding)] = False
    padded, state = module(x, None, valid)
    alone, expected = module(x[:, valid[0]])
    torch.testing.assert_close(padded[:, valid[0]], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(state, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_batch_may_mix_clips_of_different_length():
    module, x = memory(), features()
    valid = torch.ones(2, FRAMES, dtype=torch.bool)
    valid[1, 6:] = False
    out, state = module(x, None, valid)
    shorter, shorter_state = module(x[1:, :6])
    torch.testing.assert_close(out[1:, :6], shorter, atol=1e-5, rtol=0)
    torch.testing.assert_close(state[1:], shorter_state, atol=1e-5, rtol=0)


def test_an_unknown_mode_raises_and_names_the_known_ones():
    with pytest.raises(ValueError, match=r"implicit.*raw.*'explicit'"):
        memory(mode="explicit")


def test_gradients_are_finite_and_reach_every_parameter_with_write_gates_at_their_limit():
    module, x = memory(), features().requires_grad_()
    nn.init.constant_(module.gates.write.bias, 6.0)
    out, state = module(x)
    assert module.gates(x.mean((-2, -1)))[1].max() > 0.985
    (out.square().mean() + state.square().mean()).backward()
    gradients = [x.grad, *(parameter.grad for parameter in module.parameters())]
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in gradients)


@torch.no_grad()
def test_bfloat16_autocast_comes_close_to_float32():
    module, x = memory(), features()
    exact, exact_state = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, state = module(x)
    assert state.dtype == torch.float32
    added = (exact - x).std()
    assert (rounded - exact).std() < 0.03 * added
    assert (state - exact_state).std() < 0.03 * exact_state.std()


@torch.no_grad()
def test_gates_stay_in_their_range_for_any_feature():
    gates = FrameGates(CHANNELS, 3)
    nn.init.normal_(gates.decay.weight)
    nn.init.normal_(gates.write.weight)
    decay, write = gates(20 * features(size=(1, 1)).flatten(2))
    assert decay.shape == write.shape == (2, FRAMES, 3)
    assert (decay > 0).all() and (decay <= 1).all()
    assert (write >= 0).all() and (write <= memory_ops.LARGEST_WRITE_GATE).all()
    assert memory_ops.LARGEST_WRITE_GATE < 1


@torch.no_grad()
def test_at_the_start_the_heads_forget_at_different_rates_whatever_the_frame_shows():
    decay, write = FrameGates(CHANNELS, 3)(features(size=(1, 1)).flatten(2))
    torch.testing.assert_close(decay, torch.tensor([0.98, 0.84, 0.7]).expand(2, FRAMES, 3))
    torch.testing.assert_close(write, torch.full((2, FRAMES, 3), memory_ops.LARGEST_WRITE_GATE / 2))


@torch.no_grad()
@pytest.mark.parametrize("bias", [-50.0, 50.0])
def test_the_gate_chooses_between_pixel_features_and_local_plus_average_keys(bias):
    torch.manual_seed(0)
    fusion, x = KeyPixelFusion(CHANNELS, 6), features(batch=1)[0]
    nn.init.constant_(fusion.gate.bias, bias)
    local = fusion.key(x)
    expected = local + local.mean((-2, -1), keepdim=True) if bias > 0 else fusion.pixel(x)
    torch.testing.assert_close(fusion(x), expected)


@torch.no_grad()
def test_keys_of_a_frame_do_not_depend_on_other_frames():
    torch.manual_seed(0)
    fusion, x = KeyPixelFusion(CHANNELS, 6), features(batch=1)[0]
    torch.testing.assert_close(fusion(x)[3:4], fusion(x[3:4]))
