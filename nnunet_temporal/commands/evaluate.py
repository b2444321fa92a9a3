"""``nnunet_temporal evaluate``: how good predicted masks are, per frame, sequence and study."""

import argparse
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nnunet_temporal import __version__
from nnunet_temporal.datasets.problems import listed, raise_problems
from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.aggregate import TABLES, Summary, agreement, compare, summarise
from nnunet_temporal.evaluation.console import comparison_lines, result_lines
from nnunet_temporal.evaluation.label_scheme import ROLES, LabelScheme, read_label_scheme
from nnunet_temporal.evaluation.measure import Measurements, check_studies, measure_studies
from nnunet_temporal.evaluation.options import COMPATIBILITY_MODES, Options
from nnunet_temporal.evaluation.pairs import Pairing, pair_studies
from nnunet_temporal.evaluation.stack import APICAL_VIEWS
from nnunet_temporal.evaluation.write import SUMMARY_NAME, check_output, write_summary, write_table
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest

HELP = "Compare predicted masks with reference masks: overlap, distances, volumes, flicker, with intervals."

_NAMED_AT_MOST = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    parser.add_argument("-ref", type=Path, required=True, metavar="DIR", help="reference masks (labelsTs, truth, ...)")
    parser.add_argument("-pred", type=Path, required=True, metavar="DIR", help="predicted masks of the same names")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="where to write (default: the -pred folder)")
    parser.add_argument("-djfile", type=Path, metavar="FILE", help="dataset.json (default: beside or above -ref)")
    parser.add_argument("-manifest", type=Path, metavar="FILE", help=f"{MANIFEST_NAME} (default: beside or above -ref)")
    add_role_argument(parser)
    add_view_argument(parser)
    parser.add_argument(
        "--nsd-tolerance", type=float, default=2.0, metavar="MM", help="of the surface Dice (default: %(default)s)"
    )
    parser.add_argument(
        "--compat", nargs="+", choices=COMPATIBILITY_MODES, default=[], help="also compute figures as other programs do"
    )
    parser.add_argument("--compare", type=Path, metavar="DIR", help="other predictions of the same cases, paired")
    parser.add_argument(
        "--allow-missing", action="store_true", help="leave out studies with missing predictions instead of stopping"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap (default: %(default)s)")
    parser.add_argument("-np", type=int, default=2, metavar="N", help="processes (default: %(default)s)")


def add_role_argument(parser: argparse.ArgumentParser) -> None:
    """Add --roles, which says what labels stand for."""
    parser.add_argument(
        "--roles", type=_role, nargs="+", default=[], metavar="ROLE=VALUE", help="labels whose names say nothing: LV=1"
    )


def add_view_argument(parser: argparse.ArgumentParser) -> None:
    """Add --view, which says what the movies show."""
    text = "view of movies of one slice, where the manifest does not say, for an ejection fraction: 2CH or 4CH"
    parser.add_argument("--view", type=_apical_view, metavar="NAME", help=text)


def run(arguments: argparse.Namespace) -> int:
    """Check everything, measure everything, then write and print."""
    output = arguments.output or arguments.pred
    _check_arguments(arguments, output)
    options = Options(arguments.nsd_tolerance, tuple(sorted(set(arguments.compat))), arguments.seed)
    labels = read_label_scheme(_find_dataset_json(arguments), dict(arguments.roles))
    manifest = _find_manifest(arguments)
    pairings = [
        pair_studies(arguments.ref, folder, manifest, arguments.view)
        for folder in (arguments.pred, arguments.compare)
        if folder is not None
    ]
    problems = [] if arguments.allow_missing else _missing(pairings)
    _keep_common_studies(pairings)
    for pairing in pairings:
        problems += check_studies(pairing.studies, labels, arguments.np)
    raise_problems(list(dict.fromkeys(problems)))
    if not pairings[0].studies:
        raise InputError(f"-pred {arguments.pred}: found no study whose predictions are complete")
    results = [measure_studies(pairing.studies, labels, options, arguments.np) for pairing in pairings]
    _write(arguments, labels, options, pairings, results, manifest is None)
    return 0


def _role(text: str) -> tuple[str, int]:
    """Read ``LV=1``."""
    role, _, value = text.partition("=")
    if role.upper() not in ROLES or not value.isdecimal():
        raise argparse.ArgumentTypeError(f"found {text!r}, expected ROLE=VALUE with a role of {', '.join(ROLES)}")
    return role.upper(), int(value)


def _apical_view(text: str) -> str:
    """Read ``4CH``, or another name of that view."""
    if text.upper() not in APICAL_VIEWS:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected one of {', '.join(APICAL_VIEWS)}")
    return APICAL_VIEWS[text.upper()]


def _check_arguments(arguments: argparse.Namespace, output: Path) -> None:
    for name, folder in (("-ref", arguments.ref), ("-pred", arguments.pred), ("--compare", arguments.compare)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{name} {folder}: the folder does not exist")
    if not 0 <= arguments.nsd_tolerance < float("inf"):
        raise InputError(f"--nsd-tolerance: found {arguments.nsd_tolerance}, expected a number of mm, 0 or more")
    if arguments.seed < 0 or arguments.np < 1:
        raise InputError(f"--seed {arguments.seed}, -np {arguments.np}: expected a seed of 0 or more and a process")
    check_output(output)


def in_or_above(folders: Iterable[Path], name: str) -> Path | None:
    """Return the first file of a name that lies in one of the folders or above it; None where there is none."""
    places = [place / name for folder in folders for place in (folder, folder.resolve().parent)]
    return next((place for place in places if place.is_file()), None)


def _find_dataset_json(arguments: argparse.Namespace) -> Path:
    """Return the dataset.json that was named or lies beside the reference."""
    path = arguments.djfile or in_or_above([arguments.ref], "dataset.json")
    if path is None:
        raise InputError(f"dataset.json: not found in {arguments.ref} or its parent; name it with -djfile")
    return path


def _find_manifest(arguments: argparse.Namespace) -> Manifest | None:
    """Return the manifest that was named or lies beside the reference; None when there is none to find."""
    path = arguments.manifest or in_or_above([arguments.ref], MANIFEST_NAME)
    return None if path is None else Manifest.read(path)


def _missing(pairings: list[Pairing]) -> list[str]:
    """Say in one line per folder which predictions are missing, and what is there under other names."""
    problems = []
    for pairing in pairings:
        if not pairing.missing:
            continue
        missing = listed([path.name for path in pairing.missing], _NAMED_AT_MOST)
        others = f" Found masks of other names: {listed(pairing.extra, _NAMED_AT_MOST)} (see split --drop-suffix)."
        problems.append(
            f"{pairing.missing[0].parent}: found no prediction {missing}; predict what is missing under the names of "
            f"the references, or leave these studies out with --allow-missing.{others if pairing.extra else ''}"
        )
    return problems


def _keep_common_studies(pairings: list[Pairing]) -> None:
    """Leave out of every pairing what one of them lacks, so that all are measured on the same studies."""
    left_out = {study for pairing in pairings for study in pairing.left_out}
    for pairing in pairings:
        pairing.left_out[:] = sorted(left_out)
        pairing.studies[:] = [study for study in pairing.studies if study.name not in left_out]


def _write(
    arguments: argparse.Namespace,
    labels: LabelScheme,
    options: Options,
    pairings: list[Pairing],
    results: list[Measurements],
    manifest_derived: bool,
) -> None:
    """Compute the summary, then write all files and print the table."""
    output, measured = arguments.output or arguments.pred, results[0]
    metrics, volumes = summarise(measured, options), agreement(measured)
    summary = _summary(arguments, labels, options, pairings[0], measured, metrics)
    summary |= {"manifest_derived_from_files": manifest_derived, "agreement": volumes}
    comparison = compare(measured, results[1], options) if len(results) == 2 else None
    output.mkdir(parents=True, exist_ok=True)
    for table in TABLES:
        write_table(getattr(measured, table), output / f"{table}.csv")
    if comparison is not None:
        write_table(comparison, output / "comparison.csv")
        summary |= {"compared_with": str(arguments.compare), "comparison": comparison}
    write_summary(summary, output / SUMMARY_NAME)
    print("\n".join(result_lines(measured, metrics, volumes)))
    if comparison is not None:
        print("\n".join(comparison_lines(comparison, arguments.pred, arguments.compare)))
    if pairings[0].left_out:
        print(f"Left out, predictions missing: {', '.join(pairings[0].left_out)}")
    if pairings[0].extra:
        print(f"Not scored, no reference: {len(pairings[0].extra)} predicted files")
    print(f"Written: {output}")


def _summary(
    arguments: argparse.Namespace,
    labels: LabelScheme,
    options: Options,
    pairing: Pairing,
    measured: Measurements,
    metrics: Summary,
) -> dict[str, Any]:
    return {
        "version": __version__,
        "reference": str(arguments.ref),
        "prediction": str(arguments.pred),
        "options": asdict(options),
        "labels": labels.values,
        "roles": labels.roles,
        "studies": len(pairing.studies),
        "cases": len({row["case"] for row in measured.sequences}),
        "left_out_studies": pairing.left_out,
        "missing_predictions": [path.name for path in pairing.missing],
        "predictions_without_reference": pairing.extra,
        "pooled_dice": {label: counts.dice() for label, counts in measured.counts.items()},
        "volume_methods": _volume_methods(measured),
        "metrics": metrics,
    }


def _volume_methods(measured: Measurements) -> dict[str, int]:
    """Return in how many studies volumes were computed by which method, or by none."""
    methods: dict[str, str] = {}
    for row in measured.studies:
        study, method = str(row["study"]), str(row["volume_method"])
        methods[study] = methods.get(study) or method
    return dict(Counter(method or "none" for method in methods.values()))
