"""The memory's mathematics against plain loops, and the promises its docstrings make."""

import pytest
import torch

from nnunet_temporal.networks import memory_ops

GATES = (0.0, 0.5, 0.9, 0.99)
B, T, H, K, V, N = 2, 3, 2, 4, 3, 5


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def uniform(*shape, seed=0, lowest=0.1, highest=0.9):
    drawn = torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return lowest + (highest - lowest) * drawn


def per_head(function):
    """Lift a function of one frame and head to (B, T, H, ...) tensors, by loops."""

    def looped(*tensors):
        batch, frames, heads = tensors[0].shape[:3]
        cells = [
            function(*(x[b, t, h] for x in tensors)) for b in range(batch) for t in range(frames) for h in range(heads)
        ]
        cells = [cell if isinstance(cell, tuple) else (cell,) for cell in cells]
        return tuple(torch.stack(part).unflatten(0, (batch, frames, heads)) for part in zip(*cells, strict=True))

    return looped


def reference_unit_norm(keys):
    columns = [keys[:, n] / (keys[:, n].dot(keys[:, n]) + 1e-12).sqrt() for n in range(keys.shape[1])]
    return torch.stack(columns, 1)


def reference_statistics(keys, values, scale=None):
    scale = keys.shape[0] / keys.shape[1] if scale is None else scale
    pixels = range(keys.shape[1])
    return (
        scale * sum(torch.outer(keys[:, n], keys[:, n]) for n in pixels),
        scale * sum(torch.outer(values[:, n], keys[:, n]) for n in pixels),
    )


def reference_implicit(keys, values, decay, write):
    key_moment, value_moment = reference_statistics(keys, values)
    weight = write / (1 - write)
    inverse = torch.linalg.inv(torch.eye(keys.shape[0], dtype=keys.dtype) + weight * key_moment)
    return decay * inverse, weight * value_moment @ inverse


def reference_raw(keys, values, decay, write):
    key_moment, value_moment = reference_statistics(keys, values, scale=1)
    return decay * (torch.eye(keys.shape[0], dtype=keys.dtype) - write * key_moment), write * value_moment


def reference_recurrence(transition, write, state):
    states = torch.empty_like(write)
    for b in range(write.shape[0]):
        for h in range(write.shape[2]):
            current = state[b, h]
            for t in range(write.shape[1]):
                current = current @ transition[b, t, h] + write[b, t, h]
                states[b, t, h] = current
    return states


def reference_read(states, queries):
    return torch.stack([states @ queries[:, n] for n in range(queries.shape[1])], 1)


VALID = torch.tensor([[True, False, True], [False, True, True]])


def hold(decay, write):
    return memory_ops.hold_invalid_frames(decay, write, VALID)


def reference_hold(decay, write):
    decay, write = decay.clone(), write.clone()
    for b, t in ((0, 1), (1, 0)):
        decay[b, t], write[b, t] = 1, 0
    return decay, write


def key_inputs():
    return [noise(B, T, H, K, N, seed=1), noise(B, T, H, V, N, seed=2)]


def gate_inputs():
    return [uniform(B, T, H, seed=3), uniform(B, T, H, seed=4)]


CASES = {
    "unit_norm": (memory_ops.unit_norm, per_head(reference_unit_norm), key_inputs()[:1]),
    "frame_statistics": (memory_ops.frame_statistics, per_head(reference_statistics), key_inputs()),
    "implicit": (memory_ops.implicit_transition, per_head(reference_implicit), key_inputs() + gate_inputs()),
    "raw": (memory_ops.raw_transition, per_head(reference_raw), key_inputs() + gate_inputs()),
    "linear_recurrence": (
        memory_ops.linear_recurrence,
        reference_recurrence,
        [noise(B, T, H, K, K, seed=5), noise(B, T, H, V, K, seed=6), noise(B, H, V, K, seed=7)],
    ),
    "read": (memory_ops.read, per_head(reference_read), [noise(B, T, H, V, K, seed=8), noise(B, T, H, K, N, seed=9)]),
    "hold_invalid_frames": (hold, reference_hold, gate_inputs()),
}


