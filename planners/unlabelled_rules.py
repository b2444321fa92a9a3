"""The planner's rule about frames that nobody labelled: how many of them a semi-supervised step adds."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nnunet_temporal.planners.rules import Choice, Step, first_that_fits
from nnunet_temporal.plans import LONGEST_UNLABELLED_WINDOW

_FEWEST_CLIPS = 2


@dataclass(frozen=True)
class UnlabelledClips:
    """What a step of a semi-supervised trainer adds; see ``TemporalConfig``."""

    unlabelled_clips: int
    window_frames: int

    def __str__(self) -> str:
        return f"{self.unlabelled_clips} clips x {self.window_frames} consecutive unlabelled frames"


def plan_unlabelled_clips(temporal: Mapping[str, Any], step: Step) -> UnlabelledClips:
    """Let a step decode as many unlabelled frames as labelled ones, in windows of consecutive frames.

    The second half of the step then costs what the first does, and losses, teacher and pseudo-labels the rest of two
    and a half times. Three frames and more let a boundary be held against both its neighbours, and cross-mix takes two
    clips; where a step is too small for that, its unlabelled half is the larger one.

    Args:
        temporal: The fingerprint's entry ``temporal``.
        step: The supervised part, which stays as it is.
    """
    labelled = step.clips * step.clip.decoded_frames
    window = max(1, min(LONGEST_UNLABELLED_WINDOW, math.floor(temporal["n_frames"]["median"])))
    return UnlabelledClips(max(_FEWEST_CLIPS, labelled // window), window)


def fit_unlabelled_clips(
    wanted: UnlabelledClips, labelled: int, needed_bytes: Callable[[UnlabelledClips], int], budget_gb: float
) -> Choice[UnlabelledClips]:
    """Take fewer unlabelled clips where the wanted ones exceed the memory target, and at last shorter windows.

    Args:
        wanted: What ``plan_unlabelled_clips`` chose.
        labelled: Labelled frames of the step.
        needed_bytes: Predicts the peak memory of a semi-supervised step.
        budget_gb: Memory target, see ``plan_step``.
    """
    tried = [UnlabelledClips(clips, wanted.window_frames) for clips in range(wanted.unlabelled_clips, 0, -1)]
    tried += [UnlabelledClips(1, window) for window in range(wanted.window_frames - 1, 0, -1)]
    number, needed = first_that_fits(tried, needed_bytes, budget_gb)
    reason = (
        f"Semi-supervised trainers add {tried[number]} to {labelled} labelled ones; "
        f"such a step needs {needed(number):.3g} GB of {budget_gb:g}"
    )
    if needed(number) > budget_gb:
        return Choice(tried[number], f"{reason}, and none is smaller.")
    return Choice(tried[number], f"{reason}." if number == 0 else f"{reason}; {wanted} would need {needed(0):.3g}.")
