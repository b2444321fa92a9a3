"""The mathematics of state-space guidance against plain loops, and the identities it rests on."""

import pytest
import torch

from nnunet_temporal.networks import state_space

B, T, H, L, K, V = 2, 3, 2, 10, 4, 3


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def scan_inputs(length=L, decay_scale=0.5):
    return [
        noise(B, H, length, K, seed=1),
        noise(B, H, length, K, seed=2),
        noise(B, H, length, V, seed=3),
        -decay_scale * noise(B, H, length, seed=4).abs(),
        noise(B, H, V, K, seed=5),
    ]


def reference_scan(query, key, value, log_decay, state):
    outputs, lasts = torch.empty_like(value), torch.empty_like(state)
    for b in range(query.shape[0]):
        for h in range(query.shape[1]):
            memory = state[b, h]
            for i in range(query.shape[2]):
                memory = log_decay[b, h, i].exp() * memory + torch.outer(value[b, h, i], key[b, h, i])
                outputs[b, h, i] = memory @ query[b, h, i]
            lasts[b, h] = memory
    return outputs, lasts


def values_and_gradients(function, inputs):
    leaves = [x.clone().requires_grad_() for x in inputs]
    outputs = function(*leaves)
    loss = sum((out * noise(*out.shape, seed=index)).sum() for index, out in enumerate(outputs))
    return [out.detach() for out in outputs], torch.autograd.grad(loss, leaves)


@pytest.mark.parametrize("chunk", [1, 3, 5, 64])
def test_the_chunked_scan_equals_the_token_by_token_one_in_values_and_gradients(chunk):
    def chunked(*tensors):
        return state_space.scan(*tensors, chunk)

    torch.testing.assert_close(
        values_and_gradients(chunked, scan_inputs()), values_and_gradients(reference_scan, scan_inputs())
    )


@pytest.mark.parametrize("length", [1, 63, 64, 65, 150])
def test_any_length_gives_the_token_by_token_result_in_float32(length):
    inputs = scan_inputs(length)
    exact = reference_scan(*inputs)
    torch.testing.assert_close(
        state_space.scan(*(x.float() for x in inputs)), tuple(x.float() for x in exact), atol=1e-4, rtol=1e-4
    )


def test_gradients_of_the_scan_agree_with_finite_differences():
    inputs = [x[:1, :1] if x.ndim < 4 else x[:1, :1, :5] for x in scan_inputs()]
    inputs[3], inputs[4] = inputs[3][..., :5], scan_inputs()[4][:1, :1]

    def chunked(*tensors):
        return state_space.scan(*tensors, 2)

    assert torch.autograd.gradcheck(chunked, [x.clone().requires_grad_() for x in inputs])


def test_two_sequences_that_hand_their_state_over_whole_are_one_long_sequence():
    *tokens, state = scan_inputs()
    first, state_between = state_space.scan(*(x[:, :, :7] for x in tokens), state)
    second, last = state_space.scan(*(x[:, :, 7:] for x in tokens), state_between)
    whole, expected = state_space.scan(*tokens, state)
    torch.testing.assert_close((torch.cat((first, second), 2), last), (whole, expected))


def test_handing_a_share_of_the_state_over_is_one_more_decay_at_the_first_token():
    *tokens, state = scan_inputs()
    share = 0.3
    expected = state_space.scan(*tokens, share * state)
    tokens[3] = tokens[3].clone()
    tokens[3][..., 0] += torch.tensor(share).double().log()
    torch.testing.assert_close(state_space.scan(*tokens, state), expected)


@pytest.mark.parametrize("decay_scale", [0.0, 1e2, 1e4])
def test_neither_lasting_nor_extreme_decay_over_a_long_sequence_overflows(decay_scale):
    inputs = [x.float() for x in scan_inputs(1000, decay_scale)]
    outputs, gradients = values_and_gradients(state_space.scan, inputs)
    assert all(x.isfinite().all() for x in (*outputs, *gradients))
    torch.testing.assert_close(
        outputs[0].double(), reference_scan(*(x.double() for x in inputs))[0], atol=1e-2, rtol=1e-3
    )


