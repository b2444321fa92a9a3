"""Tiles and windows of neighbourhood attention against what each query should see."""

import numpy as np
import pytest
import torch

from nnunet_temporal.networks import neighbourhood_ops as ops

CPU = torch.device("cpu")


def window(position, length, extent):
    """The positions a query sees: the window is shifted inward at a border."""
    extent = min(extent, length)
    start = min(max(position - extent // 2, 0), length - extent)
    return list(range(start, start + extent))


def seen_by_position(tiling, length):
    """Collect (key, offset) pairs per position of the axis, by way of ``source``."""
    tile = tiling.query.shape[1]
    seen = []
    for place in tiling.source.tolist():
        block, row = divmod(place, tile)
        inside = tiling.inside[block, row]
        seen.append(
            list(zip(tiling.key[block][inside].tolist(), tiling.offset[block, row][inside].tolist(), strict=True))
        )
    assert len(seen) == length
    return seen


@pytest.mark.parametrize("extent", [1, 3, 5, 7])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 20, 31])
def test_every_position_sees_exactly_its_window_shifted_inward_at_the_borders(length, extent):
    tiling = ops.window_tiling(length, extent, CPU)
    assert tiling.query.flatten()[tiling.source].tolist() == list(range(length))
    for position, pairs in enumerate(seen_by_position(tiling, length)):
        expected = [(key, key - position + extent - 1) for key in window(position, length, extent)]
        assert pairs == expected


@pytest.mark.parametrize("length", [8, 16, 24, 31, 200])
def test_tiles_are_small_whatever_the_length(length):
    tiling = ops.window_tiling(length, 5, CPU)
    assert tiling.query.shape[1] <= ops.TILE
    assert tiling.key.shape[1] <= ops.TILE + 4


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("length", [1, 2, 3, 5, 8, 9, 16, 19])
def test_every_position_sees_three_cells_around_its_own_on_a_coarser_level(length, stride):
    tiling = ops.coarse_tiling(length, stride, CPU)
    cells = -(-length // stride)
    assert tiling.query.flatten()[tiling.source].tolist() == list(range(length))
    for position, pairs in enumerate(seen_by_position(tiling, length)):
        cell = position // stride
        assert pairs == [(key, key - cell + 2) for key in window(cell, cells, 3)]


@pytest.mark.parametrize("extent", [1, 3, 5])
@pytest.mark.parametrize("pattern", ["1111111", "1", "11", "0110111", "1100111", "1000001", "0001000"])
def test_a_frame_sees_its_window_of_real_frames(pattern, extent):
    valid = torch.tensor([[character == "1" for character in pattern]])
    real = valid[0].nonzero()[:, 0].tolist()
    frames = ops.frame_window(valid, extent, 0, len(pattern))
    for rank, frame in enumerate(real):
        exists = frames.exists[0, frame]
        seen = [real[other] for other in window(rank, len(real), extent)]
        assert frames.frame[0, frame][exists].tolist() == seen
        offsets = [other - rank + extent - 1 for other in window(rank, len(real), extent)]
        assert frames.offset[0, frame][exists].tolist() == offsets


def test_every_frame_sees_something_even_where_all_are_padding():
    frames = ops.frame_window(torch.zeros(1, 4, dtype=torch.bool), 3, 0, 4)
    assert (frames.exists.sum(2) == 1).all()


def test_cutting_into_tiles_and_assembling_gives_the_map_back():
    maps = torch.randn(2, 3, 13, 9, 2, 4, generator=torch.Generator().manual_seed(0))
    rows, columns = (ops.window_tiling(length, 5, CPU) for length in (13, 9))
    assert torch.equal(ops.assemble(ops.cut(maps, rows.query, columns.query), rows, columns), maps)


def test_attention_to_sets_of_keys_joins_to_attention_to_all_of_them():
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 1, 1, 1, n, 4, generator=generator, dtype=torch.float64) for n in (3, 7, 7))
    bias = torch.randn(3, 7, generator=generator, dtype=torch.float64)
    whole, _ = ops.attend(query, key, value, bias)
    parts = [ops.attend(query, key[..., p, :], value[..., p, :], bias[:, p]) for p in (slice(0, 2), slice(2, 7))]
    values, weights = (list(part) for part in zip(*parts, strict=True))
    torch.testing.assert_close(ops.join(values, weights), whole)
    absent = torch.full_like(weights[1], -torch.inf)
    torch.testing.assert_close(ops.join(values, [weights[0], absent]), values[0])


def test_frames_are_taken_of_each_sequence_by_itself():
    maps = torch.arange(2 * 3).view(2, 3, 1)
    assert ops.take_frames(maps, torch.tensor([[2, 0], [1, 1]]))[..., 0].tolist() == [[2, 0], [4, 4]]


def test_picking_is_indexing_of_one_axis():
    table, index = torch.arange(2 * 5 * 3).view(2, 5, 3), torch.tensor([[4, 0], [1, 1], [2, 4]])
    assert torch.equal(ops.pick(table, 1, index), table[:, index])


@pytest.mark.parametrize("extent", [3, 5])
def test_biases_of_tiles_are_those_of_the_table_inside_the_windows(extent):
    table = torch.randn(2, 2 * extent - 1, 2 * extent - 1, generator=torch.Generator().manual_seed(0))
    rows, columns = (ops.window_tiling(length, extent, CPU) for length in (9, 6))
    bias = ops.tiled_bias(table, rows, columns).unflatten(-1, (rows.key.shape[1], columns.key.shape[1]))
    bias = bias.unflatten(-3, (rows.query.shape[1], columns.query.shape[1]))
    bias = bias.unflatten(1, (len(rows.query), len(columns.query)))
    for tile_y, tile_x, query_y, query_x, key_y, key_x in np.ndindex(bias.shape[1:]):
        seen = rows.inside[tile_y, query_y, key_y] & columns.inside[tile_x, query_x, key_x]
        offsets = rows.offset[tile_y, query_y, key_y], columns.offset[tile_x, query_x, key_x]
        expected = table[:, offsets[0], offsets[1]] if seen else torch.full((2,), -torch.inf)
        assert torch.equal(bias[:, tile_y, tile_x, query_y, query_x, key_y, key_x], expected)


@pytest.fixture
def seven_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(7)
    yield
    torch.set_num_threads(before)


TILINGS = [ops.window_tiling(length, 3, CPU) for length in (32, 40)]
FRAME_OFFSETS = torch.tensor([[0, 1, 1, 0]] * 6)


@pytest.mark.parametrize(
    ("shape", "look_up"),
    [
        ((5, 4, 5, 5), lambda table: ops.tiled_bias(table, *TILINGS).clamp(min=0)),
        ((2, 100_000), lambda table: ops.pick(table, 0, FRAME_OFFSETS)),
    ],
    ids=["tiles", "frames"],
)
def test_gradients_of_biases_are_the_same_bit_by_bit_on_several_threads(seven_threads, shape, look_up):
    gradients = set()
    for _ in range(5):
        table = torch.ones(shape, requires_grad=True)
        bias = look_up(table)
        (bias * torch.randn(bias.shape, generator=torch.Generator().manual_seed(0))).sum().backward()
        gradients.add(table.grad.numpy().tobytes())
    assert len(gradients) == 1
