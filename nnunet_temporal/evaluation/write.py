"""The results of an evaluation on disk: three tables and a summary, each whole or absent."""

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nnunet_temporal.atomic import atomic_path, write_json
from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.frame_rows import Row

SUMMARY_NAME = "summary.json"
# Tells our summary from nnU-Net's, which has the same name and which nnU-Net reads again.
_WRITER_KEY, _WRITER = "written_by", "nnunet_temporal evaluate"


def check_output(folder: Path) -> None:
    """Refuse to replace a summary that somebody else wrote.

    Raises:
        InputError: The folder holds a ``summary.json`` that is not ours, such as the one of nnU-Net's validation, from
            which ``nnUNetv2_find_best_configuration`` reads.
    """
    path = folder / SUMMARY_NAME
    if not path.exists():
        return
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict) or content.get(_WRITER_KEY) != _WRITER:
        raise InputError(
            f"{path}: was not written by '{_WRITER}' (nnU-Net's own?) and is kept; choose a folder with -o"
        )


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write rows as CSV, atomically: columns in order of their first appearance, NaN as nothing, six digits.

    Names of files may hold bytes that are no text; they become question marks.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([_text(row.get(column, "")) for column in columns] for row in rows)


def write_summary(summary: dict[str, Any], path: Path) -> None:
    """Write the summary as JSON, atomically; NaN becomes null, which every reader of JSON understands."""
    write_json({_WRITER_KEY: _WRITER, **_plain(summary)}, path)


def _text(value: str | int | float) -> str:
    """Return one cell."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _plain(value: Any) -> Any:  # noqa: ANN401 - any nesting of plain types
    """Return a copy with null for NaN."""
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
