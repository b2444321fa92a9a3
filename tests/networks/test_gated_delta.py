"""The gated delta memory as a temporal module: identity at first, causal, streamable, safe for padding, bounded."""

import itertools
import pickle

import pytest
import torch
from causal_modules import assert_chunks_agree_with_the_clip
from torch import nn

from nnunet_temporal.networks.gated_delta import GatedDeltaMemory
from nnunet_temporal.networks.linear_recurrence import RECURRENCES
from nnunet_temporal.networks.memory_rules import GATE_SOURCES, MODES, UPDATES, MemoryRule

CHANNELS, FRAMES = 8, 10
FORMS = [
    {"mode": mode, "gate_source": source, "feedback_classes": classes}
    for mode, source, classes in itertools.product(MODES, GATE_SOURCES, (0, 3))
]
ABLATIONS = [
    {"mode": mode, "update": update, "gate_source": source}
    for mode, update, source in itertools.product(MODES, UPDATES, GATE_SOURCES)
    if update != "gated_delta"
]
PAPER = {"mode": "symmetric", "gate_source": "state", "feedback_classes": 3}


def name(options):
    return " ".join(str(value) for value in options.values()) if isinstance(options, dict) else None


def memory(awake=True, **options):
    """A small memory; ``awake`` gives what is zero at the start random weights, as training would."""
    torch.manual_seed(0)
    rule = MemoryRule(**{key: options.pop(key) for key in ("mode", "update", "gate_source") if key in options})
    module = GatedDeltaMemory(CHANNELS, heads=2, key_size=4, value_size=4, rule=rule, **options)
    if awake:
        nn.init.normal_(module.projection.weight, std=0.5)
        for parameter_name, parameter in module.gates.named_parameters():
            if parameter_name.endswith("weight"):
                nn.init.normal_(parameter, std=0.5)
    return module


def features(batch=2, frames=FRAMES, size=(5, 6), seed=1):
    return torch.randn(batch, frames, CHANNELS, *size, generator=torch.Generator().manual_seed(seed))


def size_for(options):
    """One pixel where the published rule, which is unstable for more of them, is to be compared to itself."""
    return (1, 1) if options.get("mode") == "raw" else (5, 6)


@pytest.mark.parametrize("options", FORMS + ABLATIONS, ids=name)
def test_an_untrained_memory_returns_its_input(options):
    x = features()
    assert torch.equal(memory(awake=False, **options)(x)[0], x)


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("options", FORMS + ABLATIONS, ids=name)
def test_frame_by_frame_chunks_and_clip_agree(options, chunk):
    valid = torch.ones(2, FRAMES, dtype=torch.bool)
    valid[1, 4] = False
    x = features(size=size_for(options))
    assert_chunks_agree_with_the_clip(memory(**options), x, chunk, valid, atol=1e-4, rtol=0)


def outputs_and_gradients(module, x):
    x = x.clone().requires_grad_()
    out, state = module(x)
    (out.square().mean() + state.square().mean()).backward()
    return out.detach(), state.detach(), x.grad, [parameter.grad for parameter in module.parameters()]


@pytest.mark.parametrize("mode", MODES)
def test_all_forms_of_the_recurrence_agree_in_values_and_gradients(mode):
    x = features(frames=11, size=size_for({"mode": mode}))
    expected, *others = (outputs_and_gradients(memory(mode=mode, recurrence=form), x) for form in RECURRENCES)
    for other in others:
        torch.testing.assert_close(other, expected, atol=1e-4, rtol=1e-4)


ROWS = {
    # What each row of the paper's table does to the state S, for the moments A = K K^T and C = V K^T.
    "gated_delta": lambda S, A, C, a, b: a * (S - b * S @ A) + b * C,
    "delta": lambda S, A, C, a, b: S - b * S @ A + b * C,
    "replace": lambda S, A, C, a, b: S - S @ A + C,
    "decay": lambda S, A, C, a, b: a * S + C,
    "additive": lambda S, A, C, a, b: S + C,
}


