"""Small charts as SVG in the page's colours, readable aloud: curves over time, scatter and Bland-Altman plots."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

import numpy as np

from nnunet_temporal.metrics.agreement import Agreement, measure_agreement

_WIDTH, _HEIGHT = 460, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 14, 38
_TICKS = 4


@dataclass(frozen=True)
class Line:
    """One curve of a chart: its name, its class of colour, its values (T,), and an expert's points by frame."""

    name: str
    colour: str
    values: np.ndarray
    truth: dict[int, float]


@dataclass(frozen=True)
class Axes:
    """From values to places in a chart; what does not fit is widened a little."""

    x: tuple[float, float]
    y: tuple[float, float]

    @classmethod
    def around(cls, x: Sequence[float], y: Sequence[float], *, from_zero: bool = False) -> "Axes":
        """Make axes that hold all values; ``from_zero`` starts y at 0."""
        return cls(_span(x, 0.0), _span([*y, 0.0] if from_zero else y, 0.08))

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return where a point lies in the picture."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return _LEFT + across * (_WIDTH - _LEFT - _RIGHT), _HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM)


def curve_chart(lines: Sequence[Line], unit: str, frame_s: float | None, phases: dict[str, int]) -> str:
    """Draw structures over time, with an expert's points, and ED and ES.

    Args:
        lines: At least one curve; all have T values.
        unit: Of the values.
        frame_s: Time between frames in seconds; None counts frames.
        phases: ED and ES, name to frame; only those that are known.

    Returns:
        An SVG element. Its line of class ``cursor`` is moved by the page to the frame that is shown: ``data-left`` and
        ``data-step`` are the place of frame 0 and the way to the next one.
    """
    n_frames = len(lines[0].values)
    frames = np.arange(n_frames)
    step = 1.0 if frame_s is None else 1000 * frame_s
    every = [value for line in lines for value in (*line.values.tolist(), *line.truth.values())]
    axes = Axes.around([0.0, max(1.0, (n_frames - 1) * step)], every, from_zero=True)
    parts = [_grid(axes, "frame" if frame_s is None else "time [ms]", unit)]
    for name, frame in phases.items():
        x, _ = axes.place(frame * step, 0)
        parts.append(f'<line class="phase" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text class="phase" x="{x + 3:.1f}" y="{_TOP + 9}">{escape(name)}</text>')
    for line in lines:
        parts.append(_polyline(axes, frames * step, line.values, line.colour))
        for frame, value in line.truth.items():
            text = f"expert, {line.name}, frame {frame}: {value:.1f} {unit}"
            parts.append(_dot(axes, (frame * step, value), f"truth {line.colour}", text))
    left, _ = axes.place(0, 0)
    pitch = axes.place(step, 0)[0] - left
    parts.append(
        f'<line class="cursor" data-left="{left:.2f}" data-step="{pitch:.4f}" x1="{left:.1f}" x2="{left:.1f}" '
        f'y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
    )
    spans = (f"{line.name} {_text(_least(line.values))} to {_text(_most(line.values))} {unit}" for line in lines)
    return _svg(parts, f"Size over {n_frames} frames: {'; '.join(spans)}")


@dataclass(frozen=True)
class Pairs:
    """Predicted and expert's values of one quantity, (N,) each with N at least 1.

    Attributes:
        quantity: Its name and unit.
        names: Names of the studies.
        places: Their places among all studies of the page.
        predicted: (N,) float64.
        truth: (N,) float64.
    """

    quantity: str
    names: Sequence[str]
    places: Sequence[int]
    predicted: np.ndarray
    truth: np.ndarray

    @cached_property
    def agreement(self) -> Agreement:
        """How well the two agree."""
        return measure_agreement(self.predicted, self.truth)

    def dots(self, axes: Axes, x: np.ndarray, y: np.ndarray) -> list[str]:
        """Return one dot per study."""
        dots = []
        for index, name in enumerate(self.names):
            text = f"{name}: prediction {self.predicted[index]:.1f}, expert {self.truth[index]:.1f}"
            dots.append(_dot(axes, (x[index], y[index]), "pair", text, self.places[index]))
        return dots


def scatter_chart(pairs: Pairs) -> str:
    """Draw predicted against the expert's values, with the line of identity, as an SVG element."""
    axes = Axes.around([], [*pairs.predicted, *pairs.truth])
    axes = Axes(axes.y, axes.y)
    (x1, y1), (x2, y2) = (axes.place(end, end) for end in axes.x)
    parts = [
        _grid(axes, f"expert, {pairs.quantity}", f"prediction, {pairs.quantity}"),
        f'<line class="identity" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>',
        *pairs.dots(axes, pairs.truth, pairs.predicted),
    ]
    r = _text(pairs.agreement.pearson_r, 2)
    return _svg(parts, f"Predicted against expert's {pairs.quantity} of {len(pairs.names)} studies, r {r}")


