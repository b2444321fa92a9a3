"""The gates against their formula, in their range for any source, and silent where an update has none."""

import math

import pytest
import torch
from torch import nn

from nnunet_temporal.networks.memory_gates import FrameProjection, MemoryGates, StateProjection
from nnunet_temporal.networks.memory_ops import LARGEST_WRITE_GATE
from nnunet_temporal.networks.memory_rules import UPDATES

CHANNELS, HEADS, V, K = 8, 3, 5, 4


def noise(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


SOURCES = {
    "frame": (lambda: FrameProjection(CHANNELS, HEADS), noise(2, 10, CHANNELS), (2, 10, HEADS, 1)),
    "state": (lambda: StateProjection(HEADS, V), noise(2, HEADS, V, K), (2, HEADS, K)),
}


def gates(source, update="gated_delta", awake=True):
    torch.manual_seed(0)
    module = MemoryGates(HEADS, UPDATES[update], SOURCES[source][0])
    if awake:
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    return module


@torch.no_grad()
def test_gates_of_a_frame_follow_their_formula():
    module, average = gates("frame"), SOURCES["frame"][1]
    decay, write = module(average)
    for b, t, h in ((0, 0, 0), (1, 7, 2), (0, 9, 1)):
        x = module.decay.linear.weight[h] @ average[b, t] + module.decay.linear.bias[h] + module.time_step[h, 0]
        expected = math.exp(-math.exp(module.log_rate[h, 0]) * math.log1p(math.exp(x)))
        assert decay[b, t, h, 0].item() == pytest.approx(expected, rel=1e-4)
        x = module.write.linear.weight[h] @ average[b, t] + module.write.linear.bias[h]
        assert write[b, t, h, 0].item() == pytest.approx(0.99 / (1 + math.exp(-x)), rel=1e-4)


@torch.no_grad()
def test_gates_of_a_state_follow_their_formula():
    module, state = gates("state"), SOURCES["state"][1]
    decay, write = module(state)
    for b, h, k in ((0, 0, 0), (1, 2, 3), (0, 1, 2)):
        x = module.decay.weight[h] @ state[b, h, :, k] + module.time_step[h, 0]
        expected = math.exp(-math.exp(module.log_rate[h, 0]) * math.log1p(math.exp(x)))
        assert decay[b, h, k].item() == pytest.approx(expected, rel=1e-4)
        x = module.write.weight[h] @ state[b, h, :, k]
        assert write[b, h, k].item() == pytest.approx(0.99 / (1 + math.exp(-x)), rel=1e-4)


@pytest.mark.parametrize("size", [1, 100, 1e6])
@pytest.mark.parametrize("source", SOURCES)
def test_gates_stay_in_their_range_and_their_gradients_finite_for_any_source(source, size):
    module = gates(source)
    x = (size * SOURCES[source][1]).requires_grad_()
    decay, write = module(x)
    assert decay.shape == write.shape == SOURCES[source][2]
    assert (decay >= 0).all() and (decay <= 1).all()
    assert (write >= 0).all() and (write <= LARGEST_WRITE_GATE).all()
    (decay.sum() + write.sum()).backward()
    assert all(gradient.isfinite().all() for gradient in (x.grad, *(p.grad for p in module.parameters())))


def test_the_largest_write_gate_is_below_one():
    assert LARGEST_WRITE_GATE < 1


@torch.no_grad()
@pytest.mark.parametrize("source", SOURCES)
def test_at_the_start_the_heads_forget_at_different_rates_whatever_the_source_shows(source):
    _, x, shape = SOURCES[source]
    decay, write = gates(source, awake=False)(x)
    torch.testing.assert_close(decay, torch.tensor([0.98, 0.84, 0.7])[:, None].expand(shape))
    torch.testing.assert_close(write, torch.full(shape, LARGEST_WRITE_GATE / 2))


@torch.no_grad()
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("update", UPDATES)
def test_a_gate_that_is_not_learned_is_one_and_has_no_parameters(update, source):
    module, row = gates(source, update), UPDATES[update]
    for learned, gate, projection in zip(
        (row.decays, row.gates_write), module(SOURCES[source][1]), (module.decay, module.write), strict=True
    ):
        assert (projection is not None) == learned
        assert learned or torch.equal(gate, torch.ones(1))
    rates = {"log_rate", "time_step"} if row.decays else set()
    assert {name for name, _ in module.named_parameters() if "." not in name} == rates
