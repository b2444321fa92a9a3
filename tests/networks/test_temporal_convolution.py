"""Temporal convolution as a temporal module: identity at first, causal, streamable, safe for padding."""

import pytest
import torch
from causal_modules import assert_chunks_agree_with_the_clip
from torch import nn
from torch.nn import functional

from nnunet_temporal.networks.temporal_convolution import CausalFrameConvolution, TemporalConvolution

CHANNELS, FRAMES = 6, 9


def convolution(awake=True, **options):
    """A small stack; ``awake`` gives taps and projection random weights, as training would."""
    torch.manual_seed(0)
    module = TemporalConvolution(CHANNELS, **options)
    if awake:
        nn.init.normal_(module.projection.weight)
        for layer in module.temporal:
            nn.init.normal_(layer.weight)
    return module


def features(batch=2, frames=FRAMES, size=(4, 5), seed=1):
    return torch.randn(batch, frames, CHANNELS, *size, generator=torch.Generator().manual_seed(seed))


def test_untrained_it_returns_its_input():
    x = features()
    assert torch.equal(convolution(awake=False)(x)[0], x)


def test_a_fresh_kernel_takes_the_frame_itself():
    x = features()
    mixed, _ = CausalFrameConvolution(CHANNELS, 3)(x, torch.randn(2, 2, *x.shape[2:]), torch.ones(2, FRAMES).bool())
    torch.testing.assert_close(mixed, x)


@torch.no_grad()
def test_a_layer_is_torchs_depthwise_convolution_with_zeros_before_the_first_frame():
    layer, x = CausalFrameConvolution(CHANNELS, 3), features()
    nn.init.normal_(layer.weight)
    mixed, past = layer(x, torch.zeros(2, 2, *x.shape[2:]), torch.ones(2, FRAMES, dtype=torch.bool))
    padded = functional.pad(x.transpose(1, 2), (0, 0, 0, 0, 2, 0))
    expected = functional.conv3d(padded, layer.weight.T[:, None, :, None, None], groups=CHANNELS).transpose(1, 2)
    torch.testing.assert_close(mixed, expected)
    assert torch.equal(past, x[:, -2:])


@pytest.mark.parametrize("chunk", [1, 2, 4, FRAMES])
def test_frame_by_frame_chunks_and_clip_agree(chunk):
    assert_chunks_agree_with_the_clip(convolution(), features(), chunk, atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize(("layers", "kernel_size", "reach"), [(2, 3, 4), (1, 2, 1), (3, 2, 3)])
def test_a_frame_sees_as_far_back_as_the_kernels_reach_and_never_ahead(layers, kernel_size, reach):
    module, x = convolution(layers=layers, kernel_size=kernel_size), features()
    changed = x.clone()
    changed[:, 3, :, 0, 0] += 5
    difference = (module(changed)[0] - module(x)[0]).abs().amax((0, 2, 3, 4))
    assert (difference > 1e-4).tolist() == [3 <= t <= 3 + reach for t in range(FRAMES)]


@torch.no_grad()
@pytest.mark.parametrize("padding", [(0, 1), (3, 4, 5), (7, 8)])
def test_padding_frames_are_skipped_and_not_convolved_as_zeros(padding):
    module, x = convolution(), features()
    valid = torch.ones(2, FRAMES, dtype=torch.bool)
    valid[0, list(padding)] = False
    out, state = module(x, None, valid)
    alone, expected = module(x[:1, valid[0]])
    torch.testing.assert_close(out[:1, valid[0]], alone, atol=1e-5, rtol=0)
    torch.testing.assert_close(tuple(past[:1] for past in state), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(out[1:], module(x[1:])[0], atol=1e-5, rtol=0)


def test_a_tap_that_training_clips_never_reach_stays_silent():
    module = convolution(awake=False)
    nn.init.normal_(module.projection.weight)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    module(features(frames=2))[0].square().mean().backward()
    optimizer.step()
    untouched, reached, itself = module.temporal[0].weight.abs().amax(1)
    assert untouched == 0 < reached
    assert itself > 0


def test_gradients_are_finite_and_reach_every_parameter():
    module, x = convolution(), features().requires_grad_()
    module(x)[0].pow(3).mean().backward()
    gradients = [x.grad, *(parameter.grad for parameter in module.parameters())]
    assert all(gradient.isfinite().all() and gradient.abs().max() > 0 for gradient in gradients)


@torch.no_grad()
def test_bfloat16_autocast_streams_and_comes_close_to_float32():
    module, x = convolution(), features()
    exact, state, parts = module(x)[0], None, []
    with torch.autocast("cpu", torch.bfloat16):
        for part in x.split(4, 1):
            out, state = module(part, state)
            parts.append(out)
    assert (torch.cat(parts, 1) - exact).std() < 0.03 * (exact - x).std()


@torch.no_grad()
def test_a_long_sequence_stays_bounded_and_the_state_does_not_grow():
    module = convolution()
    out, state = module(features(batch=1, frames=500))
    assert out[:, 250:].abs().max() < 2 * out[:, :250].abs().max()
    assert [tuple(past.shape) for past in state] == [(1, 2, CHANNELS, 4, 5)] * 2
