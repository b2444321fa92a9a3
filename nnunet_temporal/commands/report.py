"""``nnunet_temporal report``: a page to look at, of everything that was predicted."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from nnunet_temporal.atomic import atomic_path
from nnunet_temporal.commands.evaluate import add_role_argument, add_view_argument, in_or_above
from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import LabelScheme, read_label_scheme
from nnunet_temporal.report.cohort import Cohort, find_cohort
from nnunet_temporal.report.curves import measure_curves
from nnunet_temporal.report.overlay_movie import MOVIE_FORMATS, write_overlay_movie
from nnunet_temporal.report.page import render_page
from nnunet_temporal.report.page_content import StudyContent, describe_study
from nnunet_temporal.report.provenance import find_provenance
from nnunet_temporal.report.segmented_study import SegmentedStudy, read_study
from nnunet_temporal.report.table import write_figures
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest

HELP = "Make one self-contained page of predicted masks: movies, curves, figures, and what to look at twice."

_FILMS_BYTES = 11_000_000
"""What the films of all studies may take: with all else, ten studies stay below 15 MB."""
_LARGEST_FILM_BYTES = 1_100_000


@dataclass(frozen=True)
class ReportRequest:
    """What a report is made of; see the arguments of the command."""

    images: Path
    masks: Path
    truth: Path | None
    page: Path
    dataset_json: Path | None = None
    manifest: Path | None = None
    roles: tuple[tuple[str, int], ...] = ()
    title: str | None = None
    movies: Path | None = None
    movie_format: str = MOVIE_FORMATS[0]
    view: str | None = None
    table: Path | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the verb."""
    add = parser.add_argument
    add("-i", type=Path, required=True, metavar="IMAGES", help="what was predicted: a folder of movies or sequences")
    add("-p", type=Path, required=True, metavar="MASKS", help="folder of the predicted masks")
    add("-ref", type=Path, metavar="TRUTH", help="folder of an expert's masks of the same names, where there are some")
    add("-o", type=Path, required=True, metavar="PAGE", help="the page to write, such as report.html")
    add("--table", type=Path, metavar="CSV", help="also write the figures of all studies as a table, such as ef.csv")
    add("--title", metavar="TEXT", help="title of the page")
    add("--movies", type=Path, metavar="DIR", help="also write an overlay movie of every study into this folder")
    add("--movie-format", choices=MOVIE_FORMATS, default=MOVIE_FORMATS[0], help="default: %(default)s; mp4 needs PyAV")
    add("-djfile", type=Path, metavar="FILE", help="dataset.json (default: in or above MASKS, TRUTH or IMAGES)")
    add("-manifest", type=Path, metavar="FILE", help=f"{MANIFEST_NAME} (default: in or above MASKS, TRUTH or IMAGES)")
    add_role_argument(parser)
    add_view_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make the page."""
    make_report(
        ReportRequest(
            arguments.i, arguments.p, arguments.ref, arguments.o, arguments.djfile, arguments.manifest,
            tuple(arguments.roles), arguments.title, arguments.movies, arguments.movie_format, arguments.view,
            arguments.table,
        )
    )  # fmt: skip
    return 0


def make_report(request: ReportRequest) -> None:
    """Read everything, write the page and the movies, and print where they are.

    Raises:
        InputError: Files are missing, unreadable or do not fit; nothing is written then but finished movies.
    """
    _check(request)
    labels = read_label_scheme(_find(request, "dataset.json", request.dataset_json, "-djfile"), dict(request.roles))
    manifest = request.manifest or _look_for(request, MANIFEST_NAME)
    known = None if manifest is None else Manifest.read(manifest)
    cohort = find_cohort(request.images, request.masks, request.truth, known, request.view)
    budget = min(_LARGEST_FILM_BYTES, _FILMS_BYTES // len(cohort.studies))
    studies = []
    for sources in tqdm(cohort.studies, desc="Looking at studies", unit="study"):
        study = read_study(sources, labels)
        studies.append(describe_study(study, sources, labels, budget))
        if request.movies is not None:
            _write_movies(study, labels, request.movies, request.movie_format)
    _write_page(request, labels, cohort, studies)


def _write_page(request: ReportRequest, labels: LabelScheme, cohort: Cohort, studies: list[StudyContent]) -> None:
    title = request.title or f"{len(studies)} segmented heart stud{'ies' if len(studies) > 1 else 'y'}"
    # Names of files may hold bytes that are no text.
    page = render_page(title, studies, labels, find_provenance(cohort, request.masks)).encode("utf-8", "replace")
    request.page.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(request.page) as temporary:
        temporary.write_bytes(page)
    flagged = sum(bool(study.flags) for study in studies)
    print(f"{len(studies)} studies, {flagged} of them with flags: {request.page} ({len(page) / 1e6:.1f} MB)")
    if request.table is not None:
        write_figures(studies, request.table)
        print(f"Figures as a table: {request.table}")
    if request.movies is not None:
        print(f"Movies: {request.movies}")
    if cohort.not_predicted:
        print(f"Not in the report, no masks: {len(cohort.not_predicted)} movies or sequences, named on the page")


def _write_movies(study: SegmentedStudy, labels: LabelScheme, folder: Path, movie_format: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for stack in study.stacks:
        curves = measure_curves(stack, labels)
        curve = next((curve for curve in curves if curve.structure == labels.roles.get("LV")), curves[0])
        write_overlay_movie(stack, curve, labels, folder / f"{stack.name}.{movie_format}")


def check_outputs(page: Path, table: Path | None, page_argument: str) -> None:
    """Refuse names under which page and table cannot be written.

    Args:
        page: The page.
        table: The table; None without one.
        page_argument: The argument that names the page.

    Raises:
        InputError: A name is that of a folder or lies in a file, or both are the same.
    """
    for argument, path, what in (
        (page_argument, page, "page such as report.html"),
        ("--table", table, "table such as ef.csv"),
    ):
        if path is None:
            continue
        if path.is_dir():
            raise InputError(f"{argument} {path}: found a folder, expected the name of a {what}")
        _check_folder(f"{argument} {path}", path.parent)
    if table is not None and table.resolve() == page.resolve():
        raise InputError(f"--table {table}: found the same name as that of the page; give the table another one")


def _check_folder(given: str, folder: Path) -> None:
    """Refuse a folder that cannot be made because it is a file or lies in one; ``given`` is what the user wrote."""
    folder = folder.absolute()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not existing.is_dir():
        raise InputError(f"{given}: found the file {existing}, expected a folder; choose another place")


def _check(request: ReportRequest) -> None:
    check_outputs(request.page, request.table, "-o")
    if request.movies is not None:
        _check_folder(f"--movies {request.movies}", request.movies)
    for name, folder in (("-p", request.masks), ("-ref", request.truth)):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{name} {folder}: the folder does not exist")


def _find(request: ReportRequest, name: str, given: Path | None, argument: str) -> Path:
    path = given or _look_for(request, name)
    if path is None:
        raise InputError(f"{name}: found neither in nor above {request.masks}; name it with {argument}")
    return path


def _look_for(request: ReportRequest, name: str) -> Path | None:
    """Return a file of a name from the folders of the report; None where there is none."""
    folders = [folder for folder in (request.masks, request.truth, request.images) if folder is not None]
    return in_or_above(folders, name)
