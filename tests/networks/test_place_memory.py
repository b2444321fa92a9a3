"""The memory of every place: attention along time at each place, identity at first, causal, streamable, bounded."""

import pytest
import torch
from causal_modules import assert_chunks_agree_with_the_clip
from torch import nn

from nnunet_temporal.networks.place_memory import PlaceMemory, attend_along_time

CHANNELS, FRAMES, MEMORY = 6, 9, 4


def memory(awake=True, **options):
    """A small memory; ``awake`` gives its projection random weights, as training would."""
    torch.manual_seed(0)
    module = PlaceMemory(CHANNELS, **{"memory_frames": MEMORY, "heads": 2, "key_size": 3, **options})
    if awake:
        nn.init.normal_(module.projection.weight)
    return module.double()


def features(batch=2, frames=FRAMES, size=(4, 5), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, CHANNELS, *size, generator=generator, dtype=torch.float64)


def attend_by_loops(queries, keys, values, known):
    """Softmax over the known frames of a window, one number after the other."""
    out = torch.zeros(*queries.shape[:3], *values.shape[4:], dtype=queries.dtype)
    for b, t, head, y, x in torch.cartesian_prod(*(torch.arange(queries.shape[axis]) for axis in (0, 1, 2, 4, 5))):
        frames = known[b, t].nonzero()[:, 0]
        logits = [
            sum(q * k for q, k in zip(queries[b, t, head, :, y, x], keys[b, t, w, head, :, y, x], strict=True))
            / keys.shape[4] ** 0.5
            for w in frames
        ]
        weights = torch.stack(logits).exp()
        for weight, w in zip(weights / weights.sum(), frames, strict=True):
            out[b, t, head, :, y, x] = out[b, t, head, :, y, x] + weight * values[b, t, w, head, :, y, x]
    return out


def test_attention_is_a_softmax_over_the_known_frames_at_each_place_in_values_and_gradients():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)

    parts = draw(2, 3, 2, 3, 2, 2), draw(2, 3, 4, 2, 3, 2, 2), draw(2, 3, 4, 2, 5, 2, 2)
    known = torch.rand(2, 3, 4, generator=generator) < 0.6
    known[..., -1] = True
    gradients = []
    for attend in (attend_along_time, attend_by_loops):
        found = attend(*parts, known)
        weights = torch.linspace(-1, 1, found.numel(), dtype=torch.float64).view_as(found)
        gradients.append((found, *torch.autograd.grad((found * weights).sum(), parts)))
    for fast, loop in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, loop)


def test_untrained_it_returns_its_input():
    x = features()
    assert torch.equal(memory(awake=False)(x)[0], x)


@pytest.mark.parametrize("chunk", [1, 2, 4, FRAMES])
def test_frame_by_frame_chunks_and_clip_agree(chunk):
    assert_chunks_agree_with_the_clip(memory(), features(), chunk)


@torch.no_grad()
def test_a_frame_sees_itself_and_as_many_frames_before_it_as_are_remembered():
    module, x = memory(), features(batch=1)
    before, _ = module(x)
    for changed in range(FRAMES):
        other = x.clone()
        other[:, changed] += 1 + features(1, 1, seed=5)[:, 0]
        differs = (module(other)[0] - before).abs().amax((0, 2, 3, 4)) > 1e-9
        assert differs.nonzero()[:, 0].tolist() == list(range(changed, min(FRAMES, changed + MEMORY + 1)))


@torch.no_grad()
def test_a_place_sees_only_what_the_convolutions_around_it_reach():
    module, x = memory(), features(batch=1, size=(9, 9))
    # The norm averages over the frame; without it, only convolutions carry from place to place.
    module.norm = nn.Identity()
    other = x.clone()
    other[:, 0, :, 0, 0] += 3
    reached = (module(other)[0] - module(x)[0]).abs().amax((0, 1, 2)) > 1e-9
    assert reached[:3, :3].any() and not reached[3:].any() and not reached[:, 3:].any()


@torch.no_grad()
def test_padding_frames_are_as_if_they_were_not_there():
    module, x = memory(), features()
    valid = torch.ones(2, FRAMES, dtype=torch.bool)
    valid[0, [1, 4, 8]] = False
    out, state = module(x, valid=valid)
    alone, state_alone = module(x[:1, valid[0]])
    torch.testing.assert_close(out[:1, valid[0]], alone)
    for part, expected in zip(state, state_alone, strict=True):
        torch.testing.assert_close(part[:1], expected)


@torch.no_grad()
def test_the_first_frame_attends_to_itself_alone():
    module, x = memory(), features(frames=1)
    value = module.value(module.norm(x[:, 0]))
    # Attention itself computes in float32.
    torch.testing.assert_close(module(x)[0][:, 0], x[:, 0] + module.projection(value), atol=1e-5, rtol=0)


def test_the_state_does_not_grow():
    sizes = [sum(part.numel() for part in memory()(features(frames=frames))[1]) for frames in (1, 5, 9)]
    assert len(set(sizes)) == 1


def test_attention_computes_in_float32_under_mixed_precision():
    module, x = memory().float(), features().float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, state = module(1000 * x)
    assert out.isfinite().all()
    assert state.keys.dtype == state.values.dtype == torch.float32


def test_every_parameter_has_a_gradient():
    module = memory()
    module(features())[0].square().sum().backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_a_memory_of_no_frames_is_refused():
    with pytest.raises(ValueError, match="memory_frames must be 1 or more, got 0"):
        PlaceMemory(CHANNELS, memory_frames=0)
