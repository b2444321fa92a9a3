"""What a memory network carries from frame to frame: the first frame for good, and the latest few."""

from typing import NamedTuple

import torch
from torch import Tensor

Scales = tuple[Tensor, ...]
"""One feature map per scale that takes part in matching, coarse to fine."""


class MemoryBank(NamedTuple):
    """Keys and values of remembered frames: slot 0 holds the first, the other slots the latest, oldest first.

    No frame is ever in two slots: a copy would take the place of other patches in a matching that keeps the best few.

    Attributes:
        keys: Per scale (B, T, C, Y, X).
        values: Per scale (B, T, C_v, Y, X).
        written: (B, T) bool, False for slots without a frame yet.
    """

    keys: Scales
    values: Scales
    written: Tensor


def remember(bank: MemoryBank | None, keys: Scales, values: Scales, valid: Tensor, capacity: int) -> MemoryBank:
    """Return the bank with one more frame, which takes the place of the oldest but the first when the bank is full.

    Args:
        bank: The bank before; None before the first frame.
        keys: Per scale (B, C, Y, X).
        values: Per scale (B, C_v, Y, X).
        valid: (B,) bool, False for sequences whose frame is padding; their memory stays as it is.
        capacity: Largest number of frames in the bank.
    """
    if bank is None:
        slot_keys, slot_values = (tuple(entry.unsqueeze(1) for entry in entries) for entries in (keys, values))
        return MemoryBank(slot_keys, slot_values, valid.unsqueeze(1))
    begun = bank.written[:, 0]
    is_first, is_later = valid & ~begun, valid & begun
    grow = len(bank.written[0]) < capacity

    def write(slots: Tensor, entry: Tensor) -> Tensor:
        entry = entry.unsqueeze(1).to(slots.dtype)
        latest = slots[:, 1:]
        if grow:
            latest = torch.cat((torch.zeros_like(entry), latest), 1)
        moved = torch.cat((latest, entry), 1)[:, 1:]
        return torch.cat((_choose(is_first, entry, slots[:, :1]), _choose(is_later, moved, latest)), 1)

    return MemoryBank(
        tuple(map(write, bank.keys, keys)), tuple(map(write, bank.values, values)), write(bank.written, valid)
    )


def _choose(condition: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    """Choose (B, ...) per sample."""
    return torch.where(condition.view(-1, *[1] * (yes.ndim - 1)), yes, no)
