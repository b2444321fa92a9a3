"""The memory's mathematics against plain loops, and the promises its docstrings make."""

import pytest
import torch

from nnunet_temporal.networks import memory_ops
from nnunet_temporal.networks.linear_recurrence import loop_recurrence
from nnunet_temporal.networks.memory_ops import accumulation
from nnunet_temporal.networks.memory_rules import MODES

GATES = (0.0, 0.5, 0.9, 0.99)
STABLE = [mode for mode in MODES if mode != "raw"]
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


def reference_softmax(keys):
    return torch.stack([keys[:, n].exp() / keys[:, n].exp().sum() for n in range(keys.shape[1])], 1)


def reference_balanced_softmax(keys):
    keys = reference_softmax(keys)
    return torch.stack([row / (row.sum() / len(row) + 1e-6).sqrt() for row in keys])


def reference_moments(keys, values, scale=0.3):
    pixels = range(keys.shape[1])
    return (
        scale * sum(torch.outer(keys[:, n], keys[:, n]) for n in pixels),
        scale * sum(torch.outer(values[:, n], keys[:, n]) for n in pixels),
    )


def moments(keys, values):
    return memory_ops.moments(keys, values, 0.3)


def from_both_sides(moment, weight):
    """Entry (i, j) times sqrt(w_i w_j)."""
    weight = weight.expand(len(moment))
    rows = [
        torch.stack([moment[i, j] * (weight[i] * weight[j]).sqrt() for j in range(len(moment))])
        for i in range(len(moment))
    ]
    return torch.stack(rows)


def reference_implicit(key_moment, value_moment, decay, write):
    weight = write / (1 - write)
    identity = torch.eye(len(key_moment), dtype=key_moment.dtype)
    inverse = torch.linalg.inv(identity + from_both_sides(key_moment, weight))
    return torch.diag(decay.expand(len(key_moment))) @ inverse, (value_moment * weight) @ inverse


def reference_explicit(key_moment, value_moment, decay, write):
    kept = torch.eye(len(key_moment), dtype=key_moment.dtype) - from_both_sides(key_moment, write)
    return torch.diag(decay.expand(len(key_moment))) @ kept, value_moment * write


def reference_published(key_moment, value_moment, decay, write):
    size = len(key_moment)
    decay, write = decay.expand(size), write.expand(size)
    # Column j of S changes to a_j (S_j - b_j (S A)_j): the transition applied to every unit vector in turn.
    rows = [decay * (unit - write * (unit @ key_moment)) for unit in torch.eye(size, dtype=key_moment.dtype)]
    return torch.stack(rows), value_moment * write


def reference_accumulation(key_moment, value_moment, decay, write):
    return torch.diag(decay.expand(len(key_moment))), value_moment * write


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


def gate_inputs(gates=1):
    return [uniform(B, T, H, gates, seed=3), uniform(B, T, H, gates, seed=4)]


def moment_inputs():
    return list(memory_ops.moments(*key_inputs(), 1 / N))


def of_keys(transition):
    """Let a transition take keys and values: only symmetric moments have a meaning, and so have their gradients."""
    return lambda keys, values, decay, write: transition(*memory_ops.moments(keys, values, 1 / N), decay, write)


TRANSITIONS = {
    "implicit": (memory_ops.implicit_transition, reference_implicit),
    "explicit": (memory_ops.explicit_transition, reference_explicit),
    "published": (memory_ops.published_transition, reference_published),
    "accumulation": (memory_ops.accumulation, reference_accumulation),
}
CASES = {
    "unit_norm": (memory_ops.unit_norm, per_head(reference_unit_norm), key_inputs()[:1]),
    "channel_softmax": (memory_ops.channel_softmax, per_head(reference_softmax), key_inputs()[:1]),
    "balanced_softmax": (memory_ops.balanced_softmax, per_head(reference_balanced_softmax), key_inputs()[:1]),
    "moments": (moments, per_head(reference_moments), key_inputs()),
    "hold_invalid_frames": (hold, reference_hold, gate_inputs()),
} | {
    f"{name}, {gates} gates": (of_keys(function), of_keys(per_head(reference)), key_inputs() + gate_inputs(gates))
    for name, (function, reference) in TRANSITIONS.items()
    for gates in (1, K)
}


