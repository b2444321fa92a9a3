"""What a fold's validation looks like: the worst, the median and the best sequence with their masks and curves."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import label_scheme_of
from nnunet_temporal.report.colours import EXPERT_COLOUR, LABEL_COLOURS, Colour, colour_places
from nnunet_temporal.report.slice_mosaic import grey_window
from nnunet_temporal.report.validated_sequences import (
    ValidatedSequence,
    Validation,
    choose_cases,
    mean_dice,
    read_scores,
    read_sequence,
    structures_of,
)

SHEET_NAME = "validation_sheet.png"

# All lengths are pixels of the picture.
_DPI = 100
_WIDTH_PX = 1600
_MARGIN_PX = 24
_HEADER_PX = 76
_PANELS = 5
_PANEL_PX = 216
_GAP_PX = 6
_CURVE_LEFT_PX = 1212
_LINE_PX = 26
_LEGEND_COLUMNS = 4
_ABOVE_PX = 18
_BELOW_PX = 56

_PAPER = "#0e1116"
_TEXT = "#e8ecf1"
_FAINT = "#97a1ad"
_LINE = "#3a424c"
_EXPERT_WIDTH_PX = 4.0
_PREDICTION_WIDTH_PX = 1.8
_TINT = 0.18
_VIEW_MARGIN = 0.35
# Text stays readable on bright tissue.
_RIM = withStroke(linewidth=2.5, foreground="black")
# With more points than these, marks of full size would hide each other, and those of frames the curve.
_FEW_POINTS = 6
_FEW_FRAMES = 40


@dataclass(frozen=True)
class _Place:
    """A rectangle on the sheet: pixels from the left, from the top, and its size."""

    left: float
    top: float
    width: float
    height: float

    def axes(self, figure: Figure) -> Axes:
        """Add axes that fill the rectangle."""
        width, height = figure.get_size_inches() * _DPI
        bottom = 1 - (self.top + self.height) / height
        axes = figure.add_axes((self.left / width, bottom, self.width / width, self.height / height))
        axes.set_facecolor("black")
        return axes


def write_validation_sheet(validation: Validation, path: Path, title: str) -> list[str]:
    """Draw the worst, the median and the best validated sequence by mean Dice over structures on labelled frames.

    Args:
        validation: The validation of a fold, complete with its ``summary.json``.
        path: The picture to write, 1600 pixels wide; its folder must exist.
        title: What was validated.

    Returns:
        The validated sequences that have no score, since no structure is in truth or prediction.

    Raises:
        InputError: No sequence has a score.
        OSError: A file is missing or the picture cannot be written.
        RuntimeError: A mask or a preprocessed image cannot be read.
    """
    scores = read_scores(validation)
    left_out = sorted(case for case, dice in scores.items() if math.isnan(mean_dice(dice.values())))
    chosen, colours = choose_cases(scores), structure_colours(validation.labels)
    lines = -(-len(colours) // _LEGEND_COLUMNS)
    row_px = lines * _LINE_PX + _ABOVE_PX + _PANEL_PX + _BELOW_PX
    height_px = _HEADER_PX + row_px * len(chosen)
    figure = Figure(figsize=(_WIDTH_PX / _DPI, height_px / _DPI), dpi=_DPI, facecolor=_PAPER)
    roles = ", ".join(chosen)
    _draw_header(figure, title, f"{_counted(len(scores), left_out)}; {roles} by mean Dice on labelled frames")
    for number, (role, case) in enumerate(chosen.items()):
        # Read when it is drawn: a single sequence is in memory at a time.
        sequence = read_sequence(validation, case, scores[case])
        _draw_row(figure, sequence, role, colours, _HEADER_PX + number * row_px)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)
    return left_out


def structure_colours(labels: Mapping[str, int | list[int]]) -> dict[str, Colour]:
    """Return the colour of each structure: that of the report, or by order where labels have no clear roles.

    Args:
        labels: Those of ``dataset.json``, regions as well; background and ignore label get no colour.
    """
    try:
        places = colour_places(label_scheme_of(labels, "dataset.json"))
    except InputError:
        # Regions, or two names of one role: no reason to do without a picture.
        places = {name: place for place, name in enumerate(structures_of(labels))}
    return {name: LABEL_COLOURS[place % len(LABEL_COLOURS)] for name, place in places.items()}


def _counted(n_sequences: int, left_out: list[str]) -> str:
    """Return how many sequences were validated, and how many of them have no structure."""
    text = f"{n_sequences} validated sequence{'s' * (n_sequences != 1)}"
    return f"{text}, {len(left_out)} of them left out: no structure in truth or prediction" if left_out else text


def _draw_header(figure: Figure, title: str, text: str) -> None:
    """Write what the sheet shows, and how prediction and expert are drawn."""
    _write(figure, _MARGIN_PX, 24, title, fontsize=14, fontweight="bold", color=_TEXT)
    _write(figure, _MARGIN_PX, 50, text, fontsize=10.5, color=_FAINT)
    expert = _rgb(EXPERT_COLOUR)
    handles = [
        Line2D([], [], color=_TEXT, linewidth=_points(_PREDICTION_WIDTH_PX), label="prediction (colour of structure)"),
        Line2D([], [], color=expert, linewidth=_points(_EXPERT_WIDTH_PX), marker="D", markersize=7, label="expert"),
    ]
    _legend(figure, handles, 37, columns=2)


def _draw_row(figure: Figure, sequence: ValidatedSequence, role: str, colours: dict[str, Colour], top: float) -> None:
    """Draw one sequence: what it is and its scores, frames, and curves below each other from ``top``."""
    text = f"{role}: {sequence.sequence.case}, mean Dice {mean_dice(sequence.dice.values()):.3f}"
    _write(figure, _MARGIN_PX, top + _LINE_PX / 2, text, fontsize=13, fontweight="bold", color=_TEXT)
    handles = [
        Line2D([], [], color=_rgb(colour), linewidth=3, label=f"{name}  {_figures_of(sequence, name)}")
        for name, colour in colours.items()
    ]
    lines = -(-len(handles) // _LEGEND_COLUMNS)
    _legend(figure, handles, top + lines * _LINE_PX / 2, columns=min(len(handles), _LEGEND_COLUMNS))
    below = top + lines * _LINE_PX + _ABOVE_PX
    grey, view = grey_window(sequence.image), _view_mm(sequence)
    for column, frame in enumerate(sequence.shown_frames(_PANELS)):
        left = _MARGIN_PX + column * (_PANEL_PX + _GAP_PX)
        axes = _Place(left, below, _PANEL_PX, _PANEL_PX).axes(figure)
        _draw_frame(axes, sequence, grey, frame, colours)
        axes.set(xlim=view[:2], ylim=view[2:], xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    curve = _Place(_CURVE_LEFT_PX, below, _WIDTH_PX - _MARGIN_PX - _CURVE_LEFT_PX, _PANEL_PX)
    _draw_curves(curve.axes(figure), sequence, colours)


def _figures_of(sequence: ValidatedSequence, structure: str) -> str:
    """Return Dice and flicker of a structure."""
    dice, flicker = sequence.dice[structure], sequence.flicker_percent(structure)
    texts = ("-" if math.isnan(dice) else f"{dice:.3f}", "-" if math.isnan(flicker) else f"{flicker:.1f} %")
    return f"Dice {texts[0]}, flicker {texts[1]}"


def _view_mm(sequence: ValidatedSequence) -> tuple[float, float, float, float]:
    """Return left, right, lower and upper end of a square, in mm, around all masks; the whole image without any."""
    names, labelled = sequence.structures, sequence.labelled_frames
    predicted = [sequence.predicted(name).any(axis=0) for name in names]
    drawn = [sequence.expert(name)[labelled].any(axis=0) for name in names]
    occupied = np.any([*predicted, *drawn], axis=0)  # (Y, X)
    if not occupied.any():
        occupied = np.ones_like(occupied)
    centres, extents = [], []
    for axis, length in ((0, sequence.pixel_mm[0]), (1, sequence.pixel_mm[1])):
        places = np.flatnonzero(occupied.any(axis=1 - axis))
        centres.append((places[0] + places[-1]) / 2 * length)
        extents.append((places[-1] - places[0] + 1) * length)
    whole = max(size * length for size, length in zip(occupied.shape, sequence.pixel_mm, strict=True))
    half = min(max(extents) * (1 + 2 * _VIEW_MARGIN), whole) / 2
    y, x = centres
    return x - half, x + half, y + half, y - half


def _draw_frame(
    axes: Axes, sequence: ValidatedSequence, grey: np.ndarray, frame: int, colours: dict[str, Colour]
) -> None:
    """Draw one frame, in mm: image (of its part of the masks' grid), expert where there is one, prediction above."""
    frames, rows, columns = sequence.box
    y_mm, x_mm = sequence.pixel_mm
    if frames.start <= frame < frames.stop:
        left, right = ((column - 0.5) * x_mm for column in (columns.start, columns.stop))
        upper, lower = ((row - 0.5) * y_mm for row in (rows.start, rows.stop))
        axes.imshow(
            grey[frame - frames.start],
            cmap="gray",
            vmin=0,
            vmax=255,
            extent=(left, right, lower, upper),
            interpolation="bicubic",
        )
    is_labelled = frame in sequence.labelled_frames
    for name in colours if is_labelled else ():
        _outline(axes, sequence.expert(name)[frame], sequence.pixel_mm, EXPERT_COLOUR, _EXPERT_WIDTH_PX)
    for name, colour in colours.items():
        _outline(axes, sequence.predicted(name)[frame], sequence.pixel_mm, colour, _PREDICTION_WIDTH_PX, filled=True)
    phase = {sequence.sequence.ed: "ED  ", sequence.sequence.es: "ES  "}.get(frame, "")
    style: dict[str, Any] = {"color": _rgb(EXPERT_COLOUR), "weight": "bold"} if is_labelled else {"color": _TEXT}
    axes.text(0.03, 0.97, f"{phase}frame {frame}", transform=axes.transAxes, va="top", path_effects=[_RIM], **style)


def _outline(
    axes: Axes,
    mask: np.ndarray,
    pixel_mm: tuple[float, float],
    colour: Colour,
    width_px: float,
    *,
    filled: bool = False,
) -> None:
    """Draw the outline of a mask (Y, X), half-way between its pixels and the next; tint the inside on request."""
    if not mask.any():
        return
    # A rim of background closes the outlines of masks that reach the border of the image.
    y_mm, x_mm = (np.arange(-1, size + 1) * length for size, length in zip(mask.shape, pixel_mm, strict=True))
    padded = np.pad(mask, 1).astype(np.float32)
    if filled:
        axes.contourf(x_mm, y_mm, padded, levels=[0.5, 1.5], colors=[_rgb(colour)], alpha=_TINT)
    axes.contour(x_mm, y_mm, padded, levels=[0.5], colors=[_rgb(colour)], linewidths=_points(width_px))


def _draw_curves(axes: Axes, sequence: ValidatedSequence, colours: dict[str, Colour]) -> None:
    """Draw the area of each structure over all frames, with the expert's where there are some."""
    interval_s, labelled = sequence.sequence.frame_interval_s, sequence.labelled_frames
    times = np.arange(sequence.n_frames) * (1.0 if interval_s is None else interval_s * 1000)
    size, edge = (8, 1.8) if len(labelled) <= _FEW_POINTS else (4, 0.8)
    largest = 0.0
    for name, colour in colours.items():
        areas = sequence.areas(sequence.predicted(name))
        drawn = sequence.areas(sequence.expert(name))[labelled]
        largest = max(largest, areas.max(), drawn.max())
        marker = "o" if sequence.n_frames <= _FEW_FRAMES else ""
        axes.plot(times, areas, color=_rgb(colour), linewidth=1.8, marker=marker, markersize=3)
        (points,) = axes.plot(times[labelled], drawn, "D", color=_rgb(EXPERT_COLOUR), markersize=size)
        points.set(markeredgecolor=_rgb(colour), markeredgewidth=edge)
    for frame in sequence.shown_frames(_PANELS):
        axes.axvline(times[frame], color=_LINE, linewidth=0.8, linestyle=(0, (4, 4)), zorder=0)
    for phase, name in ((sequence.sequence.ed, "ED"), (sequence.sequence.es, "ES")):
        if phase is not None:
            axes.text(times[phase], 1.01, name, transform=axes.get_xaxis_transform(), ha="center", color=_FAINT)
    axes.set_ylim(0, 1.1 * largest or 1.0)
    axes.margins(x=0.03)
    axes.set_facecolor(_PAPER)
    axes.set_xlabel("frame" if interval_s is None else "time [ms]", color=_FAINT)
    axes.set_ylabel(f"area [{sequence.area_unit}]", color=_FAINT)
    axes.tick_params(colors=_FAINT)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_LINE)


def _write(figure: Figure, left: float, middle: float, text: str, **style: Any) -> None:  # noqa: ANN401 - matplotlib's own
    """Write a line of text at pixels from the left and, to its middle, from the top."""
    width, height = figure.get_size_inches() * _DPI
    # Names of datasets and cases are no formulas.
    figure.text(left / width, 1 - middle / height, text, va="center", parse_math=False, **style)


def _legend(figure: Figure, handles: list[Line2D], middle: float, columns: int) -> None:
    """Draw a legend at the right margin, its middle at pixels from the top."""
    width, height = figure.get_size_inches() * _DPI
    anchor = (1 - _MARGIN_PX / width, 1 - middle / height)
    figure.legend(
        handles=handles,
        loc="center right",
        bbox_to_anchor=anchor,
        ncols=columns,
        frameon=False,
        labelcolor=_TEXT,
        fontsize=10.5,
        borderaxespad=0,
        borderpad=0,
    )


def _points(pixels: float) -> float:
    return pixels * 72 / _DPI


def _rgb(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = colour
    return red / 255, green / 255, blue / 255
