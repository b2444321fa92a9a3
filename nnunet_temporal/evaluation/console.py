"""What a terminal shows of an evaluation: one compact table, the volumes, and where to look first."""

import math
from collections.abc import Sequence
from pathlib import Path

from nnunet_temporal.evaluation.aggregate import Summary
from nnunet_temporal.evaluation.frame_rows import Row
from nnunet_temporal.evaluation.measure import Measurements

_WORST = 5
# Title, table, and the beginning of the column's name: units differ from dataset to dataset.
_COLUMNS = (
    ("Dice", "frames", "dice"),
    ("IoU", "frames", "iou"),
    ("HD", "frames", "hd_"),
    ("HD95", "frames", "hd95_"),
    ("ASSD", "frames", "assd_"),
    ("NSD", "frames", "nsd_"),
    ("Dice ED", "studies", "dice_ed"),
    ("Dice ES", "studies", "dice_es"),
    ("flicker %", "sequences", "pixel_flicker_predicted"),
    ("roughness %", "sequences", "area_roughness_predicted"),
)
# Table and its metrics that are shown of a comparison.
_COMPARED = {
    "frames": ("dice", "hd95_mm", "hd95_px", "assd_mm", "assd_px"),
    "sequences": (),
    "studies": (
        "dice_ed",
        "dice_es",
        "edv_absolute_difference_ml",
        "esv_absolute_difference_ml",
        "ef_absolute_difference_percent",
        "pixel_flicker_predicted_percent",
        "area_roughness_predicted_percent",
    ),
}


def result_lines(
    measured: Measurements, metrics: Summary, volumes: dict[str, dict[str, dict[str, float]]]
) -> list[str]:
    """Return the table of all structures, the agreement of volumes and the worst sequences, line by line."""
    cases = len({row["case"] for row in measured.sequences})
    lines = [f"{cases} sequences, {len({row['study'] for row in measured.studies})} studies; means [95 % interval]"]
    chosen = [(title, table, _find_column(metrics[table], start)) for title, table, start in _COLUMNS]
    shown = [(f"{title}{_unit_of(column)}", table, column) for title, table, column in chosen if column]
    cells = [["structure", *(title for title, _, _ in shown), "missing"]]
    for label in metrics["frames"]:
        row = [label]
        for _, table, column in shown:
            row.append(_cell(metrics[table].get(label, {}).get(column), with_interval=column == "dice"))
        cells.append([*row, str(_n_missing(metrics, label))])
    lines += _aligned(cells)
    for label, quantities in volumes.items():
        for name, figures in quantities.items():
            left_out = f", {figures['left_out']} left out" if figures["left_out"] else ""
            lines.append(
                f"{label} {name}: bias {figures['bias']:.2f}, SD {figures['sd_of_differences']:.2f}, MAE "
                f"{figures['mean_absolute_error']:.2f}, r {figures['pearson_r']:.3f} ({figures['count']:.0f} "
                f"studies{left_out})"
            )
    scores = [(float(row["dice"]), f"{row['case']} {row['label']}") for row in measured.sequences if "dice" in row]
    scores = [(score, name) for score, name in scores if score < 1]  # NaN, too, is not below 1
    named = [f"{name} {score:.3f}" for score, name in sorted(scores)[:_WORST]]
    return [*lines, f"Lowest Dice: {', '.join(named)}"] if named else lines


def comparison_lines(comparison: Sequence[Row], first: Path, second: Path) -> list[str]:
    """Return the main rows of a paired comparison, line by line."""
    cells = [["table", "structure", "metric", "first", "second", "difference", "95 % interval", "p"]]
    for row in comparison:
        if row["metric"] not in _COMPARED[str(row["table"])]:
            continue
        numbers = [f"{float(row[column]):.4g}" for column in ("first", "second", "difference")]
        interval = f"[{float(row['lower']):.3g}, {float(row['upper']):.3g}]"
        cells.append(
            [str(row["table"]), str(row["label"]), str(row["metric"]), *numbers, interval, f"{row['p_value']:.3g}"]
        )
    return [f"First: {first}; second: {second}; difference: first minus second", *_aligned(cells)]


def _find_column(table: dict[str, dict[str, dict[str, float]]], start: str) -> str:
    """Return the first column of any structure that is named or begins so; empty when there is none."""
    names = (name for columns in table.values() for name in columns)
    return next((name for name in names if name == start or (start not in table and name.startswith(start))), "")


def _unit_of(column: str) -> str:
    """Return the unit of a distance, for the title."""
    unit = column.rpartition("_")[2]
    return f" {unit}" if unit in ("mm", "px") else ""


def _cell(figures: dict[str, float] | None, with_interval: bool) -> str:
    """Return a mean, with its interval where there is room."""
    if figures is None or math.isnan(figures["mean"]):
        return "-"
    with_interval = with_interval and not math.isnan(figures["lower"])
    interval = f" [{figures['lower']:.3f}, {figures['upper']:.3f}]" if with_interval else ""
    return f"{figures['mean']:.3f}{interval}"


def _n_missing(metrics: Summary, label: str) -> int:
    """Return in how many frames the structure is missing in the prediction or in the reference."""
    frames = metrics["frames"][label]
    return int(sum(figures["missing"] for name, figures in frames.items() if name in ("hd_mm", "hd_px")))


def _aligned(cells: list[list[str]]) -> list[str]:
    """Return rows of cells as lines with columns of equal width."""
    widths = [max(len(row[place]) for row in cells) for place in range(len(cells[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