def bland_altman_chart(pairs: Pairs) -> str:
    """Draw differences against means, with bias and limits of agreement, as an SVG element."""
    differences, means = pairs.predicted - pairs.truth, (pairs.predicted + pairs.truth) / 2
    lines = _agreement_lines(pairs.agreement)
    axes = Axes(_span(means.tolist(), 0.08), _span([*differences.tolist(), *(value for _, value in lines), 0.0], 0.08))
    parts = [_grid(axes, f"mean of both, {pairs.quantity}", f"prediction \u2212 expert, {pairs.quantity}")]
    for name, value in lines:
        (x1, y), (x2, _) = axes.place(axes.x[0], value), axes.place(axes.x[1], value)
        kind = "bias" if name == "bias" else "limit"
        parts.append(f'<line class="{kind}" x1="{x1:.1f}" x2="{x2:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="note" x="{x2 - 3:.1f}" y="{y - 4:.1f}" text-anchor="end">{name} {value:+.1f}</text>'
        )
    parts += pairs.dots(axes, means, differences)
    bias = _text(pairs.agreement.bias)
    return _svg(parts, f"Bland-Altman plot of {pairs.quantity}, {len(pairs.names)} studies: bias {bias}")


def _agreement_lines(agreement: Agreement) -> list[tuple[str, float]]:
    named = (("bias", agreement.bias), ("-1.96 SD", agreement.lower_limit), ("+1.96 SD", agreement.upper_limit))
    return [(name, value) for name, value in named if math.isfinite(value)]


def _grid(axes: Axes, x_label: str, y_label: str) -> str:
    """Return the lines, numbers and names of the axes."""
    parts = []
    for value in _ticks(axes.y):
        _, y = axes.place(axes.x[0], value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in _ticks(axes.x):
        x, _ = axes.place(value, axes.y[0])
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}" text-anchor="middle">{value:g}</text>'
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_label)}</text>')
    up = (_TOP + _HEIGHT - _BOTTOM) / 2
    turned = f'transform="rotate(-90 12 {up})"'
    parts.append(f'<text class="axis" x="12" y="{up}" text-anchor="middle" {turned}>{escape(y_label)}</text>')
    return "".join(parts)


def _polyline(axes: Axes, x: np.ndarray, y: np.ndarray, colour: str) -> str:
    """Return a curve; it is broken where there is no value."""
    points, pen = [], "M"
    for across, up in zip(x.tolist(), y.tolist(), strict=True):
        if math.isnan(up):
            pen = "M"
            continue
        place = axes.place(across, up)
        points.append(f"{pen}{place[0]:.1f} {place[1]:.1f}")
        pen = "L"
    # A single point would have no length.
    return (
        f'<path class="curve {colour}" d="{" ".join(points)}{"h.01" if len(points) == 1 else ""}"/>' if points else ""
    )


def _dot(axes: Axes, point: tuple[float, float], kind: str, title: str, study: int | None = None) -> str:
    """Return a point with a text that appears on it; nothing where it has no place."""
    if not all(map(math.isfinite, point)):
        return ""
    x, y = axes.place(*point)
    mark = "" if study is None else f' data-study="{study}"'
    return f'<circle class="{kind}"{mark} cx="{x:.1f}" cy="{y:.1f}" r="4"><title>{escape(title)}</title></circle>'


def _svg(parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}" '
        f'preserveAspectRatio="xMidYMid meet">{"".join(parts)}</svg>'
    )


def _span(values: Sequence[float], margin: float) -> tuple[float, float]:
    """Return the range of the finite values, widened by a share of it; never empty."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    low, high = min(finite), max(finite)
    if high == low:
        low, high = low - 1.0, high + 1.0
    return low - margin * (high - low), high + margin * (high - low)


def _ticks(span: tuple[float, float]) -> list[float]:
    """Return about four round numbers inside a range."""
    rough = (span[1] - span[0]) / _TICKS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough)
    first = math.ceil(span[0] / step)
    return [round(tick * step, 10) for tick in range(first, math.floor(span[1] / step) + 1)]


def _least(values: np.ndarray) -> float:
    return float(np.nanmin(values)) if np.isfinite(values).any() else math.nan


def _most(values: np.ndarray) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else math.nan


def _text(value: float, digits: int = 1) -> str:
    return "unknown" if math.isnan(value) else f"{value:.{digits}f}"
