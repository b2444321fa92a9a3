"""Which labelled frames make a triplet: along time, along the slices of a study, or around the corner.

Source: CSTM (WACV 2025) trains on ED-ES-ED of one slice and on three ordered slices of one phase. Triplets around the
corner, first along time and then to a neighbouring slice, are ours; they go the way of its 4D propagation.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.sequences import Sequence

FARTHEST_SLICE = 5
"""Slices between any two of a triplet; CSTM's largest distance, which it does not define more closely."""


@dataclass(frozen=True)
class Place:
    """A frame of a study.

    Attributes:
        case: Its sequence.
        frame: Its index in the sequence, before any cropping.
    """

    case: str
    frame: int


Triplet = tuple[Place, Place, Place]


class TripletSampler:
    """Draws three labelled frames that start at a given one, all of them in one study.

    ``along_time``: to another labelled frame of the sequence, and from there back or on to a third: ED-ES-ED and
    ES-ED-ES where these two are labelled. ``along_slices``: on to two further slices at the same moment, in one
    direction. ``around_corner``: to another moment, then to another slice at that moment. A triplet is of any kind
    that the study has for its first frame, each as likely. Where it has none, for want of another labelled frame and
    of slices, the frame is taken three times: augmentation then is all that moves.
    """

    def __init__(self, sequences: Iterable[Sequence]) -> None:
        """Draw from the labelled frames of these sequences."""
        self.sequences = {sequence.case: sequence for sequence in sequences}

    def sample(self, first: Place, rng: np.random.Generator) -> Triplet:
        """Draw a triplet that starts at a labelled frame."""
        kinds: tuple[Callable[[Place], list[Triplet]], ...] = (self.along_time, self.along_slices, self.around_corner)
        existing = [triplets for triplets in (kind(first) for kind in kinds) if triplets]
        if not existing:
            return first, first, first
        triplets = existing[rng.integers(len(existing))]
        return triplets[rng.integers(len(triplets))]

    def along_time(self, first: Place) -> list[Triplet]:
        """List the triplets within the sequence; neighbours in a triplet are different frames."""
        frames = self.sequences[first.case].labelled_frames
        return [
            (first, Place(first.case, second), Place(first.case, third))
            for second in frames
            for third in frames
            if second not in (first.frame, third)
        ]

    def along_slices(self, first: Place) -> list[Triplet]:
        """List the triplets of three slices at one moment, in their order or against it."""
        steps = self._steps(first)
        return [
            (first, second, third)
            for near, second in steps
            for far, third in steps
            if near * far > 0 and abs(near) < abs(far)
        ]

    def around_corner(self, first: Place) -> list[Triplet]:
        """List the triplets that go on to another moment, and then to another slice."""
        others = [Place(first.case, t) for t in self.sequences[first.case].labelled_frames if t != first.frame]
        return [(first, second, third) for second in others for _, third in self._steps(second)]

    def _steps(self, start: Place) -> list[tuple[int, Place]]:
        """List the labelled frames of nearby slices at the same moment, each with its distance in slices, signed."""
        here = self.sequences[start.case]
        steps = []
        for there in self.sequences.values():
            is_sibling = (there.study, there.view) == (here.study, here.view) and there.case != here.case
            if is_sibling and here.slice is not None and there.slice is not None:
                distance = there.slice - here.slice
                if abs(distance) <= FARTHEST_SLICE and start.frame in there.labelled_frames:
                    steps.append((distance, Place(there.case, start.frame)))
        return steps
