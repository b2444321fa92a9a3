"""End diastole and end systole of a stack, in the reference and as the prediction shows them."""

import math
from dataclasses import dataclass

import numpy as np

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.evaluation.stack import Stack
from nnunet_temporal.metrics.clinical import ed_es_frames
from nnunet_temporal.metrics.phases import find_ed_es, frame_distance_ms, match_frames

# Share of a heartbeat from end diastole to end systole, used only where nothing else tells how long a beat is.
_SYSTOLE_SHARE = 3 / 8


@dataclass(frozen=True)
class PhaseFrames:
    """Which frames are end diastole and end systole.

    Attributes:
        ed: 0-based frame; None when unknown.
        es: 0-based frame; None when unknown.
        source: ``manifest``, ``reference_curve`` (largest and smallest ventricle among all frames), ``labelled_frames``
            (among those that are labelled) or ``unknown``.
        slices: (Z,) bool; the slices labelled at both ED and ES, over which volumes are summed. All slices when unknown
            or when no slice is labelled at both.
    """

    ed: int | None
    es: int | None
    source: str
    slices: np.ndarray

    @property
    def pair(self) -> tuple[int, int] | None:
        """Both frames, None when one is unknown."""
        return None if self.ed is None or self.es is None else (self.ed, self.es)

    def name(self, frame: int) -> str:
        """Return ED, ES or nothing for a frame."""
        return {self.ed: "ED", self.es: "ES"}.get(frame, "")


def find_phase_frames(stack: Stack, labels: LabelScheme) -> PhaseFrames:
    """Take ED and ES from the manifest, or else from the left ventricle of the reference.

    Without an entry in the manifest, only frames are considered that are labelled in some slice, and only slices that
    are labelled in all of these frames.

    Args:
        stack: The stack.
        labels: The labels of the dataset.

    Returns:
        The frames, and the slices that can be compared.
    """
    every_slice = np.ones(len(stack.sequences), bool)
    ed, es, source = stack.first.ed, stack.first.es, "manifest"
    if ed is None or es is None:
        frames = np.flatnonzero(stack.labelled.any(axis=1))
        slices = stack.labelled[frames].all(axis=0)
        ventricle = labels.role_mask(stack.reference, "LV")
        if ventricle is None or frames.size < 2 or not slices.any():
            return PhaseFrames(ed, es, "unknown", every_slice)
        sizes = ventricle[frames][:, slices].sum(axis=(1, 2, 3))
        if sizes.min() == sizes.max():
            return PhaseFrames(ed, es, "unknown", every_slice)
        ed, es = (int(frames[place]) for place in ed_es_frames(sizes))
        source = "reference_curve" if frames.size == stack.n_frames else "labelled_frames"
    slices = stack.labelled[ed] & stack.labelled[es]
    return PhaseFrames(ed, es, source, slices if slices.any() else every_slice)


def frames_per_cycle(stack: Stack, phases: PhaseFrames) -> float:
    """Return the length of a heartbeat in frames; NaN when nothing tells it.

    A cyclic sequence is one heartbeat. Otherwise it is taken from the time between ED and ES, of which systole lasts
    three eighths: rough, but close enough to scale thresholds and to tell beats apart.
    """
    if stack.first.cyclic:
        return float(stack.n_frames)
    if phases.pair is None or phases.ed == phases.es:
        return math.nan
    ed, es = phases.pair
    return (es - ed) / _SYSTOLE_SHARE if es > ed else (ed - es) / (1 - _SYSTOLE_SHARE)


def phase_errors(stack: Stack, phases: PhaseFrames, labels: LabelScheme) -> dict[str, float]:
    """Compute how far the ED and ES that the predicted ventricle shows lie from those of the reference.

    The predicted curve is the size of the left ventricle over the compared slices. Of several beats the nearest one
    counts. The error is infinite ("missing") when the curve shows no such phase.

    Returns:
        ``ed_error_frames``, ``es_error_frames`` and the same in ms where the frame interval is known; nothing when ED
        and ES, the ventricle's label or the length of a beat are unknown.
    """
    ventricle = labels.role_mask(stack.prediction, "LV")
    cycle, interval_s = frames_per_cycle(stack, phases), stack.first.frame_interval_s
    if ventricle is None or phases.pair is None or (interval_s is None and math.isnan(cycle)):
        return {}
    found = find_ed_es(
        ventricle[:, phases.slices].sum(axis=(1, 2, 3)),
        frame_interval_s=interval_s,
        frames_per_cycle=None if math.isnan(cycle) else cycle,
        cyclic=stack.first.cyclic,
    )
    round_trip = stack.n_frames if stack.first.cyclic else None
    errors = {}
    for name, predicted, reference in zip(("ed", "es"), (found.ed, found.es), phases.pair, strict=True):
        matched = match_frames(predicted, [reference], frames_per_cycle=round_trip)
        distance = matched.frames[0] if matched.frames else None
        errors[f"{name}_error_frames"] = math.inf if distance is None else float(distance)
        if interval_s is not None:
            errors[f"{name}_error_ms"] = math.inf if distance is None else frame_distance_ms(distance, interval_s)
    return errors
