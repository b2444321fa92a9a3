"""Which frames of a sequence make a training clip."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class ClipFrames:
    """The frames of one clip, in the order the network sees them.

    Attributes:
        frames: (T,) frame indices into the sequence; -1 is padding, always at the end.
        decoded: (D,) ascending positions in ``frames`` that are segmented and supervised.
    """

    frames: np.ndarray
    decoded: np.ndarray


@dataclass(frozen=True)
class ClipSampler:
    """Builds clips around labelled frames: the decoded frames, and context frames between and around them.

    Attributes:
        clip_length: Frames per clip (T).
        decoded_frames: Labelled frames per clip (D).
        frame_stride: Typical gap between frames of a clip; context reaches ``frame_stride`` times half the clip
            length before the first and behind the last decoded frame.
    """

    clip_length: int
    decoded_frames: int
    frame_stride: int

    def sample(
        self,
        n_frames: int,
        labelled: np.ndarray,
        cyclic: bool,
        rng: np.random.Generator,
        required: int | None = None,
    ) -> ClipFrames:
        """Draw one clip.

        Labelled frames are drawn without replacement, context frames uniformly from the reach of the decoded ones.
        Time always runs forwards; a clip of a cyclic sequence may start at any phase. Frames a short sequence
        cannot give are padding, and a clip with too few labelled frames decodes padding instead.

        Args:
            n_frames: Frames in the sequence.
            labelled: Indices of its labelled frames, at least one.
            cyclic: Whether the last frame is followed by the first.
            rng: Source of randomness.
            required: A labelled frame the clip must decode.
        """
        decoded = self._draw_decoded(labelled, rng, required)
        reachable = _reachable(decoded, self.frame_stride, self.clip_length, n_frames, cyclic)
        n_context = min(self.clip_length - self.decoded_frames, len(reachable))
        context = rng.choice(reachable, n_context, replace=False)
        start = int(rng.integers(n_frames)) if cyclic else 0
        return _arrange(decoded, self.decoded_frames, context, self.clip_length, start, n_frames)

    def _draw_decoded(self, labelled: np.ndarray, rng: np.random.Generator, required: int | None) -> np.ndarray:
        if required is None:
            return rng.choice(labelled, min(self.decoded_frames, len(labelled)), replace=False)
        others = labelled[labelled != required]
        return np.append(rng.choice(others, min(self.decoded_frames - 1, len(others)), replace=False), required)


@dataclass(frozen=True)
class WindowSampler:
    """Builds clips around a window of consecutive frames, labelled or not, which are decoded.

    Attributes:
        window_frames: Consecutive frames per clip (W).
        context_frames: Frames per clip that are not decoded; they come from before and after the window, from as far
            away as in ``ClipSampler``.
        frame_stride: Typical gap between frames of a clip.
    """

    window_frames: int
    context_frames: int
    frame_stride: int

    def sample(self, n_frames: int, cyclic: bool, rng: np.random.Generator) -> ClipFrames:
        """Draw one clip of ``window_frames + context_frames`` frames.

        The window lies anywhere in the sequence, every place as likely as another; of a cyclic sequence it may reach
        over the end, and the clip begins at any phase that leaves it whole. Frames a short sequence cannot give are
        padding.

        Args:
            n_frames: Frames in the sequence.
            cyclic: Whether the last frame is followed by the first.
            rng: Source of randomness.
        """
        length, clip_length = min(self.window_frames, n_frames), self.window_frames + self.context_frames
        first = int(rng.integers(n_frames if cyclic else n_frames - length + 1))
        window = (first + np.arange(length)) % n_frames
        reachable = _reachable(window, self.frame_stride, clip_length, n_frames, cyclic)
        context = rng.choice(reachable, min(self.context_frames, len(reachable)), replace=False)
        start = (first - int(rng.integers(n_frames - length + 1))) % n_frames if cyclic else 0
        return _arrange(window, self.window_frames, context, clip_length, start, n_frames)


def _reachable(decoded: np.ndarray, frame_stride: int, clip_length: int, n_frames: int, cyclic: bool) -> np.ndarray:
    """Return the frames that may be context of the decoded ones."""
    if cyclic:
        reach = np.arange(n_frames)
    else:
        margin = frame_stride * ((clip_length + 1) // 2)
        reach = np.arange(max(0, decoded.min() - margin), min(n_frames, decoded.max() + margin + 1))
    return np.setdiff1d(reach, decoded)


def _arrange(
    decoded: np.ndarray, n_decoded: int, context: np.ndarray, clip_length: int, start: int, n_frames: int
) -> ClipFrames:
    """Put the frames of a clip in order of time, from frame ``start`` on, and padding behind them."""
    frames = np.concatenate((decoded, context)).astype(np.int64)
    frames = frames[np.argsort((frames - start) % n_frames)]
    positions = np.flatnonzero(np.isin(frames, decoded))
    padding = np.arange(len(frames), clip_length)
    positions = np.concatenate((positions, padding[: n_decoded - len(positions)]))
    return ClipFrames(np.concatenate((frames, np.full(len(padding), -1, np.int64))), positions)
