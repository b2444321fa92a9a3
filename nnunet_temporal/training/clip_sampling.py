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
        reachable = np.setdiff1d(self._reach(decoded, n_frames, cyclic), decoded)
        n_context = min(self.clip_length - self.decoded_frames, len(reachable))
        context = rng.choice(reachable, n_context, replace=False)
        frames = np.concatenate((decoded, context)).astype(np.int64)
        start = int(rng.integers(n_frames)) if cyclic else 0
        frames = frames[np.argsort((frames - start) % n_frames)]
        positions = np.flatnonzero(np.isin(frames, decoded))
        padding = np.arange(len(frames), self.clip_length)
        positions = np.concatenate((positions, padding[: self.decoded_frames - len(positions)]))
        frames = np.concatenate((frames, np.full(len(padding), -1, np.int64)))
        return ClipFrames(frames, positions)

    def _draw_decoded(self, labelled: np.ndarray, rng: np.random.Generator, required: int | None) -> np.ndarray:
        if required is None:
            return rng.choice(labelled, min(self.decoded_frames, len(labelled)), replace=False)
        others = labelled[labelled != required]
        return np.append(rng.choice(others, min(self.decoded_frames - 1, len(others)), replace=False), required)

    def _reach(self, decoded: np.ndarray, n_frames: int, cyclic: bool) -> np.ndarray:
        if cyclic:
            return np.arange(n_frames)
        margin = self.frame_stride * ((self.clip_length + 1) // 2)
        return np.arange(max(0, decoded.min() - margin), min(n_frames, decoded.max() + margin + 1))
