"""M&Ms: short-axis cine MRI of six hospitals and four vendors, with masks at end diastole and end systole.

The folder ``OpenDataset`` holds a table of facts (csv; frames count from 0) and, in ``Training/Labeled``,
``Training/Unlabeled``, ``Validation`` and ``Testing``, one folder per patient with the movie ``CODE_sa.nii.gz`` and its
masks ``CODE_sa_gt.nii.gz``, which are zero in every frame that nobody has drawn. Data and citation: Campello et al.,
IEEE Transactions on Medical Imaging, 2021, https://doi.org/10.1109/TMI.2021.3090082.
"""

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from nnunet_temporal.datasets.image_io import NIFTI_ENDINGS, check_same_grid, read_header, read_image, read_labels
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource
from nnunet_temporal.errors import InputError

LABELS = {"background": 0, "LV": 1, "MYO": 2, "RV": 3, IGNORE: 4}
CHANNEL = "cineMRI"
NAME = "MNMs"

_TRAINING, _UNLABELLED = "Training/Labeled", "Training/Unlabeled"
_VALIDATION, _TESTING = "Validation", "Testing"
_PARTS = (_TRAINING, _UNLABELLED, _VALIDATION, _TESTING)
_CODE, _ED, _ES = "External code", "ED", "ES"
_RESTORE = "restore it from the download"

Phases = tuple[int, int] | None


def find_studies(folder: Path) -> list[StudySource]:
    """Find the patients of M&Ms; headers, the table and the masks are read, pixels only when a study is loaded.

    The masks are read because the table does not always name the frames that were drawn: some of its rows say frame 0
    for both phases. Where table and masks agree, the table's frames are ED and ES, and only they are labelled.
    Elsewhere exactly two frames must be drawn, of which the one with the larger LV is ED. Patients in ``Unlabeled``,
    and those whose masks are missing or zero throughout, are unlabelled. The frames cover one heart beat; the time
    between them is not known, whatever the header says.

    Args:
        folder: ``OpenDataset`` or the folder it is in.

    Returns:
        One study per patient.

    Raises:
        InputError: There is no patient or no table, or files of a patient are missing, unreadable or do not fit; all
            bad ones are listed.
    """
    root = _root_of(folder)
    phases = _read_table(root)
    patients = tqdm(_patients(root), desc="Reading masks", unit="patient")
    return apply_to_all(patients, lambda patient: _source_of(patient, phases.get(patient.name)))


def held_out_studies(folder: Path) -> list[str]:
    """Return the patients whom M&Ms keeps for testing: those in ``Testing``."""
    return _codes(_root_of(folder), _TESTING)


def official_folds(folder: Path) -> list[tuple[set[str], set[str]]]:
    """Return the official fold as sets of patients: both parts of ``Training``, then ``Validation``.

    Empty when either is missing.
    """
    root = _root_of(folder)
    training = {*_codes(root, _TRAINING), *_codes(root, _UNLABELLED)}
    validation = set(_codes(root, _VALIDATION))
    return [(training, validation)] if training and validation else []


def _root_of(folder: Path) -> Path:
    for root in (folder, folder / "OpenDataset"):
        if any((root / part).is_dir() for part in _PARTS):
            return root
    raise InputError(
        f"{folder}: found no folder {', '.join(_PARTS)} in it or in its 'OpenDataset'; name the folder 'OpenDataset' "
        "of M&Ms"
    )


def _patients(root: Path) -> list[Path]:
    patients = [path for part in _PARTS for path in sorted((root / part).glob("*")) if path.is_dir()]
    if not patients:
        raise InputError(f"{root}: found no patient in {', '.join(_PARTS)}; {_RESTORE}")
    return patients


def _codes(root: Path, part: str) -> list[str]:
    return sorted(path.name for path in (root / part).glob("*") if path.is_dir())