def test_a_decay_that_leaves_nothing_does_not_blur_the_decays_after_it():
    tokens = [x.float() for x in scan_inputs()]
    tokens[3][..., 4] = -1e9
    outputs, _ = state_space.scan(*tokens)
    expected, _ = reference_scan(*(x.double() for x in tokens))
    torch.testing.assert_close(outputs.double(), expected, atol=1e-4, rtol=0)


def test_invalid_tokens_leave_the_state_as_it_is():
    query, key, value, log_decay, state = scan_inputs()
    valid = torch.ones(B, 1, L, dtype=torch.bool)
    valid[0, :, 3:6] = False
    held = state_space.hold_invalid_tokens(key, log_decay, valid)
    outputs, last = state_space.scan(query, held[0], value, held[1], state)
    kept = [x[:1, :, valid[0, 0]] for x in (query, key, value, log_decay)]
    expected, expected_last = state_space.scan(*kept, state[:1])
    torch.testing.assert_close((outputs[:1, :, valid[0, 0]], last[:1]), (expected, expected_last))
    plain = state_space.scan(query, key, value, log_decay, state)
    torch.testing.assert_close((outputs[1], last[1]), (plain[0][1], plain[1][1]))


N = 5
VALID = torch.tensor([[True, False, True], [True, True, True]])


def propagate_inputs():
    return [noise(B, T, H, N, K, seed=6), torch.tensor([0.5, 0.9]).double(), noise(B, H, N, K, seed=7)]


def reference_propagate(query, share, carried):
    rows, lasts = [], []
    for b in range(B):
        before, row = carried[b], []
        for t in range(T):
            row.append(torch.stack([query[b, t, h] + share[h] * before[h] for h in range(H)]))
            before = row[-1] if VALID[b, t] else before
        rows.append(torch.stack(row))
        lasts.append(before)
    return torch.stack(rows), torch.stack(lasts)


def test_propagation_equals_its_loop_in_values_and_gradients():
    def propagate(*tensors):
        return state_space.propagate(*tensors, VALID)

    torch.testing.assert_close(
        values_and_gradients(propagate, propagate_inputs()),
        values_and_gradients(reference_propagate, propagate_inputs()),
    )


def test_propagating_queries_is_propagating_attention_logits():
    query, key = noise(1, T, H, N, K, dtype=torch.float32), noise(1, 1, H, T * N, K, seed=1, dtype=torch.float32)
    share = torch.tensor([0.5, 0.5])
    everywhere = torch.ones(1, T, dtype=torch.bool)
    propagated, _ = state_space.propagate(query, share, torch.zeros(1, H, N, K), everywhere)
    logits = list((K**-0.5 * query @ key.mT).unbind(1))
    for t in range(1, T):
        logits[t] = logits[t] + 0.5 * logits[t - 1]
    expected = torch.stack(logits, 1).softmax(-1)
    torch.testing.assert_close((K**-0.5 * propagated @ key.mT).softmax(-1), expected, atol=1e-6, rtol=0)


def test_propagating_queries_of_a_state_space_is_propagating_what_is_read_from_the_latest_state():
    share, queries = 0.6, noise(T, 1, 1, L, K)
    tokens = [x[:1, :1] for x in scan_inputs()[1:]]
    propagated, _ = state_space.propagate(
        queries.transpose(0, 1), torch.tensor([share]).double(), torch.zeros(1, 1, L, K).double(), VALID[1:]
    )
    expected = sum(share ** (T - 1 - s) * state_space.scan(queries[s], *tokens)[0] for s in range(T))
    torch.testing.assert_close(state_space.scan(propagated[:, -1], *tokens)[0], expected)