def values_and_gradients(function, inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    loss = sum((out * noise(*out.shape, seed=index)).sum() for index, out in enumerate(outputs))
    return [out.detach() for out in outputs], torch.autograd.grad(loss, leaves, materialize_grads=True)


@pytest.mark.parametrize("name", CASES)
def test_every_function_equals_its_loop_reference_in_values_and_gradients(name):
    function, reference, inputs = CASES[name]
    torch.testing.assert_close(values_and_gradients(function, inputs), values_and_gradients(reference, inputs))


def set_up(mode, keys, values, decay, write):
    """Transition and write of a mode for raw keys (B, T, H, K, N), values and gates."""
    mode = MODES[mode]
    sums = memory_ops.moments(mode.normalise(keys), values, mode.scale(*keys.shape[-2:]))
    return mode.transition(*sums, decay, write)


@pytest.mark.parametrize("gates", [1, K])
@pytest.mark.parametrize("mode", MODES)
def test_every_gradient_of_a_mode_agrees_with_finite_differences(mode, gates):
    inputs = [x[:1, :2, :1].clone().requires_grad_() for x in key_inputs() + gate_inputs(gates)]
    assert torch.autograd.gradcheck(lambda *tensors: set_up(mode, *tensors), inputs)


def test_a_zero_key_stays_zero_and_its_gradient_is_finite():
    keys = torch.zeros(K, N, requires_grad=True)
    unit = memory_ops.unit_norm(keys)
    unit.sum().backward()
    assert torch.equal(unit, torch.zeros(K, N))
    assert keys.grad.isfinite().all()


def test_a_key_channel_that_no_pixel_uses_gives_finite_keys_and_gradients():
    keys = torch.zeros(K, N)
    keys[0] = -200.0
    keys.requires_grad_()
    balanced = memory_ops.balanced_softmax(keys)
    balanced.sum().backward()
    assert balanced.isfinite().all()
    assert keys.grad.isfinite().all()


CANONICAL = {
    # The transition of each stable rule on the moments of one token, k k^T and v k^T.
    "implicit": memory_ops.implicit_transition,
    "explicit": memory_ops.explicit_transition,
    "published": memory_ops.published_transition,
}


@pytest.mark.parametrize("rule", CANONICAL)
def test_for_one_unit_norm_token_per_frame_the_update_is_the_canonical_gated_delta_rule(rule):
    keys = memory_ops.unit_norm(noise(1, 6, 1, K, 1, seed=1))
    values, decay, write = noise(1, 6, 1, V, 1, seed=2), uniform(1, 6, 1, 1, seed=3), uniform(1, 6, 1, 1, seed=4)
    transition = CANONICAL[rule](*memory_ops.moments(keys, values, 1.0), decay, write)
    states = loop_recurrence(*transition, torch.zeros(1, 1, V, K, dtype=torch.float64))
    state = torch.zeros(V, K, dtype=torch.float64)
    for t in range(6):
        key, value = keys[0, t, 0, :, 0], values[0, t, 0, :, 0]
        # Forget, look up what is left under the key, write the share b of what is missing.
        state = decay[0, t, 0, 0] * state
        state = state + write[0, t, 0, 0] * torch.outer(value - state @ key, key)
        torch.testing.assert_close(states[0, t, 0], state)


@pytest.mark.parametrize("write", [0.3, 0.9, 0.99])
def test_the_implicit_state_is_the_least_squares_solution_of_the_stated_objective(write):
    keys, values, before, decay = noise(K, N, seed=1), noise(V, N, seed=2), noise(V, K, seed=3), 0.8
    scale, weight = K / N, write / (1 - write)
    gates = torch.tensor([decay], dtype=torch.float64), torch.tensor([write], dtype=torch.float64)
    transition, written = memory_ops.implicit_transition(*memory_ops.moments(keys, values, scale), *gates)
    # Rows of the system: every pixel's S k = v, weighed, then S = a S_before.
    root = (weight * scale) ** 0.5
    system = torch.cat((root * keys.T, torch.eye(K, dtype=torch.float64)))
    wanted = torch.cat((root * values.T, decay * before.T))
    best = torch.linalg.lstsq(system, wanted).solution.T
    torch.testing.assert_close(before @ transition + written, best)


def test_a_write_gate_of_one_is_the_largest_one_in_the_implicit_update():
    decay, _ = gate_inputs()
    one = memory_ops.implicit_transition(*moment_inputs(), decay, torch.ones_like(decay))
    largest = torch.full_like(decay, memory_ops.LARGEST_WRITE_GATE)
    assert all(x.isfinite().all() for x in one)
    torch.testing.assert_close(one, memory_ops.implicit_transition(*moment_inputs(), decay, largest))


def adversarial_keys(kind, pixels, dtype, size=16):
    keys = noise(1, 1, 1, size, pixels, dtype=dtype)
    if kind == "all alike":
        return keys[..., :1].expand_as(keys)
    if kind == "zero":
        return torch.zeros_like(keys)
    if kind == "one channel only":
        return torch.zeros_like(keys).index_fill_(-2, torch.tensor([3]), 50.0)
    if kind == "two opposite":
        return torch.where(torch.arange(pixels) % 2 == 0, keys[..., :1], -keys[..., :1])
    return {"noise": 1, "large": 30, "tiny": 1e-6}[kind] * keys


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pixels", [1, 64, 4096, 16384])
@pytest.mark.parametrize("kind", ["noise", "large", "tiny", "all alike", "zero", "one channel only", "two opposite"])
@pytest.mark.parametrize("mode", STABLE)
def test_no_keys_make_a_stable_transition_expand_the_state(mode, kind, pixels, dtype):
    rule, keys = MODES[mode], adversarial_keys(kind, pixels, dtype)
    sums = memory_ops.moments(rule.normalise(keys), keys[..., :4, :], rule.scale(16, pixels))
    # A gate per head, gates that differ between key channels, and extremes side by side.
    generator = torch.Generator().manual_seed(5)
    writes = [torch.full((16,), gate, dtype=dtype) for gate in (*GATES, 1.0)]
    writes += [torch.rand(16, generator=generator, dtype=dtype), (torch.arange(16) % 2).to(dtype)]
    decays = [torch.tensor([0.95], dtype=dtype), 0.95 * torch.rand(16, generator=generator, dtype=dtype)]
    for decay in decays:
        for write in writes:
            transition, _ = rule.transition(*sums, decay, write)
            assert torch.linalg.matrix_norm(transition, 2) <= 0.95 + 1e-6


@pytest.mark.parametrize("size", [0.1, 1, 10])
def test_the_symmetric_mode_uses_the_whole_range_of_eigenvalues_that_is_stable(size):
    rule = MODES["symmetric"]
    keys = rule.normalise(size * noise(16, 400))
    eigenvalues = torch.linalg.eigvalsh(memory_ops.moments(keys, keys, rule.scale(16, 400))[0])
    assert eigenvalues.min() > -1e-12
    assert eigenvalues.max().item() == pytest.approx(1, abs=1e-4)


def test_the_published_transition_expands_the_state_above_one_eigenvalue_of_two():
    # The bound is b N / D_k <= 2, and uniform keys attain it.
    keys = torch.zeros(1, 1, 1, 16, 256)
    for write, expands in ((0.12, False), (0.13, True)):
        transition, _ = set_up("raw", keys, keys, torch.ones(1), torch.tensor([write]))
        assert (torch.linalg.matrix_norm(transition, 2) > 1 + 1e-5) == expands


def test_the_published_rule_with_gates_per_key_channel_expands_where_the_weighing_from_both_sides_does_not():
    keys = torch.zeros(1, 1, 1, 2, 1)
    gates = torch.ones(2), torch.tensor([1.0, 0.0])
    norms = [torch.linalg.matrix_norm(set_up(mode, keys, keys, *gates)[0], 2) for mode in ("raw", "symmetric")]
    assert norms[0] > 1.05
    assert norms[1] <= 1 + 1e-6


def largest_state(mode, side, writes, decay, frames=1000):
    """Largest norm that the state of each gate value reaches over frames of noise; stops when it has diverged."""
    generator = torch.Generator().manual_seed(side)
    gates = torch.full((1, 1, len(writes), 1), decay), torch.tensor(writes)[None, None, :, None]
    state = largest = None
    for _ in range(frames):
        keys, values = torch.randn(1, 1, 1, 20, side * side, generator=generator).split((16, 4), -2)
        transition = set_up(mode, keys, values, *gates)
        state = torch.ones(1, len(writes), 4, 16) if state is None else state
        state = loop_recurrence(*transition, state)[:, -1]
        norm = torch.linalg.matrix_norm(state)[0]
        largest = norm if largest is None else torch.maximum(largest, norm)
        if not norm.isfinite().all():
            return norm
    return largest


@pytest.mark.parametrize("side", [16, 32])
@pytest.mark.parametrize("mode", STABLE)
def test_a_thousand_frames_of_noise_leave_a_stable_state_bounded_for_every_gate(mode, side):
    # Without any forgetting, the hardest case; the state starts with norm 8.
    assert (largest_state(mode, side, GATES, decay=1.0) < 12).all()


@pytest.mark.parametrize("side", [16, 32])
def test_a_thousand_frames_of_noise_make_the_published_update_diverge(side):
    norm = largest_state("raw", side, (0.9,), decay=0.9)
    assert not norm.isfinite().all() or norm.max() > 1e6


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_the_pixels_does_not_matter(mode):
    keys, values, *gates = key_inputs() + gate_inputs(K)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(0))
    shuffled = set_up(mode, keys[..., order], values[..., order], *gates)
    torch.testing.assert_close(shuffled, set_up(mode, keys, values, *gates))


