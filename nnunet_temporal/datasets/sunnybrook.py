"""Sunnybrook Cardiac Data (CC0): short-axis cine MRI with expert contours of the left ventricle at ED and ES.

A folder holds per study ``<study>_cine.nii.gz``, ``<study>_gt_lv.nii.gz`` (1 cavity, 2 not labelled) and
``<study>.json`` with ``dt_s`` and the 0-based lists ``ed_t`` and ``es_t``. Data and citation: Radau et al., MIDAS
Journal, http://hdl.handle.net/10380/3070.
"""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

from nnunet_temporal.datasets.image_io import check_same_grid, read_header, read_image, read_labels
from nnunet_temporal.datasets.problems import apply_to_all
from nnunet_temporal.datasets.study_source import IGNORE, StudySource
from nnunet_temporal.errors import InputError

LABELS = {"background": 0, "LV": 1, IGNORE: 2}
CHANNEL = "cineMRI"
NAME = "Sunnybrook"

_IMAGE_ENDING = "_cine.nii.gz"


def find_studies(folder: Path) -> list[StudySource]:
    """Find the Sunnybrook studies of a folder; only headers and facts are read.

    A study without a label file is unlabelled. The 20 phases cover one heart beat.

    Args:
        folder: Folder with the files of all studies.

    Returns:
        One study per ``*_cine.nii.gz``.

    Raises:
        InputError: There is none, or files of a study are missing, unreadable or do not fit; all bad ones are listed.
    """
    images = sorted(folder.glob(f"[!.]*{_IMAGE_ENDING}"))
    if not images:
        raise InputError(f"{folder}: found no *{_IMAGE_ENDING}, expected the NIfTI form of the Sunnybrook data")
    return apply_to_all(images, _source_of)


def _source_of(image: Path) -> StudySource:
    study = image.name.removesuffix(_IMAGE_ENDING)
    labels = image.with_name(f"{study}_gt_lv.nii.gz")
    header = read_header(image)
    if labels.is_file():
        check_same_grid(read_header(labels), header)
    frame_s, ed, es = _read_facts(image.with_name(f"{study}.json"))
    return StudySource(
        study=study,
        load_image=partial(read_image, image),
        load_labels=partial(read_labels, labels) if labels.is_file() else None,
        spacing=replace(header.spacing, frame_s=frame_s),
        ed=ed,
        es=es,
        cyclic=True,
        source=str(image.resolve()),
    )


def _read_facts(path: Path) -> tuple[float, int, int]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return float(content["dt_s"]), int(content["ed_t"][0]), int(content["es_t"][0])
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: expected a JSON file with numbers dt_s, ed_t[0] and es_t[0]: {error!r}") from error
