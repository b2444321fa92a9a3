"""A second pass from the last frame to the first, whose logits are averaged with those of the first pass."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
from torch import Tensor

from nnunet_temporal.inference.logits_file import LogitsFile
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.preparation import PreparedSequence

Pass: TypeAlias = Callable[[PreparedSequence], Iterator[tuple[np.ndarray, Tensor]]]
"""Yields indices of frames and their logits (K, T, Y, X), until all frames of a sequence had theirs."""


def average_both_ways(run: Pass, sequence: PreparedSequence, clock: StageClock) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Run over a sequence backwards, then forwards, and yield the mean logits as the second run does.

    The logits of the first run wait in a temporary file.

    Args:
        run: Segments a sequence.
        sequence: The frames.
        clock: Counts reading and writing the file to "post-process".

    Yields:
        Indices of frames and their mean logits (K, T, Y, X) float32.
    """
    last = sequence.image.shape[1] - 1
    with LogitsFile() as file:
        for index, logits in run(sequence.reversed()):
            with clock.stage("post-process"):
                file.write(last - index, logits)
        for index, logits in run(sequence):
            with clock.stage("post-process"):
                mean = (logits + file.read(index)) / 2
            yield index, mean