def _read_table(root: Path) -> dict[str, Phases]:
    """Return ED and ES by patient, None where the table has none; its other columns, the vendor's, are not needed."""
    # Names begin with the date, so of several editions the last one is the newest.
    for path in sorted(root.glob("*.csv"), reverse=True):
        try:
            # A table that was saved again by a spreadsheet begins with a byte-order mark.
            with path.open(encoding="utf-8-sig", newline="") as file:
                table = csv.DictReader(file)
                if {_CODE, _ED, _ES} <= set(table.fieldnames or ()):
                    return {(row[_CODE] or "").strip(): _phases_of(row) for row in table}
        except (OSError, ValueError, csv.Error) as error:
            raise InputError(f"{path}: expected a table in UTF-8, cannot be read: {error}; {_RESTORE}") from error
    raise InputError(f"{root}: found no csv file with columns {_CODE!r}, {_ED!r} and {_ES!r}; {_RESTORE}")


def _phases_of(row: dict[str, str]) -> Phases:
    try:
        ed, es = float(row[_ED]), float(row[_ES])
    except (TypeError, ValueError):
        return None
    return (int(ed), int(es)) if ed != es and ed.is_integer() and es.is_integer() else None


def _source_of(patient: Path, listed: Phases) -> StudySource:
    movie = read_header(_nifti(patient, "sa") or patient / f"{patient.name}_sa.nii.gz")
    if len(movie.shape) != 4:
        raise InputError(f"{movie.path}: found {len(movie.shape)} axes, expected 4 (x, y, z, t); {_RESTORE}")
    if listed and not all(0 <= t < movie.shape[0] for t in listed):
        listed = None
    masks = None if patient.parent.name == Path(_UNLABELLED).name else _nifti(patient, "sa_gt")
    labelled: tuple[int, ...] = ()
    if masks:
        check_same_grid(read_header(masks), movie)
        listed, labelled = _phases_by_masks(masks, listed)
    ed, es = listed or (None, None)
    return StudySource(
        study=patient.name,
        load_image=partial(read_image, movie.path),
        load_labels=partial(_load_labels, masks, labelled) if masks and labelled else None,
        spacing=replace(movie.spacing, frame_s=None),
        ed=ed,
        es=es,
        cyclic=True,
        source=str(movie.path.resolve()),
    )


def _nifti(patient: Path, ending: str) -> Path | None:
    candidates = (patient / f"{patient.name}_{ending}{suffix}" for suffix in NIFTI_ENDINGS)
    return next((path for path in candidates if path.is_file()), None)


def _phases_by_masks(path: Path, listed: Phases) -> tuple[Phases, tuple[int, ...]]:
    """Return ED and ES, and the frames that count as labelled, by the table's phases and the masks of a patient."""
    masks = read_labels(path)
    drawn = set(np.flatnonzero(masks.any(axis=(1, 2, 3))).tolist())
    if listed and (drawn <= set(listed) or set(listed) <= drawn):
        return listed, tuple(sorted(drawn & set(listed)))
    if not drawn:
        return None, ()
    if len(drawn) != 2:
        raise InputError(
            f"{path}: found masks in the frames {sorted(drawn)}, expected them in ED and ES of the table, "
            f"{listed or 'which names none'}, or in exactly two frames, counted from 0; {_RESTORE}"
        )
    es, ed = sorted(drawn, key=lambda t: int(np.count_nonzero(masks[t] == LABELS["LV"])))
    return (ed, es), tuple(sorted(drawn))


def _load_labels(path: Path, labelled: tuple[int, ...]) -> np.ndarray:
    """Return labels (T, Z, Y, X), uint8: the ignore label in all frames but the labelled ones."""
    masks = read_labels(path)
    # A class 4 in the file would pass for "not labelled".
    unknown = [value for value in np.unique(masks).tolist() if value >= LABELS[IGNORE]]
    if unknown:
        raise InputError(
            f"{path}: found label values {unknown}, expected 1 LV, 2 MYO, 3 RV on background 0; {_RESTORE}"
        )
    labels = np.full(masks.shape, LABELS[IGNORE], np.uint8)
    for t in labelled:
        labels[t] = masks[t]
    return labels
