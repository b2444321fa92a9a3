"""TED: patients of CAMUS in the four-chamber view, every frame of one heart beat with a mask.

Each patient has a folder ``patientNNN`` in ``database``, with ``Info_4CH.cfg`` (frames counted from 1), the movie
``patientNNN_4CH_sequence.mhd`` and its masks ``..._sequence_gt.mhd``. Pixels are twice as wide as high. Patients are
numbered anew: one who is in CAMUS as well cannot be told by name. Data and citation: Painchaud et al., IEEE
Transactions on Medical Imaging, 2022, https://doi.org/10.1109/TMI.2022.3173669.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.camus_layout import (
    LEFT_ATRIUM,
    blank_empty_frames,
    check_frames,
    patient_folders,
    read_facts,
    read_mhd_image,
    read_mhd_labels,
)
from nnunet_temporal.datasets.image_io import check_same_grid
from nnunet_temporal.datasets.movie_file import StoredMovie, movie_header_of
from nnunet_temporal.datasets.movie_metaimage import read_meta_image
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource

LABELS = {"background": 0, "LV": 1, "MYO": 2, IGNORE: 3}
CHANNEL = "US"
NAME = "TED"

_VIEW = "4CH"
_FILES = ("sequence", "sequence_gt")
_PLACES = (".", "database")


def find_studies(folder: Path) -> list[StudySource]:
    """Find the patients of TED; only headers and facts are read.

    A left atrium, which few masks have if any, is background.

    Args:
        folder: The folder of the download, or ``database`` in it.

    Returns:
        One study per patient.

    Raises:
        InputError: There is no patient, or files of one are missing, unreadable or do not fit; all bad ones are listed.
    """
    return apply_to_all(patient_folders(folder, _PLACES), _source_of)


def _source_of(patient: Path) -> StudySource:
    # Not their paths: the file of the pixels, which the header names, must be told apart when it has changed.
    stored, masks = (read_meta_image(patient / f"{patient.name}_{_VIEW}_{name}.mhd") for name in _FILES)
    movie = movie_header_of(stored)
    check_same_grid(movie_header_of(masks), movie)
    info = patient / f"Info_{_VIEW}.cfg"
    facts = read_facts(info)
    check_frames(facts, info, movie.shape[0], movie.path)
    return StudySource(
        study=patient.name,
        load_image=partial(read_mhd_image, stored),
        load_labels=partial(_load_labels, masks),
        spacing=replace(movie.spacing, frame_s=facts.frame_s),
        view=_VIEW,
        ed=facts.ed,
        es=facts.es,
        cyclic=True,
        source=str(movie.path.resolve()),
    )


def _load_labels(masks: StoredMovie) -> np.ndarray:
    """Return labels (T, Y, X), uint8."""
    labels = read_mhd_labels(masks)
    return blank_empty_frames(np.where(labels == LEFT_ATRIUM, 0, labels), LABELS[IGNORE])
