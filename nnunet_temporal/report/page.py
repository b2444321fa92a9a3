"""The report of a cohort: one page that needs nothing beside itself."""

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from nnunet_temporal import __version__
from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.report.charts import Pairs, bland_altman_chart, scatter_chart
from nnunet_temporal.report.colours import LABEL_COLOURS, colour_places, painting_order
from nnunet_temporal.report.page_content import StudyContent, number

COLUMNS = ("Study", "EF %", "EF expert", "EDV ml", "ESV ml", "Dice", "Flags")

_TEMPLATES = Path(__file__).parent / "page_files"
_FEWEST_PAIRS = 2
_QUANTITIES = (("EF", "ef_percent", "%"), ("EDV", "edv_ml", "ml"), ("ESV", "esv_ml", "ml"))


def render_page(
    title: str, studies: Sequence[StudyContent], labels: LabelScheme, provenance: Sequence[tuple[str, str]]
) -> str:
    """Lay out the page.

    Args:
        title: Its title.
        studies: What stands on it, at least one study.
        labels: The labels of the dataset.
        provenance: Name and value of what tells where all of it comes from.

    Returns:
        HTML. Names and all other text are escaped; the page may load nothing, by its own policy.
    """
    script, css = ((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.js", "page.css"))
    environment = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, undefined=StrictUndefined)
    template = environment.get_template("page.html.j2")
    return template.render(
        title=title,
        version=__version__,
        policy=_policy(script),
        css=Markup(css),
        script=Markup(script),
        columns=COLUMNS,
        summary=_summary(studies),
        studies=[_safe(study.layout) for study in studies],
        agreement=_agreement(studies),
        provenance=[{"name": name, "value": value} for name, value in provenance],
        labels=_inert(json.dumps(_legend(labels))),
    )


def _policy(script: str) -> str:
    """Return the content security policy: pictures inside the page, our own script, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _inert(data: str) -> Markup:
    """Return JSON that cannot end the element it stands in."""
    return Markup(data.replace("<", "\\u003c").replace("&", "\\u0026"))


def _safe(layout: dict[str, Any]) -> dict[str, Any]:
    """Return a study's layout with what is markup of ours marked as such."""
    stacks = [
        {**stack, "charts": [{**chart, "svg": Markup(chart["svg"])} for chart in stack["charts"]]}
        for stack in layout["stacks"]
    ]
    return {**layout, "stacks": stacks, "film": _inert(layout["film"])}


def _legend(labels: LabelScheme) -> list[dict[str, str | int]]:
    """Return name and colour of each label, in the order of the outlines, and which is how far above the others."""
    order = painting_order(labels)
    return [
        {"name": name, "colour": "#{:02x}{:02x}{:02x}".format(*LABEL_COLOURS[place]), "layer": order.index(name)}
        for name, place in colour_places(labels).items()
    ]


def _summary(studies: Sequence[StudyContent]) -> list[dict[str, str]]:
    """Return the facts of the whole cohort."""
    ef = [study.figures.ef_percent.predicted for study in studies]
    known = np.array([value for value in ef if math.isfinite(value)])
    flagged = sum(bool(study.flags) for study in studies)
    facts = [{"name": "Studies", "value": str(len(studies)), "note": f"{flagged} with flags"}]
    if known.size:
        spread = f"{number(known.min())} to {number(known.max())} %" if known.size > 1 else ""
        facts.append(
            {"name": "Median EF" if known.size > 1 else "EF", "value": f"{number(np.median(known))} %", "note": spread}
        )
    dice = [study.figures.mean_dice for study in studies if math.isfinite(study.figures.mean_dice)]
    if dice:
        facts.append(
            {"name": "Dice against the expert", "value": f"{np.mean(dice):.3f}", "note": f"{len(dice)} studies"}
        )
    pairs = _pairs(studies, *_QUANTITIES[0])
    if len(pairs.names) >= _FEWEST_PAIRS:
        agreement = pairs.agreement
        spread = f"\u00b1 {agreement.sd_of_differences:.1f} points SD, {agreement.count} studies"
        facts.append({"name": "EF against the expert", "value": f"{agreement.bias:+.1f}", "note": spread})
    return facts


def _agreement(studies: Sequence[StudyContent]) -> list[dict[str, Any]]:
    """Return the charts of what an expert measured, too; none for fewer than two studies."""
    charts = []
    for name, attribute, unit in _QUANTITIES:
        pairs = _pairs(studies, name, attribute, unit)
        if len(pairs.names) < _FEWEST_PAIRS:
            continue
        agreement = pairs.agreement
        # A difference of 5 % could be one of 5 % of the fraction.
        unit = "points" if unit == "%" else unit
        words = (
            f"bias {agreement.bias:+.1f} {unit}, limits of agreement {agreement.lower_limit:+.1f} to "
            f"{agreement.upper_limit:+.1f} {unit}, mean error {agreement.mean_absolute_error:.1f} {unit}, "
            f"r {number(agreement.pearson_r, 2)}, {agreement.count} studies"
        )
        charts.append(
            {
                "name": name,
                "words": words,
                "scatter": Markup(scatter_chart(pairs)),
                "bland_altman": Markup(bland_altman_chart(pairs)),
            }
        )
    return charts


def _pairs(studies: Sequence[StudyContent], name: str, attribute: str, unit: str) -> Pairs:
    """Return the studies of which both sides are known."""
    compared = [(place, study.name, getattr(study.figures, attribute)) for place, study in enumerate(studies)]
    both = [entry for entry in compared if math.isfinite(entry[2].predicted) and math.isfinite(entry[2].truth)]
    return Pairs(
        f"{name} [{unit}]",
        [study for _, study, _ in both],
        [place for place, _, _ in both],
        np.array([values.predicted for _, _, values in both]),
        np.array([values.truth for _, _, values in both]),
    )
