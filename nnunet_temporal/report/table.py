"""The figures of the page as a table, for a spreadsheet: one row per study."""

from collections.abc import Sequence
from pathlib import Path

from nnunet_temporal.evaluation.frame_rows import Row
from nnunet_temporal.evaluation.write import write_table
from nnunet_temporal.report.page_content import StudyContent

_COMPARED = (("ef", "percent"), ("edv", "ml"), ("esv", "ml"), ("area_change", "percent"))


def write_figures(studies: Sequence[StudyContent], path: Path) -> None:
    """Write the figures of all studies as CSV, atomically; what does not exist is empty.

    Columns are named as in ``nnunet_temporal evaluate``; ``reference`` is the expert. Frames count from 0; where
    volumes are of two views, ED and ES are empty, as each view has its own.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table([_row(study) for study in studies], path)


def _row(study: StudyContent) -> Row:
    figures = study.figures
    row: Row = {"study": study.name}
    for name, unit in _COMPARED:
        compared = getattr(figures, f"{name}_{unit}")
        row |= {f"{name}_predicted_{unit}": compared.predicted, f"{name}_reference_{unit}": compared.truth}
    ed, es = figures.phases or ("", "")
    row |= {"ed_frame": ed, "es_frame": es}
    row |= {"volume_method": figures.method, "phase_source": figures.phase_source}
    row |= {f"dice_{label}": value for label, value in figures.dice.items()}
    row["area_roughness_percent"] = figures.roughness_percent
    row["flags"] = "; ".join(dict.fromkeys(flag.title for flag in study.flags))
    return row
