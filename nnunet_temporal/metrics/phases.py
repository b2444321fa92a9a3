"""End diastole and end systole in curves of one or several heartbeats, and how far two answers lie apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.signal import find_peaks

_MS_PER_S = 1000.0


@dataclass(frozen=True)
class PeakRule:
    """What counts as an end diastole or an end systole in a volume curve.

    Attributes:
        shortest_beat_s: Two of a kind are at least this far apart in time (0.3 s are 200 beats per minute).
        shortest_beat_share: The same as a share of the cycle, used where only the frames per cycle are known.
        prominence_share: How far a peak stands out from its surroundings, as a share of the curve's range. Between
            rapid filling and the atrial kick the curve may dip a little; that must not pass for a beat.
        border_share: The first and the last frame are no peaks unless they come this close to the largest (or the
            smallest) volume, as a share of the range: a clip may begin at end diastole, or in the middle of systole.
    """

    shortest_beat_s: float = 0.3
    shortest_beat_share: float = 0.5
    prominence_share: float = 0.3
    border_share: float = 0.1


@dataclass(frozen=True)
class Phases:
    """The end-diastolic and end-systolic frames of a sequence, 0-based and increasing."""

    ed: tuple[int, ...]
    es: tuple[int, ...]

    def beats(self) -> list[tuple[int, int]]:
        """Pair each end diastole with the end systole that follows it before the next end diastole."""
        beats = []
        for ed, next_ed in zip(self.ed, (*self.ed, math.inf)[1:], strict=True):
            beats.extend([(ed, es) for es in self.es if ed < es < next_ed][:1])
        return beats


@dataclass(frozen=True)
class FrameErrors:
    """How the frames of a prediction match those of a reference.

    Attributes:
        frames: Distance of each reference frame to the predicted frame matched to it; none for missed ones.
        missed: Number of reference frames without a predicted frame.
        extra: Number of predicted frames that no reference frame was matched to.
    """

    frames: tuple[int, ...]
    missed: int
    extra: int


def find_ed_es(
    volumes_ml: np.ndarray,
    *,
    frame_interval_s: float | None = None,
    frames_per_cycle: float | None = None,
    cyclic: bool = False,
    rule: PeakRule | None = None,
) -> Phases:
    """Find all end diastoles and end systoles of a sequence as the peaks and troughs of its volume curve.

    Args:
        volumes_ml: (T,) volumes, or areas: only the shape of the curve counts.
        frame_interval_s: Time between two frames in seconds; takes precedence over ``frames_per_cycle``.
        frames_per_cycle: Length of a heartbeat in frames, where the time is unknown.
        cyclic: Whether the frames cover exactly one heartbeat, the first one following the last one. Neither time nor
            ``frames_per_cycle`` is needed then.
        rule: What counts as a peak. None takes the defaults of :class:`PeakRule`.

    Returns:
        The frames found; both empty for a flat curve. A plateau is represented by its middle.

    Raises:
        ValueError: If the curve is empty, has more than one axis or holds a value that is not finite, if an interval
            is not positive, or if nothing tells how long a heartbeat is.
    """
    if volumes_ml.ndim != 1 or volumes_ml.size == 0 or not np.isfinite(volumes_ml).all():
        raise ValueError(f"volumes_ml must be a non-empty finite curve (T,), got shape {volumes_ml.shape}")
    rule = rule or PeakRule()
    frames_per_cycle = float(volumes_ml.size) if cyclic else frames_per_cycle
    for name, value in (("frame_interval_s", frame_interval_s), ("frames_per_cycle", frames_per_cycle)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be a positive number, got {value}")
    if frame_interval_s is not None:
        shortest = rule.shortest_beat_s / frame_interval_s
    elif frames_per_cycle is not None:
        shortest = rule.shortest_beat_share * frames_per_cycle
    else:
        raise ValueError("give frame_interval_s or frames_per_cycle, else the length of a heartbeat is unknown")
    curve = volumes_ml.astype(np.float64)
    return Phases(ed=_peaks(curve, shortest, cyclic, rule), es=_peaks(-curve, shortest, cyclic, rule))


def frame_distance(predicted: int, reference: int, frames_per_cycle: int | None = None) -> int:
    """Compute how many frames two answers lie apart.

    Args:
        predicted: A frame, 0-based.
        reference: Another one.
        frames_per_cycle: Number of frames of a cyclic sequence, in which the shorter way round counts:
            min(d, T - d). None for a sequence that is not cyclic.

    Returns:
        The distance in frames, >= 0.

    Raises:
        ValueError: If a frame lies outside a cyclic sequence.
    """
    distance = abs(predicted - reference)
    if frames_per_cycle is None:
        return distance
    if not (0 <= predicted < frames_per_cycle and 0 <= reference < frames_per_cycle):
        raise ValueError(f"frames must lie in 0..{frames_per_cycle - 1}, got {predicted} and {reference}")
    return min(distance, frames_per_cycle - distance)


def frame_distance_ms(distance: int, frame_interval_s: float) -> float:
    """Convert a distance in frames to milliseconds, with the true interval of the sequence in seconds."""
    return distance * frame_interval_s * _MS_PER_S


def match_frames(
    predicted: Sequence[int],
    reference: Sequence[int],
    *,
    tolerance: float = math.inf,
    frames_per_cycle: int | None = None,
) -> FrameErrors:
    """Match the frames of one kind (ED or ES) of several beats, the nearest pairs first, each frame once.

    Args:
        predicted: Predicted frames.
        reference: Reference frames.
        tolerance: Frames farther apart than this are not the same beat.
        frames_per_cycle: As for :func:`frame_distance`.

    Returns:
        The errors of the matched frames and the numbers of those that were not. Where a reference names only some
        beats of a clip (EchoNet-Dynamic: one), ``extra`` is no fault of the prediction.
    """
    pairs = sorted(
        (frame_distance(found, true, frames_per_cycle), i, j)
        for i, true in enumerate(reference)
        for j, found in enumerate(predicted)
    )
    matched: dict[int, tuple[int, int]] = {}  # reference index to (predicted index, distance)
    for distance, i, j in pairs:
        if distance <= tolerance and i not in matched and all(j != other for other, _ in matched.values()):
            matched[i] = (j, distance)
    frames = tuple(matched[i][1] for i in sorted(matched))
    return FrameErrors(frames, missed=len(reference) - len(frames), extra=len(predicted) - len(frames))


def _peaks(curve: np.ndarray, shortest: float, cyclic: bool, rule: PeakRule) -> tuple[int, ...]:
    """Return the frames of the peaks of a curve (T,), at least ``shortest`` frames apart."""
    low, high = curve.min(), curve.max()
    if low == high:
        return ()
    n_frames = curve.size
    # A peak needs something lower on both sides: a heartbeat before and one after, or a step down where a clip ends.
    around = np.tile(curve, 3) if cyclic else np.concatenate(([low], curve, [low]))
    first = n_frames if cyclic else 1
    peaks, _ = find_peaks(around, distance=max(1, math.ceil(shortest)), prominence=rule.prominence_share * (high - low))
    frames = [int(peak) - first for peak in peaks if first <= peak < first + n_frames]
    least = high - rule.border_share * (high - low)
    return tuple(frame for frame in frames if cyclic or 0 < frame < n_frames - 1 or curve[frame] >= least)
