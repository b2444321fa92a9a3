"""The volume over the heartbeat as a figure, with the expert's volumes at ED and ES."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.metrics.clinical import ejection_fraction_percent, volume_curve_ml
from nnunet_temporal.report.study_result import StudyResult

_PREDICTION = "#1b7fbd"
_EXPERT = "#e07b00"
_INK = "#2b2f36"
_FAINT = "#7d858f"


def write_volume_curve(result: StudyResult, path: Path) -> None:
    """Write the left-ventricular volume over time, summed over the slices the expert drew at ED and ES.

    Args:
        result: The study; at least one slice must be labelled at ED and at ES.
        path: The picture to write, in the format of its suffix; its folder must exist.

    Raises:
        ValueError: If no slice is labelled at both ED and ES.
    """
    slices = result.compared_slices
    if not slices.any():
        raise ValueError(f"{result.name}: no slice is labelled at both ED (frame {result.ed}) and ES ({result.es})")
    phases = np.array([result.ed, result.es])
    volumes_ml = volume_curve_ml(result.prediction[:, slices], result.spacing_mm)
    expert_ml = volume_curve_ml(result.reference[phases][:, slices], result.spacing_mm)

    # A Figure of its own, not pyplot: no window system is asked for and no global state is left behind.
    figure = Figure(figsize=(8.0, 4.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    _draw_curves(axes, result, volumes_ml, expert_ml)
    _style(axes)
    axes.set_ylabel("left-ventricular volume [ml]", color=_INK)
    axes.set_ylim(0, 1.18 * max(float(volumes_ml.max()), float(expert_ml.max()), 1.0))
    # The empty line below the title makes room for the line of text.
    axes.set_title(f"{result.name}: left-ventricular volume\n", loc="left", fontsize=13, fontweight="bold", color=_INK)
    text = f"sum of the {int(slices.sum())} slices the expert drew"
    axes.text(0, 1.03, text, transform=axes.transAxes, fontsize=9.5, color=_FAINT)
    with atomic_path(path) as temporary:
        figure.savefig(temporary)


def _draw_curves(axes: Axes, result: StudyResult, volumes_ml: np.ndarray, expert_ml: np.ndarray) -> None:
    """Draw the predicted curve (T,), the expert's (ED, ES) volumes, and their axis of time."""
    phases = np.array([result.ed, result.es])
    times = np.arange(result.n_frames, dtype=np.float64)
    if result.frame_interval_s is not None:
        times *= result.frame_interval_s * 1000.0
    label = _legend_label("prediction", volumes_ml[phases])
    axes.plot(times, volumes_ml, color=_PREDICTION, linewidth=2.2, marker="o", markersize=4, label=label)
    axes.fill_between(times, volumes_ml, color=_PREDICTION, alpha=0.08, linewidth=0)
    label = _legend_label("expert", expert_ml)
    axes.plot(times[phases], expert_ml, "D", color=_EXPERT, markersize=9, markeredgecolor="white", label=label)
    for time, name in zip(times[phases], (" ED ", " ES "), strict=True):
        axes.axvline(time, color=_FAINT, linewidth=0.8, linestyle=(0, (4, 4)), zorder=0)
        side = "right" if time > times.mean() else "left"
        place = axes.get_xaxis_transform()
        axes.text(time, 0.97, name, transform=place, va="top", ha=side, color=_FAINT, fontweight="bold")
    axes.set_xlabel("frame" if result.frame_interval_s is None else "time [ms]", color=_INK)
    axes.set_xlim(0, max(1.02 * times[-1], 1e-9))


def _style(axes: Axes) -> None:
    """Leave only the lines and numbers that help reading."""
    axes.grid(axis="y", color="#e6e9ed", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_FAINT)
    axes.tick_params(colors=_INK)
    # A font of fixed width, so that the figures of both lines stand below each other.
    font = {"family": "DejaVu Sans Mono", "size": 9}
    axes.legend(loc="lower left", frameon=True, framealpha=0.9, edgecolor="none", prop=font)


def _legend_label(name: str, ed_es_ml: np.ndarray) -> str:
    """Return ``name`` followed by its EDV, ESV and ejection fraction."""
    edv_ml, esv_ml = (float(value) for value in ed_es_ml)
    ef_percent = ejection_fraction_percent(edv_ml, esv_ml)
    return f"{name:<10s}  EDV {edv_ml:5.1f} ml   ESV {esv_ml:5.1f} ml   EF {ef_percent:4.1f} %"
