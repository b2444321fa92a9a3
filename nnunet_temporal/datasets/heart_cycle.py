"""How many frames one heart beat has, read off the images of a sequence.

All rules look at one matrix: the squared distances between frames. A sequence of several beats repeats itself (the lag
function of YIN, de Cheveigne and Kawahara, J. Acoust. Soc. Am. 111, 2002, made local so that beats may differ in
length); a sequence of exactly one beat goes on smoothly from its last frame to its first. What does neither, such as a
half beat, gets no answer.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import ndimage

# Fewer frames cannot tell a coarse beat from a piece of one; no scanner takes fewer of a beat.
MIN_FRAMES = 8
# Motion must stand this far above noise: still images with noise and frames in disorder reach 4, hearts start at 7.
MIN_MOTION_TO_NOISE = 6.0
# A beat has come back when its matched pieces differ by less than this share of what they move. Pieces of one beat
# differ by 0.35 or more (median 1), beats that come back by less than 0.25 in echo, 0.4 in most cine.
MAX_MISMATCH = 0.35
# From the last frame to the first, a closed beat leaves a gap of less than this share of the largest distance, and
# bends less than this many times as sharply as within the sequence; less of one allows more of the other.
MAX_GAP = 1.0
MAX_BEND = 3.5
# It is not thrown back, either: a motion that turns round at full speed leaves no gap, but turns 4 times as sharply as
# anything within the sequence bends.
MAX_TURN = 3.0

# Sides of the reduced frames: the heart is still some 15 pixels wide, and speckle and noise average out.
_REDUCED_PIXELS = 40
_SMOOTHING_PIXELS = 1.0
# Beats differ by 15 %, so a piece is looked for within a little more than that around a lag.
_LAG_TOLERANCE = 0.17
# What is compared covers at least a quarter of a beat, in pieces of a quarter: these contain a direction of motion.
_MIN_OVERLAP = 1 / 4
_PIECE = 1 / 4
# Neighbouring lags are closer than the tolerance by far.
_LAG_STEP = 1.05
# Past the first lag that repeats, the best one is near; twice the beat is not.
_REFINE_UP_TO = 1.4
# Bends are measured over a sixteenth of the sequence: over single frames, long sequences show noise only.
_BENDS_PER_SEQUENCE = 16


@dataclass(frozen=True)
class Cycle:
    """The heart beat of a sequence.

    Attributes:
        frames_per_cycle: Frames divided by the beats they cover; None where the images do not tell.
        confidence: In [0, 1]; at least 0.5 exactly where ``frames_per_cycle`` is a number.
        kind: "periodic" when beats repeat, "closed" when the frames are one beat and the first follows the last, None
            where the images do not tell.
    """

    frames_per_cycle: float | None = None
    confidence: float = 0.0
    kind: Literal["periodic", "closed"] | None = None


def estimate_cycle(frames: np.ndarray) -> Cycle:
    """Estimate how many frames one heart beat has.

    Args:
        frames: (T, Y, X) or (C, T, Y, X) grey values of any type and scale, finite.

    Returns:
        The cycle. A half beat, still or drifting images and fewer than 8 frames give none.

    Raises:
        ValueError: The array has other axes, no pixels, or NaN or infinite values.
    """
    if frames.ndim not in (3, 4) or frames.size == 0:
        raise ValueError(f"expected frames (T, Y, X) or (C, T, Y, X), got shape {frames.shape}")
    if not np.isfinite(frames).all():
        raise ValueError("expected finite grey values, got NaN or infinity")
    channels = frames if frames.ndim == 4 else frames[None]
    if channels.shape[1] < MIN_FRAMES:
        return Cycle()
    squared = np.sum([_squared_distances(_reduce(channel)) for channel in channels], axis=0)
    noise = _noise(squared)
    motion = np.maximum(squared - noise, 0)
    np.fill_diagonal(motion, 0)
    # A percentile, because the maximum is that of the noise.
    largest = float(np.percentile(motion, 95))
    if not largest > MIN_MOTION_TO_NOISE * noise:
        return Cycle()
    lag, mismatch = _find_repetition(motion)
    if mismatch < MAX_MISMATCH:
        return Cycle(lag, 1 - 0.5 * mismatch / MAX_MISMATCH, "periodic")
    bend, turn = _bend_and_turn(squared, noise)
    opening = max(np.sqrt(motion[0, -1] / largest) / MAX_GAP + bend / MAX_BEND, turn / MAX_TURN)
    confidence = float(np.clip(1 - 0.5 * opening, 0, 1))
    return Cycle(float(len(motion)), confidence, "closed") if opening < 1 else Cycle(confidence=confidence)


def _reduce(channel: np.ndarray) -> np.ndarray:
    """Return the changes of small, smooth frames: (T, N) float32, with mean 0 over time and variance 1 over all."""
    n_frames, *sides = channel.shape
    step = -(-max(sides) // _REDUCED_PIXELS)
    starts = [np.arange(0, side, step) for side in sides]
    rows = np.add.reduceat(channel, starts[0], axis=1, dtype=np.float32)
    small = np.add.reduceat(rows, starts[1], axis=2) / step**2
    small = ndimage.gaussian_filter(small, (0, _SMOOTHING_PIXELS, _SMOOTHING_PIXELS)).reshape(n_frames, -1)
    changes = small - small.mean(0)
    strength = changes.std()
    # Rounding alone must not pass for changes.
    return changes / strength if strength > 1e-6 * np.abs(small).max() else np.zeros_like(changes)


def _squared_distances(changes: np.ndarray) -> np.ndarray:
    """Return the squared distance between any two frames: (T, T) float64; pixels count by how smoothly they change.

    Noise changes from frame to frame as much as over the whole sequence, motion less: von Neumann's ratio tells them
    apart. Pixels with strong changes, such as pulsing vessels, count by the root of their strength.
    """
    variance = changes.var(0)
    jumps = np.square(np.diff(changes, axis=0)).mean(0) / 2
    changing = variance > 0
    smoothness = np.maximum(1 - jumps[changing] / variance[changing], 0)
    weighted = changes[:, changing] * (smoothness / np.sqrt(np.sqrt(variance[changing])))
    products = (weighted @ weighted.T).astype(np.float64)
    power = np.diag(products)
    return np.maximum(power[:, None] + power - 2 * products, 0)


def _noise(squared: np.ndarray) -> float:
    """Return the part of the squared distances that is not motion, from those of lag 1 and 2.

    Motion grows with the square of the lag for short lags, independent noise does not grow at all.
    """
    first, second = (float(np.diag(squared, lag).mean()) for lag in (1, 2))
    return float(np.clip((4 * first - second) / 3, 0, first))


def _find_repetition(motion: np.ndarray) -> tuple[float, float]:
    """Return the shortest lag, in frames, after which the sequence repeats itself, and how badly it does.

    Args:
        motion: (T, T) squared distances without noise.

    Returns:
        Lag and mismatch: 0 for a perfect repetition, about 1 for none, infinite when the sequence is too short.
    """
    n_frames = len(motion)
    longest = n_frames / (1 + _MIN_OVERLAP)
    n_lags = min(int(longest * (1 + _LAG_TOLERANCE)) + 1, n_frames)
    # by_lag[i, lag] is the distance of frames i and i + lag, left_by[i, lag] the largest one on the way there.
    by_lag = np.zeros((n_frames, n_lags))
    for lag in range(1, n_lags):
        by_lag[: n_frames - lag, lag] = np.diag(motion, lag)
    left_by = np.maximum.accumulate(by_lag, axis=1)
    spread = np.cumsum(np.cumsum(motion, 0), 1).diagonal() / np.arange(1, n_frames + 1) ** 2
    lags = np.exp(np.arange(np.log(MIN_FRAMES / (1 + _LAG_TOLERANCE)), np.log(longest), np.log(_LAG_STEP)))
    found = [_match_pieces(by_lag, left_by, spread, float(lag)) for lag in lags]
    matching = [lag for lag, (_, mismatch) in zip(lags, found, strict=True) if mismatch < MAX_MISMATCH]
    if not matching:
        return 0.0, np.inf
    near = (lags >= matching[0]) & (lags <= _REFINE_UP_TO * matching[0])
    return min((pair for pair, is_near in zip(found, near, strict=True) if is_near), key=lambda pair: pair[1])


def _match_pieces(by_lag: np.ndarray, left_by: np.ndarray, spread: np.ndarray, lag: float) -> tuple[float, float]:
    """Look for each piece of the sequence around one lag later; return the mean lag found and the mismatch.

    A match counts in proportion to what the heart moved: it must have left the place it comes back to, and what is
    compared must move itself. A ventricle at rest looks like itself at any lag.
    """
    n_frames, n_lags = by_lag.shape
    low, high = int(lag * (1 - _LAG_TOLERANCE)), min(int(np.ceil(lag * (1 + _LAG_TOLERANCE))), n_lags - 1)
    half = max(1, round(lag * _PIECE / 2))
    sizes = {"size": 2 * half + 1, "axis": 0, "mode": "nearest"}
    distance, left = (ndimage.uniform_filter1d(a[:, low : high + 1], **sizes) for a in (by_lag, left_by))
    middles = np.arange(n_frames)[:, None]
    is_whole = (middles >= half) & (middles + half + np.arange(low, high + 1) < n_frames)
    # Later pieces could only be matched too early.
    pieces = np.arange(half, n_frames - half - round(lag))
    if not len(pieces):
        return lag, np.inf
    best = np.where(is_whole, distance, np.inf)[pieces].argmin(1)
    moved = min(left[pieces, best].mean(), spread[round(n_frames - lag) - 1])
    mismatch = distance[pieces, best].mean() / moved if moved > 0 else np.inf
    return low + float(best.mean()), float(mismatch)


def _bend_and_turn(squared: np.ndarray, noise: float) -> tuple[float, float]:
    """Return how the motion goes on from the last frame to the first: two ratios, both 0 on a straight path.

    A bend is the second difference of three frames, a turn the part of it by which the second step leads back along the
    first. Large images of fast motion bend all the time, as their edges pass from pixel to pixel; they do not turn.

    Returns:
        The bend relative to the sharpest bend or the longest step within the sequence, and the turn relative to the
        sharpest bend within it.
    """
    n_frames = len(squared)
    step = max(1, round(n_frames / _BENDS_PER_SEQUENCE))
    here = np.arange(n_frames)
    before, after = np.roll(here, step), np.roll(here, -step)
    # |a - 2b + c|^2 and -4 (b - a)(c - b) from the three distances, less what noise adds to them.
    steps, across = squared[here, before] + squared[here, after], squared[before, after]
    bends = np.sqrt(np.maximum(2 * steps - across - 3 * noise, 0))
    turns = np.sqrt(np.maximum(2 * steps - 2 * across - 2 * noise, 0))
    inside, at_seam = bends[step:-step].max(), np.r_[:step, n_frames - step : n_frames]
    longest = np.sqrt(np.maximum(np.diag(squared, step).max() - noise, 0))
    if not inside > 0:
        return np.inf, np.inf
    return float(bends[at_seam].max() / max(inside, longest)), float(turns[at_seam].max() / inside)
