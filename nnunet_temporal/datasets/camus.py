"""CAMUS, NIfTI release: apical echo in two views, every frame from end diastole to end systole with a mask.

Each patient has a folder ``patientXXXX`` in ``database_nifti``, with ``Info_<view>.cfg`` (frames counted from 1), the
movie ``patientXXXX_<view>_half_sequence`` and its masks ``..._half_sequence_gt``, as ``.nii.gz`` or ``.nii``, for the
views 2CH and 4CH. ``database_split`` holds the official split. Masks are manual at ED and ES; those between are
semi-automatic. Data and citation: :mod:`nnunet_temporal.datasets.camus_layout`.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.camus_layout import (
    ViewFacts,
    blank_empty_frames,
    check_frames,
    check_labels,
    check_lists,
    forward,
    patient_folders,
    read_facts,
    read_patient_list,
)
from nnunet_temporal.datasets.image_io import NIFTI_ENDINGS, check_same_grid, read_header, read_image, read_labels
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource
from nnunet_temporal.errors import InputError

LABELS = {"background": 0, "LV": 1, "MYO": 2, "LA": 3, IGNORE: 4}
CHANNEL = "US"
NAME = "CAMUS"
VIEWS = ("2CH", "4CH")

_PLACES = (".", "database_nifti")
_SPLIT_PLACES = (".", "database_split", "../database_split")
_SUBSETS = ("training", "validation", "testing")


def find_studies(folder: Path) -> list[StudySource]:
    """Find the patients of CAMUS; only headers and facts are read.

    Sequences that are stored from ES to ED are put in the order of time. The time between frames comes from FrameRate.

    Args:
        folder: ``CAMUS_public``, or ``database_nifti`` in it.

    Returns:
        Two sources per patient, one per view.

    Raises:
        InputError: There is no patient, or files of one are missing, unreadable or do not fit; all bad ones are listed.
    """
    patients = patient_folders(folder, _PLACES)
    return apply_to_all(
        [(patient, view) for patient in patients for view in VIEWS], lambda place: _source_of(place[0], place[1])
    )


def held_out_studies(folder: Path) -> list[str]:
    """Return the official test patients; none where this copy has no lists of patients.

    Raises:
        InputError: A list is missing while others are there, or is empty.
    """
    lists = _split_lists(folder)
    return sorted(lists[_SUBSETS[2]][1] & _patients(folder)) if lists else []


def official_folds(folder: Path) -> list[tuple[set[str], set[str]]]:
    """Return the patients for training and validation of the one official split.

    Raises:
        InputError: A list is missing or empty, two lists name one patient, or a patient in a list is not there.
    """
    lists = _split_lists(folder)
    if not lists:
        raise InputError(
            f"{folder}: found no database_split/subgroup_training.txt; restore it from the download, or pass --folds "
            "study to split by patient"
        )
    check_lists(dict(lists.values()), _patients(folder))
    training, validation, _ = (names for _, names in lists.values())
    return [(training, validation)]


def _patients(folder: Path) -> set[str]:
    return {patient.name for patient in patient_folders(folder, _PLACES)}


def _split_lists(folder: Path) -> dict[str, tuple[Path, set[str]]]:
    """Return {subset: (its file, its patients)}, nothing where there is no such file."""
    for place in _SPLIT_PLACES:
        files = {subset: (folder.resolve() / place).resolve() / f"subgroup_{subset}.txt" for subset in _SUBSETS}
        if any(path.is_file() for path in files.values()):
            return {subset: (path, read_patient_list(path)) for subset, path in files.items()}
    return {}


def _source_of(patient: Path, view: str) -> StudySource:
    movie = read_header(_nifti(patient, f"{patient.name}_{view}_half_sequence"))
    masks = read_header(_nifti(patient, f"{patient.name}_{view}_half_sequence_gt"))
    if len(movie.shape) != 3:
        raise InputError(f"{movie.path}: found {len(movie.shape)} axes, expected 3 (x, y, t)")
    check_same_grid(masks, movie)
    info = patient / f"Info_{view}.cfg"
    facts = read_facts(info)
    check_frames(facts, info, movie.shape[0], movie.path)
    ed, es = facts.in_time(movie.shape[0])
    return StudySource(
        study=patient.name,
        load_image=partial(_load_image, movie.path, facts),
        load_labels=partial(_load_labels, masks.path, facts),
        spacing=replace(movie.spacing, frame_s=facts.frame_s),
        view=view,
        ed=ed,
        es=es,
        source=str(movie.path.resolve()),
    )


def _nifti(patient: Path, name: str) -> Path:
    for ending in NIFTI_ENDINGS:
        if (patient / f"{name}{ending}").is_file():
            return patient / f"{name}{ending}"
    raise InputError(f"{patient}: found no {name}{NIFTI_ENDINGS[0]}; restore it from the download")


def _load_image(path: Path, facts: ViewFacts) -> np.ndarray:
    return forward(read_image(path), facts)


def _load_labels(path: Path, facts: ViewFacts) -> np.ndarray:
    labels = read_labels(path)
    check_labels(labels, path)
    return blank_empty_frames(forward(labels, facts), LABELS[IGNORE])