@torch.no_grad()
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize(("mode", "size"), [("l2mean", (5, 6)), ("raw", (1, 1)), ("raw", (2, 2))])
def test_every_update_is_its_row_of_the_papers_table_written_as_a_plain_loop(mode, size, update):
    module, x = memory(mode=mode, update=update), features(batch=1, frames=4, size=size)
    gates = [g.expand(1, 4, 2, 1) for g in module.gates(x.mean((-2, -1)))]
    keys, values = (part.view(4, 2, 4, -1) for part in (module.key(x[0]), module.value(x[0])))
    keys = keys.softmax(2) if mode == "raw" else keys / keys.norm(dim=2, keepdim=True)
    scale = 1 if mode == "raw" else 1 / keys.shape[-1]
    state = torch.zeros(2, 4, 4)
    for t in range(4):
        for head in range(2):
            sums = [scale * part[t, head] @ keys[t, head].T for part in (keys, values)]
            state[head] = ROWS[update](state[head], *sums, *(gate[0, t, head] for gate in gates))
    torch.testing.assert_close(module(x)[1][0], state, atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("update", UPDATES)
@pytest.mark.parametrize("mode", MODES)
def test_gates_from_the_state_that_ignore_it_are_gates_from_a_frame_that_ignore_it(mode, update):
    x = features(size=size_for({"mode": mode}))
    by_frame, by_state = (memory(mode=mode, update=update, gate_source=source) for source in GATE_SOURCES)
    for module in (by_frame, by_state):
        for parameter_name, parameter in module.gates.named_parameters():
            if parameter_name.endswith(("weight", "bias")):
                nn.init.zeros_(parameter)
    shared = {key: value for key, value in by_frame.state_dict().items() if not key.startswith("gates")}
    by_state.load_state_dict(shared, strict=False)
    torch.testing.assert_close(by_state(x), by_frame(x), atol=1e-5, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("mode", MODES)
def test_gates_from_the_state_are_those_of_the_state_before_the_frame(mode):
    module, x = memory(mode=mode, gate_source="state"), features(size=size_for({"mode": mode}))
    _, before = module(x[:, :4])
    decay, write = module.gates(before)
    assert decay.std() > 0.001
    assert write.std() > 0.001
    frozen = memory(mode=mode, gate_source="state")
    frozen.gates.forward = lambda source: (decay, write)
    torch.testing.assert_close(frozen(x[:, 4:5], before), module(x[:, 4:5], before))


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, PAPER], ids=["default", "paper"])
def test_a_frame_sees_the_past_and_not_the_future(options):
    module, x = memory(**options), features()
    changed = x.clone()
    changed[:, 5] += torch.randn_like(changed[:, 5])
    difference = (module(changed)[0] - module(x)[0]).abs().amax((0, 2, 3, 4))
    assert (difference[:5] == 0).all()
    assert (difference[5:8] > 1e-4).all()


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, PAPER], ids=["default", "paper"])
def test_a_frame_is_read_after_it_is_written(options):
    # A causal memory of one frame holds nothing but that frame; read before the write, it would recall nothing.
    module, x = memory(**options), features(frames=1)
    nn.init.zeros_(module.norm.bias)
    assert (module(x)[0] - x).std() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("options", FORMS + ABLATIONS, ids=name)
@pytest.mark.parametrize("padding", [(0, 1), (4, 5, 6), (10, 11)])
def test_invalid_frames_change_neither_later_frames_nor_the_state(options, padding):
    module, x = memory(**options), features(frames=12, size=size_for(options))
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[:, list(padding)] = False
    padded, state = module(x, None, valid)
    alone, expected = module(x[:, valid[0]])
    torch.testing.assert_close(padded[:, valid[0]], alone, atol=1e-4, rtol=0)
    torch.testing.assert_close(state, expected, atol=1e-4, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("source", GATE_SOURCES)
def test_a_batch_may_mix_clips_of_different_length(source):
    module, x = memory(gate_source=source), features()
    valid = torch.ones(2, FRAMES, dtype=torch.bool)
    valid[1, 6:] = False
    out, state = module(x, None, valid)
    shorter, shorter_state = module(x[1:, :6])
    torch.testing.assert_close(out[1:, :6], shorter, atol=1e-5, rtol=0)
    torch.testing.assert_close(state[1:], shorter_state, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "explicit"}, r"mode must be one of .*implicit.*raw.*'explicit'"),
        ({"update": "gru"}, r"update must be one of .*additive.*replace.*'gru'"),
        ({"gate_source": "pixel"}, r"gate_source must be one of .*frame.*state.*'pixel'"),
        ({"recurrence": "tree"}, r"recurrence must be one of .*chunk.*loop.*scan.*'tree'"),
        ({"recurrence": "scan", "gate_source": "state"}, r"recurrence must be one of \['loop'\], got 'scan'"),
    ],
)
def test_an_unknown_option_raises_and_names_the_known_ones(options, message):
    with pytest.raises(ValueError, match=message):
        memory(**options)


