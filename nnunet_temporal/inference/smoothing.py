"""Logits smoothed along time, so that masks do not flicker."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from nnunet_temporal.inference.both_ways import Pass
from nnunet_temporal.inference.logits_file import LogitsFile
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.preparation import PreparedSequence
from nnunet_temporal.networks.temporal_unet import FRAMES_PER_CHUNK

FEWEST_FRAMES = 5
"""Through three frames a parabola passes as they are."""
_COEFFICIENTS = 3


def check_smooth_frames(frames: int) -> None:
    """Refuse a number of frames that there is no smoothing over.

    Raises:
        ValueError: It is even or too small.
    """
    if frames < FEWEST_FRAMES or frames % 2 == 0:
        raise ValueError(f"smoothing over {frames} frames: expected an odd number from {FEWEST_FRAMES} on")


def smooth_over_time(
    run: Pass, sequence: PreparedSequence, frames: int, clock: StageClock
) -> Iterator[tuple[np.ndarray, Tensor]]:
    """Run over a sequence, and yield its logits smoothed along time.

    Around every frame a parabola is fitted to the logits of each pixel by least squares, and its value there replaces
    them (Savitzky and Golay, 1964). So what a heart does slowly, up to its turning points at ED and ES, is kept, and
    what single frames do is not. The first and the last frames get the parabola through the outermost frames. The
    logits wait in a temporary file.

    Args:
        run: Segments a sequence.
        sequence: The frames.
        frames: How many a parabola is fitted to, odd; fewer where the sequence has fewer.
        clock: Counts smoothing, reading and writing the file to "post-process".

    Yields:
        Indices of frames, increasing, and their smoothed logits (K, T, Y, X) float32.
    """
    with LogitsFile() as file:
        found = []
        for index, logits in run(sequence):
            with clock.stage("post-process"):
                file.write(index, logits)
            found.append(index)
        times = np.sort(np.concatenate(found)) if found else np.zeros(0, int)
        for start in range(0, len(times), FRAMES_PER_CHUNK):
            places = np.arange(start, min(start + FRAMES_PER_CHUNK, len(times)))
            around, weights = smoothing_weights(times, places, frames)
            with clock.stage("post-process"):
                logits = file.read(times[around])
                smooth = torch.einsum("knyx,tn->ktyx", logits, torch.from_numpy(weights).to(logits))
            yield times[places], smooth


def smoothing_weights(times: np.ndarray, places: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which frames make up smoothed ones, and by which weights.

    Args:
        times: (N,) times of all frames, increasing; they may have gaps.
        places: (P,) which of them are smoothed, as consecutive places in ``times``.
        frames: How many frames a parabola is fitted to.

    Returns:
        (M,) places in ``times``, consecutive, and the weights (P, M) float64.
    """
    frames = min(frames, len(times))
    starts = np.clip(places - frames // 2, 0, len(times) - frames)
    around = np.arange(starts[0], starts[-1] + frames)
    weights = np.zeros((len(places), len(around)))
    for row, place, start in zip(weights, places, starts, strict=True):
        window = slice(start - starts[0], start - starts[0] + frames)
        # The value of the parabola at its own time, 0, is its first coefficient.
        row[window] = np.linalg.pinv(np.vander(times[around[window]] - times[place], _COEFFICIENTS, increasing=True))[0]
    return around, weights
