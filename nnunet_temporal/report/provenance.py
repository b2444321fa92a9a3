"""Where a report comes from: programs, model, data."""

import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nnunet_temporal.atomic import read_json_object
from nnunet_temporal.datasets.problems import listed
from nnunet_temporal.hashing import hash_files
from nnunet_temporal.inference.prediction_record import read_record
from nnunet_temporal.report.cohort import Cohort

_PROGRAMS = ("nnunet_temporal", "nnunetv2", "torch", "numpy")
_NAMED_AT_MOST = 20
_NOT_RECORDED = "not recorded beside the masks ('nnunet_temporal predict' records it, nnUNetv2_predict does not)"


def find_provenance(cohort: Cohort, masks: Path) -> list[tuple[str, str]]:
    """Collect what tells where a report comes from; all files are read, to be hashed.

    Args:
        cohort: The files that the report is made of.
        masks: Folder of the predicted masks.

    Returns:
        Name and value of each fact.

    Raises:
        InputError: A record beside the masks cannot be read.
    """
    stacks = [stack for study in cohort.studies for stack in study.stacks]
    movies = {file for stack in stacks for job in stack.images for file in job.files}
    predicted = {file for stack in stacks for file in stack.masks}
    drawn = {file for stack in stacks for file in stack.truth if file}
    plans = masks / "plans.json"
    facts = [
        ("Made", datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")),
        (
            "Programs",
            ", ".join([f"Python {platform.python_version()}", *(f"{name} {version(name)}" for name in _PROGRAMS)]),
        ),
        *_model(read_record(masks), read_json_object(plans, "nnU-Net writes it.") if plans.is_file() else {}),
        ("Movies", f"{len(movies)} files, SHA-256 {hash_files(movies)}"),
        ("Masks", f"{len(predicted)} files, SHA-256 {hash_files(predicted)}"),
    ]
    if drawn:
        facts.append(("Expert's masks", f"{len(drawn)} files, SHA-256 {hash_files(drawn)}"))
    if cohort.not_predicted:
        facts.append(("Movies without masks, not in this report", listed(cohort.not_predicted, _NAMED_AT_MOST)))
    return facts


def _model(record: dict[str, Any], plans: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of the model."""
    dataset = str(record.get("dataset") or plans.get("dataset_name") or _NOT_RECORDED)
    facts = [("Trained on", dataset)]
    if not record:
        known = f"plans {plans['plans_name']}; the rest is " if "plans_name" in plans else ""
        return [*facts, ("Model", known + _NOT_RECORDED)]
    parts = [str(record[name]) for name in ("trainer", "plans", "configuration") if record.get(name)]
    folds = ", ".join(map(str, record.get("folds", [])))
    # Chosen models are recorded by their names alone.
    checkpoint = f", {record['checkpoint']}" if record.get("checkpoint") else ""
    facts.append(("Model", f"{' / '.join(parts)}, folds {folds}{checkpoint}"))
    others = {name: value for name, value in record.get("options", {}).items() if value not in (None, False)}
    return [*facts, ("Predicted with", ", ".join(f"{name} {value}" for name, value in others.items()) or "defaults")]
