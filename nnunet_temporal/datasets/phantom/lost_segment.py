"""A segment of the ventricle's wall that is lost for a third of every beat: frames that cannot be segmented alone."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial import cKDTree

from nnunet_temporal.datasets.phantom.apical_heart import ApicalOutline
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat

LABELLED_MOMENTS: tuple[Literal["ED", "ES"], ...] = ("ED", "ES")

_SHARE_OF_BEAT = 1 / 3
# From fully visible to fully lost: in shares of the beat, and of the border.
_FADE_OF_BEAT = 0.06
_FADE_OF_BORDER = 0.04
_LENGTH_RANGE = (0.25, 0.33)
# The loss reaches through the wall and the bright pericardium, which would give the wall away, and fades behind them.
_REACH_BEHIND_WALL_MM = 8.0
_FADE_BEHIND_WALL_MM = 6.0
_BORDER_POINTS = 400


@dataclass(frozen=True)
class LostSegment:
    """A segment of the wall whose echoes give way to those of blood, smoothly in place and time.

    Attributes:
        middle: Its middle on the endocardial border, as a share of the way from the left of the annulus over the apex
            to the right of it, at end diastole.
        length: Its length, as a share of the border.
        phase: Phase in the middle of the third of the beat in which it is lost.
    """

    middle: float
    length: float
    phase: float

    @classmethod
    def draw(cls, rng: np.random.Generator, heartbeat: Heartbeat, moment: Literal["ED", "ES"] | None) -> "LostSegment":
        """Draw a segment that lies on the border as a whole.

        Args:
            rng: Source of all random numbers.
            heartbeat: The clock of the heart; its frames include an ED and an ES.
            moment: The one of the two frames in which the segment is lost, while it is fully visible in the other.
                None: it is fully visible in both.

        Returns:
            The segment.

        Raises:
            ValueError: The heartbeat has no ED or no ES among its frames, or too few frames between them.
        """
        length = rng.uniform(*_LENGTH_RANGE)
        middle = rng.uniform(0.5 * length, 1 - 0.5 * length)
        ed, es = heartbeat.ed_es()
        if ed is None or es is None:
            raise ValueError(f"the frames must include an ED and an ES, got {ed} and {es}")
        ed_phase, es_phase = heartbeat.phases()[[ed, es]]
        # From the middle of the third of the beat to where the loss is complete, and to where there is none.
        whole, none = 0.5 * (_SHARE_OF_BEAT - _FADE_OF_BEAT), 0.5 * (_SHARE_OF_BEAT + _FADE_OF_BEAT)
        lowest, highest = {
            "ED": (ed_phase - whole, min(ed_phase + whole, es_phase - none)),
            "ES": (max(es_phase - whole, ed_phase + none), es_phase + whole),
            None: (es_phase + none, ed_phase + 1 - none),
        }[moment]
        if lowest > highest:
            raise ValueError(f"no third of the beat holds {moment or 'neither'} of ED {ed_phase:g} and ES {es_phase:g}")
        return cls(middle, length, float(rng.uniform(lowest, highest) % 1.0))

    def weight(self, places_mm: np.ndarray, outline: ApicalOutline) -> np.ndarray:
        """Return how far places belong to the segment.

        Args:
            places_mm: (N, 2) places of the heart at end diastole.
            outline: Its outlines there.

        Returns:
            (N,) in [0, 1]: 1 in the segment's wall, in the blood before it and closely behind it.
        """
        border_mm, along = _endocardial_border(outline)
        distance_mm, nearest = cKDTree(border_mm).query(places_mm)
        beyond_end = np.abs(along[nearest] - self.middle) - 0.5 * self.length
        behind_mm = distance_mm - outline.wall_mm - _REACH_BEHIND_WALL_MM
        return _fade(beyond_end / _FADE_OF_BORDER) * _fade(behind_mm / _FADE_BEHIND_WALL_MM)

    def loss(self, phase: np.ndarray | float) -> np.ndarray:
        """Return the share of the echoes' level that is lost at phases of any shape, in [0, 1]."""
        from_middle = np.abs((np.asarray(phase) - self.phase + 0.5) % 1.0 - 0.5)
        return _fade((from_middle - 0.5 * _SHARE_OF_BEAT) / _FADE_OF_BEAT)

    def is_affected(self, phase: np.ndarray | float) -> np.ndarray:
        """Return whether the segment is lost at phases of any shape: bool, for a third of every beat."""
        return self.loss(phase) >= 0.5


def _endocardial_border(outline: ApicalOutline) -> tuple[np.ndarray, np.ndarray]:
    """Points (N, 2) from the left of the annulus over the apex to the right, and the share of the way to each (N,)."""
    # Denser near the apex, where the border runs across the axis.
    level_mm = outline.length_mm * np.linspace(0, 1, _BORDER_POINTS) ** 2
    right_mm = np.stack([level_mm, outline.cavity_mm(level_mm)], -1)
    border_mm = np.concatenate([right_mm[:0:-1] * (1, -1), right_mm])
    way_mm = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(border_mm, axis=0), axis=-1))])
    return border_mm, way_mm / way_mm[-1]


def _fade(share: np.ndarray) -> np.ndarray:
    """Fall from 1 to 0 while the share rises from -0.5 to 0.5, with slope 0 at both ends."""
    share = np.clip(share + 0.5, 0, 1)
    return 1 - share * share * (3 - 2 * share)
