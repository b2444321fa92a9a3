"""Neighbourhood correlation: an explicit gather in values and gradients, and one answer however the frames are fed."""

import pytest
import torch
from torch import nn

from nnunet_temporal.networks.neighbourhood import COARSER_STRIDES, NeighbourhoodAttention, NeighbourhoodCorrelation

CHANNELS, FRAMES = 6, 9


def correlation(awake=True, window=(3, 5, 5), layers=2, seed=0):
    """A small module in float64; ``awake`` gives what is zero at the start random weights, as training would."""
    torch.manual_seed(seed)
    module = NeighbourhoodCorrelation(CHANNELS, window=window, heads=2, key_size=3, value_size=4, layers=layers)
    if awake:
        nn.init.normal_(module.projection.weight)
        for name, parameter in module.named_parameters():
            if "bias" in name and parameter.ndim == 4:
                nn.init.normal_(parameter)
    return module.double()


def features(frames=FRAMES, size=(6, 5), batch=2, seed=1):
    return torch.randn(batch, frames, CHANNELS, *size, generator=torch.Generator().manual_seed(seed)).double()


def shifted_inward(position, length, extent):
    """The positions of a window."""
    inner = min(extent, length)
    start = min(max(position - inner // 2, 0), length - inner)
    return list(range(start, start + inner))


def pooled(maps, stride):
    """Average (T, Y, X, H, D) maps over cells; the last cells may be smaller."""
    rows = [torch.stack([cell.mean((1, 2)) for cell in row.split(stride, 2)], 1) for row in maps.split(stride, 1)]
    return torch.stack(rows, 1)


def window_of(attention, shape, own):
    """Indices of the keys in the window of a query, and the indices of their biases: each (3, N)."""
    ranges = [shifted_inward(*where) for where in zip(own, shape, attention.window, strict=True)]
    at = torch.cartesian_prod(*map(torch.tensor, ranges)).T
    return at, at - torch.tensor(own)[:, None] + torch.tensor(attention.window)[:, None] - 1


def gathered_keys(attention, key, value, coarser, own):
    """Collect keys, values and biases of one query of one sequence: (N, H, D), (N, H, D), (N, H)."""
    (frame, row, column), offset = window_of(attention, key.shape[:3], own)
    keys, values = [key[frame, row, column]], [value[frame, row, column]]
    biases = [attention.window_bias[offset[0], :, offset[1], offset[2]]]
    for table, stride, (coarse_key, coarse_value) in zip(attention.coarse_bias, COARSER_STRIDES, coarser, strict=True):
        cell = [position // stride for position in own[1:]]
        ranges = [shifted_inward(*where, 3) for where in zip(cell, coarse_key.shape[1:3], strict=True)]
        row, column = torch.cartesian_prod(*map(torch.tensor, ranges)).T
        keys.append(coarse_key[own[0], row, column])
        values.append(coarse_value[own[0], row, column])
        biases.append(table[:, row - cell[0] + 2, column - cell[1] + 2].T)
    return torch.cat(keys), torch.cat(values), torch.cat(biases)


def gather_attention(attention, tokens):
    """The attention of the module, one query after the other; all frames valid."""
    query, key, value = (
        layer(tokens).unflatten(-1, (attention.heads, -1))
        for layer in (attention.query, attention.key, attention.value)
    )
    out = torch.zeros_like(tokens)
    for b in range(len(tokens)):
        coarser = [(pooled(key[b], stride), pooled(value[b], stride)) for stride in COARSER_STRIDES]
        for own in torch.cartesian_prod(*(torch.arange(size) for size in tokens.shape[1:4])).tolist():
            keys, values, biases = gathered_keys(attention, key[b], value[b], coarser, own)
            logits = (keys * query[b][tuple(own)]).sum(-1) / query.shape[-1] ** 0.5 + biases
            out[b][tuple(own)] = (logits.softmax(0)[..., None] * values).sum(0).flatten()
    return attention.merge(out)


def attention_of(window, seed=0):
    torch.manual_seed(seed)
    attention = NeighbourhoodAttention(8, window, heads=2, key_size=3)
    nn.init.normal_(attention.window_bias)
    nn.init.normal_(attention.coarse_bias)
    return attention.double()


@pytest.mark.parametrize(
    ("window", "shape"),
    [
        ((3, 5, 5), (1, 4, 6, 7)),
        ((3, 5, 5), (2, 2, 3, 4)),  # fewer frames, rows and columns than the window
        ((3, 3, 5), (1, 3, 10, 9)),  # several tiles along each axis
        ((5, 3, 3), (1, 1, 2, 1)),
        ((1, 7, 1), (1, 2, 9, 3)),
    ],
)
def test_attention_equals_an_explicit_gather_in_values_and_gradients(window, shape):
    attention = attention_of(window)
    tokens = torch.randn(*shape, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(*shape, 8, dtype=torch.float64)
    results = []
    for out in (
        attention(tokens, torch.ones(shape[:2], dtype=torch.bool), 0, shape[1]),
        gather_attention(attention, tokens),
    ):
        parameters = [tokens, *attention.parameters()]
        results.append([out, *torch.autograd.grad((out * weight).sum(), parameters)])
    torch.testing.assert_close(*results, atol=1e-10, rtol=0)
    assert all(part.abs().max() > 1e-6 for part in results[0][:2])


def test_an_untrained_module_returns_its_input():
    x = features()
    assert torch.equal(correlation(awake=False)(x)[0], x)


def streamed(module, x, sizes, valid=None):
    """Feed frames in chunks of the given sizes; return the answers and the frames held at most."""
    state, parts, start, most = None, [], 0, 0
    for number, size in enumerate(sizes, start=1):
        chunk = slice(start, start + size)
        part_valid = None if valid is None else valid[:, chunk]
        out, state = module.stream(x[:, chunk], state, part_valid, last=number == len(sizes))
        parts.append(out)
        start += size
        if state is not None:
            most = max(most, state[0].shape[1])
    assert start == x.shape[1]
    assert state is None
    return torch.cat(parts, 1), most


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("window", [(3, 5, 5), (5, 3, 3), (1, 3, 3)])
@pytest.mark.parametrize("sizes", [[1] * 9, [1] * 9 + [0], [4, 5], [2, 3, 0, 4], [9], [9, 0]])
def test_frame_by_frame_chunks_and_clip_agree(window, sizes, layers):
    module, x = correlation(window=window, layers=layers), features()
    whole, state = module(x)
    assert state is None
    assert (whole - x).abs().max() > 0.1
    torch.testing.assert_close(streamed(module, x, sizes)[0], whole, atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2, 3])
def test_a_sequence_shorter_than_the_window_streams_too(frames):
    module, x = correlation(window=(5, 5, 5)), features(frames)
    torch.testing.assert_close(streamed(module, x, [1] * frames + [0])[0], module(x)[0], atol=1e-10, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("window", [(3, 3, 3), (5, 3, 3)])
def test_answers_wait_for_half_a_window_per_layer_and_at_the_start_for_a_whole_one(window):
    module, x = correlation(window=window), features(14)
    state, answered = None, []
    for t in range(14):
        out, state = module.stream(x[:, t : t + 1], state, None, last=False)
        answered.append(out.shape[1])
    assert module.delay == 2 * (window[0] // 2)
    # Layer by layer: the first answer needs a whole window of the layer below.
    first = window[0] - 1 + window[0] // 2
    assert answered[:first] == [0] * first
    assert sum(answered) == 14 - module.delay
    assert set(answered[first + window[0] :]) == {1}


@torch.no_grad()
def test_the_state_of_a_stream_does_not_grow_with_its_length():
    def size(state):
        waiting, held = state
        return [waiting.numel(), *(kept.tokens.untyped_storage().nbytes() for kept in held)]

    module, x = correlation(), features(30)
    state, sizes = None, []
    for chunk in x.split(3, 1):
        _, state = module.stream(chunk, state, None, last=False)
        sizes.append(size(state))
    assert all(entry == sizes[4] for entry in sizes[4:])


@torch.no_grad()
def test_a_frame_sees_one_window_per_layer_in_both_directions_and_nothing_beyond():
    module, x = correlation(), features(12)
    changed = x.clone()
    changed[:, 6] += 1
    difference = (module(changed)[0] - module(x)[0]).abs().amax((0, 2, 3, 4))
    assert (difference > 1e-4).nonzero()[:, 0].tolist() == [4, 5, 6, 7, 8]


@torch.no_grad()
def test_the_ends_of_a_sequence_are_not_joined():
    module, x = correlation(), features(12)
    changed = x.clone()
    changed[:, 0] += 1
    # The second layer's shifted window reaches frame 1, and through it frame 0.
    assert ((module(changed)[0] - module(x)[0])[:, 5:] == 0).all()


PADDING = [(0, 1), (4, 5, 6), (10, 11), (0, 3, 11), range(2, 12)]


@torch.no_grad()
@pytest.mark.parametrize("padding", PADDING)
def test_padding_frames_are_as_if_they_were_not_there(padding):
    module, x = correlation(), features(12)
    valid = torch.ones(2, 12, dtype=torch.bool)
    valid[:, list(padding)] = False
    padded, _ = module(x, None, valid)
    torch.testing.assert_close(padded[:, valid[0]], module(x[:, valid[0]])[0], atol=1e-10, rtol=0)
    assert padded.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("sizes", [[1] * 12, [5, 7], [12, 0]])
def test_streams_of_a_batch_may_be_padded_differently(sizes):
    module, x = correlation(), features(12, batch=len(PADDING))
    valid = torch.ones(len(PADDING), 12, dtype=torch.bool)
    for row, padding in enumerate(PADDING):
        valid[row, list(padding)] = False
    out, _ = streamed(module, x, sizes, valid)
    for row in range(len(PADDING)):
        alone, _ = module(x[row : row + 1, valid[row]])
        torch.testing.assert_close(out[row : row + 1, valid[row]], alone, atol=1e-10, rtol=0)


@torch.no_grad()
def test_a_clip_of_padding_only_gives_finite_features():
    out, _ = correlation()(features(3), None, torch.zeros(2, 3, dtype=torch.bool))
    assert out.isfinite().all()


def test_gradients_are_finite_and_reach_every_parameter():
    module, x = correlation(), features().requires_grad_()
    valid = torch.ones(2, FRAMES, dtype=torch.bool)
    valid[1, 1:] = False
    out, _ = module(x, None, valid)
    out.square().mean().backward()
    # The bias of the keys adds the same to all logits of a query, which the softmax ignores.
    silent = [name for name, p in module.named_parameters() if p.grad.abs().max() <= 1e-12]
    assert all(name.endswith("attention.key.bias") for name in silent)
    assert all(parameter.grad.isfinite().all() for parameter in module.parameters())
    assert x.grad.isfinite().all()


@torch.no_grad()
def test_bfloat16_autocast_comes_close_to_float32():
    module, x = correlation().float(), features().float()
    exact, _ = module(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded, _ = module(x)
    assert (rounded - exact).std() < 0.05 * (exact - x).std()


@torch.no_grad()
def test_a_larger_map_changes_nothing_far_from_its_new_part():
    module, x = correlation(layers=1), features(3, size=(32, 24))
    # Aligned cells of the coarser levels and windows of 5 keep the first rows from seeing row 24.
    torch.testing.assert_close(module(x[..., :24, :])[0][..., :16, :], module(x)[0][..., :16, :])


@pytest.mark.parametrize("window", [(2, 5, 5), (3, 0, 5)])
def test_an_even_window_raises(window):
    with pytest.raises(ValueError, match="odd extents"):
        NeighbourhoodCorrelation(CHANNELS, window=window)
