"""What the processes of a distributed training share out and put together, and the end of those of a loader."""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch.distributed as dist
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter

Item = TypeVar("Item")
Value = TypeVar("Value")


def own_share(items: Sequence[Item]) -> Sequence[Item]:
    """Return the items that this process deals with: all where the training is not distributed."""
    return items[dist.get_rank() :: dist.get_world_size()] if _is_distributed() else items


def from_all_processes(value: Value) -> list[Value]:
    """Return what each process gave, in the order of their ranks; it must be possible to pickle."""
    if not _is_distributed():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def stop_loader(loader: object) -> None:
    """End the processes of a loader that has them."""
    if isinstance(loader, MultiThreadedAugmenter):
        loader._finish()


def _is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized()
