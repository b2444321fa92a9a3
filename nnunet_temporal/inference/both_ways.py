"""A second pass from the last frame to the first, whose logits are averaged with those of the first pass."""

import tempfile
from collections.abc import Callable, Iterator
from typing import IO, TypeAlias

import numpy as np
import torch
from torch import Tensor

from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.preparation import PreparedSequence

Pass: TypeAlias = Callable[[PreparedSequence], Iterator[tuple[np.ndarray, Tensor]]]
"""Yields indices of frames and their logits (K, T, Y, X), until all frames of a sequence had theirs."""


def average_both_ways(run: Pass, sequence: PreparedSequence, clock: StageClock) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Run over a sequence backwards, then forwards, and yield the mean logits as the second run does.

    The logits of the first run wait in a temporary file, in float32: half precision would save half of the file, but
    keep three of the seven digits that a CPU computes. The file is read and written, not mapped, because mapped pages
    count as memory of the process. On most systems it has no name: nothing is left of it however the process ends.

    Args:
        run: Segments a sequence.
        sequence: The frames.
        clock: Counts reading and writing the file to "post-process".

    Yields:
        Indices of frames and their mean logits (K, T, Y, X) float32.
    """
    last = sequence.image.shape[1] - 1
    with tempfile.TemporaryFile() as file:
        for index, logits in run(sequence.reversed()):
            with clock.stage("post-process"):
                _write(file, last - index, logits)
        for index, logits in run(sequence):
            with clock.stage("post-process"):
                mean = (logits + _read(file, index, logits)) / 2
            yield index, mean


def _write(file: IO[bytes], index: np.ndarray, logits: Tensor) -> None:
    """Write the logits (K, T, Y, X) of frames to their places, all frames one after the other."""
    for t, frame in zip(index, logits.transpose(0, 1).contiguous().cpu().numpy(), strict=True):
        file.seek(int(t) * frame.nbytes)
        file.write(frame)


def _read(file: IO[bytes], index: np.ndarray, like: Tensor) -> Tensor:
    """Read the logits of frames in shape, type and device of ``like`` (K, T, Y, X)."""
    frames = np.empty((like.shape[1], like.shape[0], *like.shape[2:]), np.float32)
    for t, frame in zip(index, frames, strict=True):
        file.seek(int(t) * frame.nbytes)
        file.readinto(frame)  # type: ignore[attr-defined]  # files opened in binary mode have it
    return torch.from_numpy(frames).to(like.device).transpose(0, 1)
