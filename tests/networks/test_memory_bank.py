"""The memory bank: the first frame stays, the latest follow, nothing is in it twice."""

import pytest
import torch

from nnunet_temporal.networks.memory_bank import remember


def entry(*numbers):
    """One key and one value map per sequence that show a number."""
    key = torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1)
    return (key,), (-key,)


def fill(frames, capacity):
    """Remember rows of numbers, one per sequence; None is padding."""
    bank, sizes = None, []
    for row in frames:
        valid = torch.tensor([number is not None for number in row])
        bank = remember(bank, *entry(*(number or 99 for number in row)), valid, capacity)
        sizes.append(bank.written.shape[1])
    return bank, sizes


def held(bank):
    """Numbers of the written slots, per sequence."""
    numbers = bank.keys[0].flatten(1).int()
    assert torch.equal(bank.values[0], -bank.keys[0])
    return [row[written].tolist() for row, written in zip(numbers, bank.written, strict=True)]


@pytest.mark.parametrize(
    ("capacity", "expected"),
    [(1, [[1], [1], [1], [1], [1]]), (2, [[1], [1, 2], [1, 3], [1, 4], [1, 5]]),
     (4, [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 3, 4, 5]])],
)  # fmt: skip
def test_the_first_frame_stays_and_the_oldest_other_goes(capacity, expected):
    for number in range(1, 6):
        assert held(fill([[n] for n in range(1, number + 1)], capacity)[0]) == [expected[number - 1]]


def test_the_bank_never_exceeds_its_capacity():
    assert fill([[n] for n in range(1, 8)], 3)[1] == [1, 2, 3, 3, 3, 3, 3]


def test_padding_is_never_remembered_and_sequences_fill_apart():
    frames = [[None, 1], [1, None], [None, 2], [2, None], [3, 3], [None, None], [4, 4]]
    banks = [held(fill(frames[:number], 3)[0]) for number in range(1, 8)]
    assert [first for first, _ in banks] == [[], [1], [1], [1, 2], [1, 2, 3], [1, 2, 3], [1, 3, 4]]
    assert [second for _, second in banks] == [[1], [1], [1, 2], [1, 2], [1, 2, 3], [1, 2, 3], [1, 3, 4]]


def test_a_bank_of_padding_only_is_empty():
    assert held(fill([[None, None], [None, None]], 3)[0]) == [[], []]


def test_remembering_changes_neither_the_bank_before_nor_its_gradient_path():
    key = torch.ones(1, 1, 1, 1, requires_grad=True)
    before = remember(None, (key,), (key,), torch.tensor([True]), 2)
    after = remember(before, (2 * key,), (key,), torch.tensor([True]), 2)
    assert held(remember(None, *entry(1), torch.tensor([True]), 2)) == [[1]]
    assert before.written.shape == (1, 1)
    (after.keys[0] ** 2).sum().backward()
    assert key.grad.item() == 2 * 1 + 2 * 4
