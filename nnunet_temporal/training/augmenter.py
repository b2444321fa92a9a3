"""Batches drawn ahead of the training, in an order that does not depend on the timing of processes."""

from typing import TypeAlias

import torch
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from batchgenerators.dataloading.single_threaded_augmenter import SingleThreadedAugmenter

from nnunet_temporal.training.sequence_loader import SequenceLoader

Augmenter: TypeAlias = SingleThreadedAugmenter | MultiThreadedAugmenter


def start_augmenter(loader: SequenceLoader, workers: int, device: torch.device) -> Augmenter:
    """Start to draw batches in background processes, or return what draws them when asked for without any.

    Args:
        loader: Makes the batches.
        workers: Number of processes.
        device: Where the training runs: for a GPU, batches wait in memory that it copies from.
    """
    if workers == 0:
        return SingleThreadedAugmenter(loader, None)
    augmenter = MultiThreadedAugmenter(
        loader,
        None,
        workers,
        num_cached_per_queue=3,
        seeds=list(range(workers)),
        pin_memory=device.type == "cuda",
        wait_time=0.002,
    )
    next(augmenter)
    return augmenter
