"""The planner's rules about time: small functions, each with its reason, each explaining its choice in one line."""

import bisect
import functools
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Value = TypeVar("Value")

LONGEST_WINDOW = 128
"""Frames handed to the network at once in prediction. Activations do not grow with it; logits do."""

LONGEST_CLIP = 12
"""Frames of a clip at most: beyond that a step spends more on context than on what is labelled."""

SHORTEST_CLIP = 4
"""Frames of a clip at least, where sequences have about as many: ED, ES and a frame on either way between them."""

FEWEST_CLIPS = 2
"""Clips per step at least, nnU-Net's smallest batch."""

DENSELY_LABELLED = 0.5
"""Share of labelled frames from which on no frame of a clip is mere context."""

_ULTRASOUND = re.compile(
    r"(?<![a-z0-9])(us|ultrasound|ultrasonography|echo|echocardio[a-z]*|b-?mode|tte|tee)(?![a-z0-9])", re.IGNORECASE
)
# MRI has echoes, too.
_ECHO_OF_MRI = re.compile(r"(gradient|spin|multi|turbo|field|planar)[\W_]*echo|mri", re.IGNORECASE)


@dataclass(frozen=True)
class Choice(Generic[Value]):
    """A planned value and the line that explains it."""

    value: Value
    reason: str


@dataclass(frozen=True)
class Span:
    """The motion a clip has to span.

    Attributes:
        frames: Its length in frames.
        closes: Whether it ends where it began: a whole heart beat.
    """

    frames: float
    closes: bool


@dataclass(frozen=True)
class ClipPlan:
    """Frames of a training clip; see ``TemporalConfig``."""

    clip_length: int
    decoded_frames: int
    frame_stride: int


@dataclass(frozen=True)
class Step:
    """What a training step sees: so many clips of this kind."""

    clips: int
    clip: ClipPlan

    def __str__(self) -> str:
        return f"{self.clips} clips x {self.clip.clip_length} frames"


@dataclass(frozen=True)
class Geometry:
    """Geometric augmentation; see ``TemporalConfig``."""

    mirror_axes: tuple[int, ...] | None
    rotation_degrees: float


def plan_span(temporal: Mapping[str, Any]) -> Choice[Span]:
    """Let a clip span one heart beat, or what the data show of it.

    Everything the heart does, it does within a beat; a second one brings nothing new. Where labelled sequences do not
    show a beat (half cycles from ED to ES), the labelled frames say which motion matters; with one labelled frame or
    none in common, it is the whole sequence.

    Args:
        temporal: The fingerprint's entry ``temporal``.
    """
    movies = temporal["labelled_movies"]
    n_frames, gap, cycle = movies["n_frames"], movies["gap_frames"], movies["frames_per_cycle"]
    if cycle is not None:
        seen = f"{temporal['frames_per_cycle']['share']:.0%} of all sequences show one"
        return Choice(Span(cycle, closes=True), f"Clips span a heart beat of {cycle:.3g} frames ({seen}).")
    why = f"labelled sequences, {n_frames:g} frames (median), show no whole heart beat"
    if gap:
        return Choice(Span(gap + 1, closes=False), f"Clips span the {gap + 1:g} frames from label to label: {why}.")
    return Choice(Span(n_frames, closes=False), f"Clips span whole sequences: {why}.")