def values_and_gradients(function, inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = sum((out * noise(*out.shape, seed=index)).sum() for index, out in enumerate(outputs))
    return [out.detach() for out in outputs], torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("name", CASES)
def test_every_function_equals_its_loop_reference_in_values_and_gradients(name):
    function, reference, inputs = CASES[name]
    torch.testing.assert_close(values_and_gradients(function, inputs), values_and_gradients(reference, inputs))


@pytest.mark.parametrize("name", CASES)
def test_every_gradient_agrees_with_finite_differences(name):
    function, _, inputs = CASES[name]
    inputs = [x[:1, :2, :1] if x.ndim != 4 else x[:1, :1] for x in inputs] if name != "hold_invalid_frames" else inputs
    assert torch.autograd.gradcheck(function, [x.clone().requires_grad_() for x in inputs])


def test_a_zero_key_stays_zero_and_its_gradient_is_finite():
    keys = torch.zeros(K, N, requires_grad=True)
    unit = memory_ops.unit_norm(keys)
    unit.sum().backward()
    assert torch.equal(unit, torch.zeros(K, N))
    assert keys.grad.isfinite().all()


def test_for_one_unit_norm_token_per_frame_the_implicit_update_is_the_canonical_gated_delta_rule():
    keys = memory_ops.unit_norm(noise(1, 6, 1, K, 1, seed=1))
    values, decay, write = noise(1, 6, 1, V, 1, seed=2), uniform(1, 6, 1, seed=3), uniform(1, 6, 1, seed=4)
    # D_k / N is D_k here; the square roots take it out of both moments.
    transition = memory_ops.implicit_transition(keys / K**0.5, values / K**0.5, decay, write)
    states = memory_ops.linear_recurrence(*transition, torch.zeros(1, 1, V, K, dtype=torch.float64))
    state = torch.zeros(V, K, dtype=torch.float64)
    for t in range(6):
        key, value = keys[0, t, 0, :, 0], values[0, t, 0, :, 0]
        state = decay[0, t, 0] * state
        state = state + write[0, t, 0] * torch.outer(value - state @ key, key)
        torch.testing.assert_close(states[0, t, 0], state)


@pytest.mark.parametrize("write", [0.3, 0.9, 0.99])
def test_the_implicit_state_minimises_the_stated_objective(write):
    keys, values, before, decay = noise(K, N, seed=1), noise(V, N, seed=2), noise(V, K, seed=3), 0.8
    gates = torch.full((1, 1, 1), decay, dtype=torch.float64), torch.full((1, 1, 1), write, dtype=torch.float64)
    transition, written = memory_ops.implicit_transition(keys[None, None, None], values[None, None, None], *gates)
    state = (before @ transition[0, 0, 0] + written[0, 0, 0]).requires_grad_()
    weight = write / (1 - write) * K / N
    objective = weight * (state @ keys - values).square().sum() + (state - decay * before).square().sum()
    (gradient,) = torch.autograd.grad(objective, state)
    assert gradient.abs().max() < 1e-9 * weight


@pytest.mark.parametrize("pixels", [64, 256, 1024, 4096])
@pytest.mark.parametrize(
    ("kind", "dtype"), [("unit norm", torch.float32), ("large", torch.float64), ("all alike", torch.float32)]
)
def test_the_implicit_transition_never_expands_the_state(pixels, kind, dtype):
    keys = noise(1, 1, len(GATES), 16, pixels, dtype=dtype)
    keys = {"unit norm": memory_ops.unit_norm(keys), "large": 30 * keys, "all alike": keys[..., :1].expand_as(keys)}[
        kind
    ]
    decay, write = torch.full((1, 1, len(GATES)), 0.95, dtype=dtype), torch.tensor(GATES, dtype=dtype)[None, None]
    transition, _ = memory_ops.implicit_transition(keys, keys[..., :4, :], decay, write)
    assert (torch.linalg.matrix_norm(transition, 2) <= decay + 1e-6).all()


def largest_state(mode, side, writes, decay, frames=1000):
    """Largest norm that the state of each gate value reaches over frames of noise; stops when it has diverged."""
    generator = torch.Generator().manual_seed(side)
    gates = torch.full((1, 1, len(writes)), decay), torch.tensor(writes)[None, None]
    state = largest = None
    for _ in range(frames):
        keys, values = torch.randn(1, 1, 1, 20, side * side, generator=generator).split((16, 4), -2)
        transition = memory_ops.TRANSITIONS[mode](memory_ops.unit_norm(keys), values, *gates)
        state = torch.ones(1, len(writes), 4, 16) if state is None else state
        state = memory_ops.linear_recurrence(*transition, state)[:, -1]
        norm = torch.linalg.matrix_norm(state)[0]
        largest = norm if largest is None else torch.maximum(largest, norm)
        if not norm.isfinite().all():
            return norm
    return largest


@pytest.mark.parametrize("side", [16, 32, 64])
def test_a_thousand_frames_of_noise_leave_the_implicit_state_bounded_for_every_gate(side):
    # Without any forgetting, the hardest case; the state starts with norm 8.
    assert (largest_state("implicit", side, GATES, decay=1.0) < 12).all()


@pytest.mark.parametrize("side", [16, 32, 64])
def test_a_thousand_frames_of_noise_make_the_published_update_diverge(side):
    norm = largest_state("raw", side, (0.9,), decay=0.9)
    assert not norm.isfinite().all() or norm.max() > 1e6


@pytest.mark.parametrize("mode", memory_ops.TRANSITIONS)
def test_the_order_of_the_pixels_does_not_matter(mode):
    keys, values, *gates = key_inputs() + gate_inputs()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    shuffled = memory_ops.TRANSITIONS[mode](keys[..., order], values[..., order], *gates)
    torch.testing.assert_close(shuffled, memory_ops.TRANSITIONS[mode](keys, values, *gates))


@pytest.mark.parametrize(("mode", "is_independent"), [("implicit", True), ("raw", False)])
def test_only_the_implicit_update_gives_the_same_at_every_resolution(mode, is_independent):
    keys, values, *gates = key_inputs() + gate_inputs()
    coarse = memory_ops.TRANSITIONS[mode](keys, values, *gates)
    fine = memory_ops.TRANSITIONS[mode](*(x.repeat_interleave(16, -1) for x in (keys, values)), *gates)
    assert all(torch.allclose(a, b) for a, b in zip(coarse, fine, strict=True)) == is_independent


@pytest.mark.parametrize("mode", memory_ops.TRANSITIONS)
def test_held_frames_leave_the_state_untouched(mode):
    keys, values = key_inputs()
    decay, write = memory_ops.hold_invalid_frames(*gate_inputs(), torch.zeros(B, T, dtype=torch.bool))
    before = noise(B, H, V, K, seed=3)
    after = memory_ops.linear_recurrence(*memory_ops.TRANSITIONS[mode](keys, values, decay, write), before)
    assert all(torch.equal(after[:, t], before) for t in range(T))
