"""The clock of a phantom: how long its beats are, when its frames are taken and how full the ventricle is in each.

Phase counts beats: 0 is end diastole (ED), 1 the next one. The ejection fraction of a heart beat holds exactly for the
continuous curve; the frames, which need not fall on ED and ES, sample that curve.
"""

import math
from dataclasses import dataclass

import numpy as np

# Filling, in shares of diastole: a rapid early wave, a rest, and what the atrium adds at the end.
_EARLY_FILLING_END = 0.45
_ATRIAL_KICK_START = 0.72
_ATRIAL_KICK_SHARE = 0.25

# What draw() draws from.
_CYCLE_S_RANGE = (0.6, 1.2)
_EF_PERCENT_RANGE = (20.0, 75.0)
# Systole shortens less than the beat does, so fast hearts spend a larger share of the beat in it.
_SYSTOLE_S = 0.2
_SYSTOLE_SHARE_OFFSET_RANGE = (0.11, 0.15)
_SYSTOLE_SHARE_RANGE = (0.28, 0.41)
MIN_BEATS = 0.5
MIN_FRAMES_PER_CYCLE = 8.0
MAX_JITTER = 0.5


@dataclass(frozen=True)
class Heartbeat:
    """A heart that beats, regularly unless told otherwise, and the frames taken of it.

    Frames are evenly spaced in time. Where the lengths of beats differ, the phase runs faster in the shorter ones.

    Attributes:
        frames_per_cycle: Frames in a beat of usual length, > 0; need not be whole.
        beats: Beats that the frames cover, > 0.
        ef_percent: Ejection fraction of the left ventricle, in (0, 100).
        systole_share: Share of the beat from ED to end systole (ES), in (0, 1).
        cycle_s: Usual length of a beat in seconds, > 0.
        start_phase: Phase of the first frame.
        beat_lengths: Lengths of the beats in shares of the usual one, each > 0, in turn from the beat of the first
            frame and then over again. Empty for a regular heart.

    Raises:
        ValueError: A field lies outside its range.
    """

    frames_per_cycle: float
    beats: float
    ef_percent: float
    systole_share: float
    cycle_s: float
    start_phase: float = 0.0
    beat_lengths: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name, upper in _UPPER_LIMITS.items():
            value = getattr(self, name)
            if not 0 < value < upper:
                raise ValueError(f"{name} must be above 0 and below {upper}, got {value}")
        if not all(0 < length < math.inf for length in self.beat_lengths):
            raise ValueError(f"beat_lengths must be finite numbers above 0, got {self.beat_lengths}")

    @property
    def n_frames(self) -> int:
        """Number of frames, at least 1."""
        return max(1, round(self._frame_after(self.beats)))

    @property
    def true_frames_per_cycle(self) -> float:
        """Frames divided by the beats they cover: ``frames_per_cycle`` unless the lengths of the beats differ."""
        return self.n_frames / float(self._beats_after(np.array(self.n_frames)))

    @property
    def frame_interval_s(self) -> float:
        """Time between two frames in seconds."""
        return self.cycle_s / self.frames_per_cycle

    @property
    def is_cyclic(self) -> bool:
        """Whether the frames cover exactly one beat, so that the first frame follows the last."""
        return math.isclose(self.true_frames_per_cycle, self.n_frames)

    def phases(self) -> np.ndarray:
        """Return the phase of every frame: (T,) float64, in beats, rising from ``start_phase``."""
        return self.start_phase + self._beats_after(np.arange(self.n_frames))

    def volume_share(self, phase: np.ndarray | float) -> np.ndarray:
        """Compute how full the left ventricle is.

        The curve has no kinks (its slope is continuous), repeats every beat, falls from ED to ES and rises in two
        waves, early filling and atrial kick, with a rest between them.

        Args:
            phase: Phases in beats, any shape.

        Returns:
            Volume over end-diastolic volume, same shape, float64: 1 at ED and 1 - EF at ES.
        """
        in_beat = np.mod(phase, 1.0)
        ejected = _smooth_step(in_beat / self.systole_share)
        diastole = (in_beat - self.systole_share) / (1 - self.systole_share)
        early = _smooth_step(diastole / _EARLY_FILLING_END)
        atrial = _smooth_step((diastole - _ATRIAL_KICK_START) / (1 - _ATRIAL_KICK_START))
        filled = (1 - _ATRIAL_KICK_SHARE) * early + _ATRIAL_KICK_SHARE * atrial
        return 1 - self.ef_percent / 100 * (ejected - filled)

    def ed_es(self) -> tuple[int | None, int | None]:
        """Return the frame nearest to the first ED and the frame nearest to the ES after it, 0-based.

        Each is None when no frame is within half a frame interval of it. A beat that is cut before its ES therefore
        has none, even when the ES of the beat before is in view.
        """
        first_length = (self.beat_lengths or (1.0,))[0]
        ed_phase = math.ceil(self.start_phase - 0.5 / (self.frames_per_cycle * first_length))
        ed, es = (
            round(self._frame_after(phase - self.start_phase)) for phase in (ed_phase, ed_phase + self.systole_share)
        )
        return (ed if ed < self.n_frames else None, es if es < self.n_frames else None)

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        frames_per_cycle_range: tuple[float, float] = (12.0, 80.0),
        beats_range: tuple[float, float] = (0.5, 4.0),
        jitter: float = 0.0,
    ) -> "Heartbeat":
        """Draw a heart beat whose frames always include an ED and the ES after it.

        Args:
            rng: Source of all random numbers.
            frames_per_cycle_range: Smallest and largest number of frames per beat, at least 8; drawn evenly on a
                logarithmic scale. With a ``beats_range`` of (1, 1) the number is whole, so that the beat closes.
            beats_range: Smallest and largest number of beats, at least 0.5.
            jitter: Each beat is up to this share longer or shorter than usual, in [0, 0.5]; drawn evenly. A
                ``beats_range`` of (1, 1) has none: a beat that closes is followed by itself.

        Returns:
            The heart beat; its first frame is anywhere in the beat where ED and ES stay in view.

        Raises:
            ValueError: A range is empty or starts below its minimum, or the jitter is outside its range.
        """
        if not 0 <= jitter <= MAX_JITTER:
            raise ValueError(f"jitter must be in [0, {MAX_JITTER:g}], got {jitter}")
        _check_range("frames_per_cycle_range", frames_per_cycle_range, MIN_FRAMES_PER_CYCLE)
        _check_range("beats_range", beats_range, MIN_BEATS)
        closes = beats_range == (1, 1)
        frames_per_cycle = _draw_frames_per_cycle(rng, frames_per_cycle_range, whole=closes)
        beats = float(rng.uniform(*beats_range))
        jitter = 0.0 if closes else jitter
        cycle_s = float(rng.uniform(*_CYCLE_S_RANGE))
        in_view = _last_phase_in_view(frames_per_cycle, beats, jitter)
        share = _SYSTOLE_S / cycle_s + rng.uniform(*_SYSTOLE_SHARE_OFFSET_RANGE)
        share = float(min(np.clip(share, *_SYSTOLE_SHARE_RANGE), 0.99 * in_view))
        ef_percent = float(rng.uniform(*_EF_PERCENT_RANGE))
        start_phase = -float(rng.uniform(0.0, min(0.99 * in_view - share, 1.0)))
        lengths = _draw_beat_lengths(rng, beats, jitter)
        return cls(frames_per_cycle, beats, ef_percent, share, cycle_s, start_phase, lengths)

    def _frame_after(self, beats: float) -> float:
        """Return the frame, not rounded, that is this many beats after the first one."""
        if not self.beat_lengths:
            return beats * self.frames_per_cycle
        phases, frames = self._beat_starts()
        return float(np.interp(self.start_phase + beats, phases, frames))

    def _beats_after(self, frames: np.ndarray) -> np.ndarray:
        """Return the beats, any shape, from the first frame to others; the inverse of :meth:`_frame_after`."""
        if not self.beat_lengths:
            return frames / self.frames_per_cycle
        phases, starts = self._beat_starts()
        return np.interp(frames, starts, phases) - self.start_phase

    def _beat_starts(self) -> tuple[np.ndarray, np.ndarray]:
        """Return phase and frame at which each beat starts, from that of the first frame to two after the last one."""
        phases = math.floor(self.start_phase) + np.arange(math.ceil(self.beats) + 4)
        lengths = np.resize(self.beat_lengths, len(phases) - 1)
        since_first_start = np.concatenate([[0.0], np.cumsum(lengths)])
        before = lengths[0] * (self.start_phase - phases[0])
        return phases, (since_first_start - before) * self.frames_per_cycle


