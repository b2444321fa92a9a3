"""CAMUS, MetaImage release: apical echo in two views, with masks at end diastole and end systole.

Each patient has a folder ``patientXXXX``, in ``training`` or ``testing`` or without either, with ``Info_<view>.cfg``
(frames counted from 1), the movie ``patientXXXX_<view>_sequence.mhd`` and the masks ``..._ED_gt.mhd`` and
``..._ES_gt.mhd``, for the views 2CH and 4CH. ``listSubGroups`` holds the ten folds of Leclerc et al. Pixels are twice
as wide as high. Data and citation: :mod:`nnunet_temporal.datasets.camus_layout`.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.camus import CHANNEL, LABELS, VIEWS
from nnunet_temporal.datasets.camus_layout import (
    RESTORE,
    ViewFacts,
    check_frames,
    check_lists,
    forward,
    patient_folders,
    read_facts,
    read_mhd_image,
    read_mhd_labels,
    read_patient_list,
)
from nnunet_temporal.datasets.movie_file import StoredMovie, movie_header_of
from nnunet_temporal.datasets.movie_metaimage import read_meta_image
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource
from nnunet_temporal.errors import InputError

NAME = "CAMUS_MHD"

_TRAINING, _TESTING = "training", "testing"
# What a patient for testing is called by, before the name of a patient for training who has the same.
TESTING_PREFIX = f"{_TESTING}_"
_PLACES = (".", _TRAINING, _TESTING)
_FOLD_PLACES = ("listSubGroups", "../listSubGroups")
_FOLD_NAME = re.compile(r"subGroup(\d+)_(?:training|validation|testing)\.txt")

__all__ = ["CHANNEL", "LABELS", "NAME", "find_studies", "held_out_studies", "official_folds"]


def find_studies(folder: Path) -> list[StudySource]:
    """Find the patients of CAMUS; only headers and facts are read.

    All frames but ED and ES are not labelled; a patient for testing without masks is not labelled at all. Sequences
    that are stored backwards are put in the order of time. The headers know no time between frames.

    Args:
        folder: The folder of the patients, or the one of ``training`` and ``testing``.

    Returns:
        Two sources per patient, one per view. A patient for testing who is called like one for training is called
        ``testing_patientXXXX``: the first distribution counted from 1 in both.

    Raises:
        InputError: There is no patient, or files of one are missing, unreadable or do not fit; all bad ones are listed.
    """
    studies = _studies(folder)
    places = [(name, view) for name in studies for view in VIEWS]
    return apply_to_all(places, lambda place: _source_of(place[0], studies[place[0]], place[1]))


def held_out_studies(folder: Path) -> list[str]:
    """Return the patients in the folder ``testing``."""
    return [name for name, patient in _studies(folder).items() if patient.parent.name == _TESTING]


def official_folds(folder: Path) -> list[tuple[set[str], set[str]]]:
    """Return the folds of ``listSubGroups``; none where this copy has no such lists.

    A fold has lists for training, validation and testing. nnU-Net chooses nothing by validation, so each fold is scored
    on its patients for testing and trained on all others; every patient is scored once, as in the paper.

    Raises:
        InputError: A list is missing or empty, two lists of a fold name one patient, or a patient is not there.
    """
    found = [path for place in _FOLD_PLACES for path in (folder.resolve() / place).resolve().glob("subGroup*.txt")]
    # By number: as texts, 10 would come before 2.
    numbers = {int(match[1]): path.parent for path in found if (match := _FOLD_NAME.fullmatch(path.name))}
    folds = []
    for number, place in sorted(numbers.items()):
        files = [place / f"subGroup{number}_{subset}.txt" for subset in ("training", "validation", "testing")]
        lists = {path: read_patient_list(path) for path in files}
        check_lists(lists, set(_studies(folder)))
        training, validation, testing = lists.values()
        folds.append((training | validation, testing))
    return folds


def _studies(folder: Path) -> dict[str, Path]:
    """Return {study: folder of the patient}."""
    patients = patient_folders(folder, _PLACES)
    for_training = {patient.name for patient in patients if patient.parent.name != _TESTING}
    studies = {}
    for patient in patients:
        is_shared = patient.parent.name == _TESTING and patient.name in for_training
        studies[f"{TESTING_PREFIX}{patient.name}" if is_shared else patient.name] = patient
    return studies


def _source_of(study: str, patient: Path, view: str) -> StudySource:
    # Not its path: the file of the pixels, which the header names, must be told apart when it has changed.
    stored = read_meta_image(patient / f"{patient.name}_{view}_sequence.mhd")
    movie = movie_header_of(stored)
    info = patient / f"Info_{view}.cfg"
    facts = read_facts(info)
    check_frames(facts, info, movie.shape[0], movie.path)
    masks = {frame: read_meta_image(path) for frame, path in _masks_of(patient, view, facts).items()}
    for mask in masks.values():
        shape = movie_header_of(mask).shape
        if shape != (1, *movie.shape[1:]):
            found, expected = shape[::-1], (*movie.shape[:0:-1], 1)
            raise InputError(
                f"{mask.path}: found shape {found}, expected {expected} (x, y, t) as in {movie.path}; {RESTORE}"
            )
    ed, es = facts.in_time(movie.shape[0])
    return StudySource(
        study=study,
        load_image=partial(_load_image, stored, facts),
        load_labels=partial(_load_labels, masks, movie.shape, facts) if masks else None,
        spacing=replace(movie.spacing, frame_s=facts.frame_s),
        view=view,
        ed=ed,
        es=es,
        source=str(movie.path.resolve()),
    )


def _masks_of(patient: Path, view: str, facts: ViewFacts) -> dict[int, Path]:
    """Return {frame in the order of the file: mask} of ED and ES; nothing for a patient for testing without masks."""
    masks = {
        frame: patient / f"{patient.name}_{view}_{phase}_gt.mhd"
        for phase, frame in (("ED", facts.ed), ("ES", facts.es))
    }
    missing = [path.name for path in masks.values() if not path.is_file()]
    if len(missing) == len(masks) and patient.parent.name == _TESTING:
        return {}
    if missing:
        raise InputError(f"{patient}: found no {' and no '.join(missing)}; restore the masks from the download")
    return masks


def _load_image(movie: StoredMovie, facts: ViewFacts) -> np.ndarray:
    return forward(read_mhd_image(movie), facts)


def _load_labels(masks: dict[int, StoredMovie], shape: tuple[int, ...], facts: ViewFacts) -> np.ndarray:
    """Return labels (T, Y, X), uint8: the ignore label in all frames but ED and ES."""
    labels = np.full(shape, LABELS[IGNORE], np.uint8)
    for frame, stored in masks.items():
        mask = read_mhd_labels(stored)
        if not mask.any():
            raise InputError(
                f"{stored.path}: found no label at all, expected 1 LV, 2 MYO, 3 LA on background 0; {RESTORE}"
            )
        labels[frame] = mask[0]
    return forward(labels, facts)