def recall(mode, keys, values, decay, write):
    """Write three frames and read each with its own keys."""
    transition = set_up(mode, keys, values, decay, write)
    state = torch.zeros(B, H, V, K, dtype=keys.dtype)
    return loop_recurrence(*transition, state) @ MODES[mode].normalise(keys)


@pytest.mark.parametrize("mode", STABLE)
def test_a_finer_resolution_of_the_same_frames_recalls_the_same_values(mode):
    side, factor = 4, 4
    keys, values = noise(B, T, H, K, side * side, seed=1), noise(B, T, H, V, side * side, seed=2)

    def finer(maps):
        maps = maps.unflatten(-1, (side, side))
        return maps.repeat_interleave(factor, -1).repeat_interleave(factor, -2).flatten(-2)

    fine = recall(mode, finer(keys), finer(values), *gate_inputs())
    torch.testing.assert_close(fine, finer(recall(mode, keys, values, *gate_inputs())))


@pytest.mark.parametrize("mode", STABLE)
def test_a_resolution_of_64_instead_of_16_keeps_the_scale_of_state_and_output_on_noise(mode):
    scales = []
    for side in (16, 64):
        keys, noisy = noise(B, T, H, K, side * side, seed=1), noise(B, T, H, V, side * side, seed=2)
        # Values that have to do with the keys: what the memory knows of any others tends to zero with 1 / sqrt(N).
        inputs = keys, noise(V, K, seed=3) @ keys + 0.1 * noisy, *gate_inputs()
        scales.append((set_up(mode, *inputs)[1].std(), recall(mode, *inputs).std()))
    for coarse, fine in zip(*scales, strict=True):
        assert fine / coarse == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("gates", [1, K])
@pytest.mark.parametrize("rule", [*MODES, "accumulation"])
def test_held_frames_leave_the_state_untouched(rule, gates):
    keys, values = key_inputs()
    decay, write = memory_ops.hold_invalid_frames(*gate_inputs(gates), torch.zeros(B, T, dtype=torch.bool))
    if rule == "accumulation":
        transition = accumulation(*moment_inputs(), decay, write)
    else:
        transition = set_up(rule, keys, values, decay, write)
    before = noise(B, H, V, K, seed=3)
    after = loop_recurrence(*transition, before)
    assert all(torch.equal(after[:, t], before) for t in range(T))


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_finite_with_held_frames_beside_gates_at_their_limit(mode):
    leaves = [x.float().requires_grad_() for x in key_inputs()]
    gates = [torch.full((B, T, H, K), value, requires_grad=True) for value in (1.0, memory_ops.LARGEST_WRITE_GATE)]
    transition, written = set_up(mode, *leaves, *memory_ops.hold_invalid_frames(*gates, VALID))
    gradients = torch.autograd.grad(transition.square().sum() + written.square().sum(), leaves + gates)
    assert all(gradient.isfinite().all() for gradient in gradients)