@pytest.mark.parametrize("options", FORMS + ABLATIONS, ids=name)
def test_gradients_are_finite_and_reach_every_parameter_with_write_gates_near_their_limit(options):
    module, x = memory(**options), features(size=size_for(options)).requires_grad_()
    if options["gate_source"] == "frame" and module.gates.write is not None:
        nn.init.constant_(module.gates.write.linear.bias, 6.0)
        assert module.gates(x.mean((-2, -1)))[1].max() > 0.985
    out, state = module(x)
    weights = features(size=size_for(options), seed=2)
    ((out * weights).mean() + state.square().mean()).backward()
    gradients = {"x": x.grad} | {key: parameter.grad for key, parameter in module.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    dead = {key for key, gradient in gradients.items() if gradient.abs().max() == 0}
    assert not dead


@pytest.mark.parametrize("mode", MODES)
def test_gradients_are_finite_where_a_write_gate_rounds_to_zero(mode):
    module, x = memory(mode=mode), features(size=size_for({"mode": mode}))
    nn.init.constant_(module.gates.write.linear.bias, -200.0)
    assert module.gates(x.mean((-2, -1)))[1].max() == 0
    out, state = module(x)
    (out.square().mean() + state.square().mean()).backward()
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())


@torch.no_grad()
@pytest.mark.parametrize("options", [o for o in FORMS + ABLATIONS if o["mode"] != "raw"], ids=name)
def test_bfloat16_autocast_comes_close_to_float32(options):
    module, x = memory(**options), features()
    exact, exact_state = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, state = module(x)
    assert state.dtype == torch.float32
    added = (exact - x).std()
    assert (rounded - exact).std() < 0.05 * added
    assert (state - exact_state).std() < 0.05 * exact_state.std()


@torch.no_grad()
@pytest.mark.parametrize("source", GATE_SOURCES)
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "raw"])
@pytest.mark.parametrize("size", [1.0, 100.0])
def test_a_thousand_frames_leave_state_and_output_bounded(mode, source, size):
    module = memory(mode=mode, gate_source=source)
    x = size * features(batch=1, frames=50, size=(8, 8))
    early = late = state = None
    for _ in range(20):
        out, state = module(x, state)
        late = state.norm(), (out - x).abs().max()
        early = early or late
    assert all(torch.stack(late) < 3 * torch.stack(early))


@torch.no_grad()
@pytest.mark.parametrize("source", GATE_SOURCES)
@pytest.mark.parametrize("mode", [mode for mode in MODES if mode != "raw"])
def test_a_resolution_of_64_instead_of_16_keeps_the_scale_of_output_and_state(mode, source):
    module, coarse = memory(mode=mode, gate_source=source), features(batch=1, frames=4, size=(16, 16))
    fine = coarse.repeat_interleave(4, -1).repeat_interleave(4, -2)
    (out, state), (fine_out, fine_state) = module(coarse), module(fine)
    assert (fine_out - fine).std() / (out - coarse).std() == pytest.approx(1, abs=0.1)
    assert fine_state.norm() / state.norm() == pytest.approx(1, abs=0.15)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, PAPER], ids=["default", "paper"])
def test_a_pickled_memory_is_the_same_memory(options):
    module, x = memory(**options), features()
    assert torch.equal(pickle.loads(pickle.dumps(module))(x)[0], module(x)[0])


@torch.no_grad()
def test_feedback_lets_values_see_the_probabilities_of_the_classes():
    module, x = memory(feedback_classes=3), features(batch=1)[0]
    nn.init.zeros_(module.value.weight[:, :CHANNELS])
    nn.init.zeros_(module.value.bias)
    logits = module.coarse(x)
    probabilities = logits.exp() / logits.exp().sum(1, keepdim=True)
    expected = torch.einsum("vk,tkyx->tvyx", module.value.weight[:, CHANNELS:, 0, 0], probabilities)
    torch.testing.assert_close(module._values(x), expected)


def test_the_state_does_not_grow_with_the_number_of_classes():
    few, many = (memory(feedback_classes=classes)(features())[1] for classes in (2, 20))
    assert few.shape == many.shape == (2, 2, 4, 4)