_UPPER_LIMITS = {
    "frames_per_cycle": math.inf,
    "beats": math.inf,
    "ef_percent": 100.0,
    "systole_share": 1.0,
    "cycle_s": math.inf,
}


def _smooth_step(share: np.ndarray) -> np.ndarray:
    """Rise from 0 (share 0 and below) to 1 (share 1 and above) with slope 0 at both ends."""
    share = np.clip(share, 0.0, 1.0)
    return share * share * (3 - 2 * share)


def _last_phase_in_view(frames_per_cycle: float, beats: float, jitter: float) -> float:
    """Return the phase, from the first frame on, that is the last one nearest to a frame; ES must not lie behind it."""
    in_view = (max(1, round(frames_per_cycle * beats)) - 0.5) / frames_per_cycle
    # In a short beat the last frame, rounded away, may hold this much more.
    return in_view - 1 / ((1 - jitter) * frames_per_cycle) if jitter else in_view


def _draw_beat_lengths(rng: np.random.Generator, beats: float, jitter: float) -> tuple[float, ...]:
    # Nothing is drawn for a regular heart, so that its seeds keep their meaning.
    return tuple(rng.uniform(1 - jitter, 1 + jitter, math.ceil(beats) + 1).tolist()) if jitter else ()


def _draw_frames_per_cycle(rng: np.random.Generator, limits: tuple[float, float], *, whole: bool) -> float:
    drawn = float(np.exp(rng.uniform(*np.log(limits))))
    if not whole:
        return drawn
    # A range without a whole number gives the next one above it.
    lowest = math.ceil(limits[0])
    return float(np.clip(round(drawn), lowest, max(lowest, math.floor(limits[1]))))


def _check_range(name: str, limits: tuple[float, float], minimum: float) -> None:
    low, high = limits
    if not minimum <= low <= high < math.inf:
        raise ValueError(f"{name} must be two rising numbers, {minimum:g} or more, got {limits}")