def plan_clip(temporal: Mapping[str, Any], span: Span, cell_mm: float, labelled_frames_2d: int) -> ClipPlan:
    """Sample the span so finely that walls move about one pixel of the memory from one frame of a clip to the next.

    Then the memory compares a place with itself and its neighbours. More frames would show the same again, fewer
    leave it to guess; context frames are encoded but not segmented, and still take steps from the training. Of a beat
    ED and ES are segmented, the rest is context; densely labelled sequences have no context, but a step keeps at
    least two clips, because the frames of one are all alike.

    Args:
        temporal: The fingerprint's entry ``temporal``.
        span: What ``plan_span`` chose.
        cell_mm: Side of a pixel of the memory's feature map, in the unit of the displacements.
        labelled_frames_2d: Labelled frames in a step of nnU-Net's 2D trainer.
    """
    movies = temporal["labelled_movies"]
    way = wall_path_mm(temporal, span) / cell_mm
    wanted = max(SHORTEST_CLIP, math.ceil(way) + (not span.closes))
    length = int(max(1, min(_frames_of_a_clip(span, min(wanted, LONGEST_CLIP)), movies["n_frames"])))
    dense = movies["labelled_frame_share"] >= DENSELY_LABELLED
    labelled = math.floor(movies["labelled_frames"])
    decoded = min(length, labelled if dense else min(2, labelled), max(1, labelled_frames_2d // FEWEST_CLIPS))
    return ClipPlan(length, max(1, decoded), clip_stride(span, length))


def explain_clip(temporal: Mapping[str, Any], span: Span, clip: ClipPlan, cell_mm: float) -> str:
    """Say what a clip spans, how far walls move in it, and how many of its frames are segmented."""
    movies, way = temporal["labelled_movies"], wall_path_mm(temporal, span)
    moves = "how far walls move is not measured"
    if movies["displacement_mm"] is not None:
        moves = f"walls move {way:.1f} mm in it, {way / cell_mm:.1f} pixels of the memory"
    covered = clip.clip_length * clip.frame_stride if span.closes else (clip.clip_length - 1) * clip.frame_stride + 1
    whole = f"{span.frames:.3g}-frame cycle" if span.closes else f"{span.frames:g} frames"
    return (
        f"Clip {clip.clip_length} x stride {clip.frame_stride} spans {covered / span.frames:.2f} of "
        f"{'a ' if span.closes else ''}{whole}; {moves}. {clip.decoded_frames} of its frames are segmented: "
        f"{movies['labelled_frames']:g} of {movies['n_frames']:g} are labelled."
    )


def wall_path_mm(temporal: Mapping[str, Any], span: Span) -> float:
    """Return how far walls move within ``span``, there and back if it closes; 0 where that is not known."""
    return (temporal["labelled_movies"]["displacement_mm"] or 0.0) * (2 if span.closes else 1)


def clip_stride(span: Span, clip_length: int) -> int:
    """Space the frames of a clip so that it spans ``span``; a closing span has its last gap behind the last frame."""
    gaps = clip_length if span.closes else max(1, clip_length - 1)
    return max(1, round((span.frames - (not span.closes)) / gaps))


def _frames_of_a_clip(span: Span, at_most: int) -> int:
    """Return the most frames, up to ``at_most``, that span ``span`` in strides of whole frames."""
    gaps = span.frames if span.closes else span.frames - 1
    lengths = (round(gaps / stride) + (not span.closes) for stride in range(1, math.ceil(span.frames) + 1))
    return max(1, next((length for length in lengths if length <= at_most), 1))


def plan_clips_per_step(labelled_frames_2d: int, decoded_frames: int) -> int:
    """Let a step see as many labelled frames as the step of nnU-Net's 2D trainer."""
    return max(1, round(labelled_frames_2d / decoded_frames))


def explain_clips(step: Step, labelled_frames_2d: int) -> str:
    """Compare the labelled frames of a step with those of nnU-Net's 2D trainer."""
    labelled = step.clips * step.clip.decoded_frames
    return f"{step.clips} clips per step, {labelled} labelled frames; 2d: {labelled_frames_2d}."


def smaller_steps(step: Step, span: Span) -> list[Step]:
    """List the steps to try against a memory budget, the wanted one first, each smaller than the one before.

    Clips go first, down to nnU-Net's smallest batch of two: context takes little memory, because the encoder keeps
    next to nothing of it. Then context goes, and at last all but one segmented frame per clip.
    """
    length, decoded = step.clip.clip_length, step.clip.decoded_frames
    fewest = min(step.clips, FEWEST_CLIPS)
    smaller = [(clips, step.clip) for clips in range(step.clips, fewest - 1, -1)]
    for frames in range(length - 1, 0, -1):
        smaller.append((fewest, ClipPlan(frames, min(decoded, frames), clip_stride(span, frames))))
    return [Step(clips, clip) for clips, clip in smaller]


def plan_step(steps: list[Step], needed_bytes: Callable[[Step], int], budget_gb: float) -> Choice[Step]:
    """Take the first of ``steps`` that fits into the memory target; the last one if none does, as nnU-Net would.

    Args:
        steps: From large to small, see ``smaller_steps``.
        needed_bytes: Predicts the peak memory of training with a step.
        budget_gb: Memory target in GB of 2**30 bytes, as graphics cards are sold.
    """
    number, needed = first_that_fits(steps, needed_bytes, budget_gb)
    reason = f"A step of {steps[number]} needs {needed(number):.3g} GB of {budget_gb:g}"
    if needed(number) > budget_gb:
        return Choice(
            steps[number], f"{reason}, and no step is smaller: lower the patch size, or train with more memory."
        )
    return Choice(steps[number], f"{reason}." if number == 0 else f"{reason}; {steps[0]} would need {needed(0):.3g}.")


def first_that_fits(
    candidates: Sequence[Value], needed_bytes: Callable[[Value], int], budget_gb: float
) -> tuple[int, Callable[[int], float]]:
    """Find the first of ever smaller candidates that fits, the last if none does; also return what each needs, in GB.

    The first is tried first, because it usually fits and a prediction takes seconds.
    """
    needed = functools.cache(lambda number: needed_bytes(candidates[number]) / 2**30)
    if len(candidates) == 1 or needed(0) <= budget_gb:
        return 0, needed
    smaller = range(1, len(candidates) - 1)
    return 1 + bisect.bisect_left(smaller, True, key=lambda number: needed(number) <= budget_gb), needed


def plan_prediction_window(temporal: Mapping[str, Any]) -> Choice[int]:
    """Hand whole sequences to the network, up to ``LONGEST_WINDOW`` frames, so that its memory need not start anew.

    Shorter sequences are padded, which costs nothing: padding frames are skipped. Longer ones are cut into windows
    that overlap by half.
    """
    longest = int(temporal["n_frames"]["max"])
    window = min(longest, LONGEST_WINDOW)
    cut = "" if window == longest else ", and is cut into windows that overlap"
    return Choice(window, f"Prediction window of {window} frames: the longest sequence has {longest}{cut}.")


def plan_geometry(channel_names: Collection[str], patch_size: Collection[int]) -> Choice[Geometry]:
    """Choose mirroring and rotation by modality.

    Hearts have a handedness: seen from the apex, the right ventricle lies always on the same side, and a mirrored
    short axis shows a heart that does not exist. Learning it costs a short training much, so cine is not mirrored;
    it is rotated by nnU-Net's 2D rule, to any angle unless the patch is elongated. An ultrasound sector has a top and
    is tilted only a little, but is flipped left to right, because laboratories differ in where they put the marker.
    """
    if any(_ULTRASOUND.search(name) and not _ECHO_OF_MRI.search(name) for name in channel_names):
        return Choice(Geometry((2,), 15.0), "Ultrasound: mirrored left to right only, rotated by up to 15 degrees.")
    rotation = 15.0 if max(patch_size) / min(patch_size) > 1.5 else 180.0
    reason = f"Not mirrored, because hearts have a handedness; rotated by up to {rotation:g} degrees."
    return Choice(Geometry(None, rotation), reason)


def explain_batch_dice(batch_dice: bool) -> str:
    """Explain why ``2dt`` computes Dice as ``2d`` does: over the frames of a step, which are as many."""
    over = "all frames of a step together" if batch_dice else "the segmented frames of each clip"
    return f"Dice loss over {over}, as 2d."
