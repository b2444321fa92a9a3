"""What every phantom is: one study, with a mask on each frame and the volumes it was drawn from."""

from dataclasses import dataclass

import numpy as np

from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat
from nnunet_temporal.datasets.phantom.lost_segment import LostSegment


@dataclass(frozen=True)
class PhantomSequence:
    """One sequence with its truth.

    Attributes:
        image: (T, Y, X) float32 grey values.
        truth: (T, Y, X) uint8 label values, a true mask on every frame.
        slice: Index of the slice in its stack, None for a sequence that is not part of a stack.
        view: Name of the view ("4CH"), None when there is only one.
    """

    image: np.ndarray
    truth: np.ndarray
    slice: int | None = None
    view: str | None = None


@dataclass(frozen=True)
class PhantomStudy:
    """One phantom heart.

    Attributes:
        name: Name of the study.
        sequences: Its slices from base to apex, or its views; all have the same number of frames.
        heartbeat: The clock it beats by.
        volumes_ml: Per structure (a label name) its volume in every frame in ml, (T,) float64, from the formulas of the
            shape and not from pixels.
        pixel_mm: In-plane spacing (y, x) in mm.
        slice_mm: Distance between the centres of neighbouring slices in mm, None for views.
        cyclic: Whether the frames cover exactly one beat.
        lost_segment: The segment of the ventricle's wall that is lost in part of the beat, None when none is.
    """

    name: str
    sequences: tuple[PhantomSequence, ...]
    heartbeat: Heartbeat
    volumes_ml: dict[str, np.ndarray]
    pixel_mm: tuple[float, float]
    slice_mm: float | None = None
    cyclic: bool = False
    lost_segment: LostSegment | None = None
