"""Studies on disk as what scores and pictures are made from."""

from pathlib import Path

import numpy as np

from nnunet_temporal.datasets.image_io import check_same_grid, read_header, read_image, read_labels
from nnunet_temporal.errors import InputError
from nnunet_temporal.report.study_result import StudyResult
from nnunet_temporal.sequences import Study


def read_study_result(
    study: Study, image_path: Path, reference_path: Path, prediction_path: Path, *, label: int, ignore_label: int
) -> StudyResult:
    """Read a 4D study, the expert's labels and the predicted labels, and pick one structure.

    Args:
        study: Its entry in the manifest; ED, ES and the frame interval are taken from its first sequence.
        image_path: NIfTI (x, y, z, t) with the grey values.
        reference_path: NIfTI of the same shape with the expert's labels.
        prediction_path: NIfTI of the same shape with the predicted labels.
        label: Value of the structure.
        ignore_label: Value of pixels the expert did not label.

    Returns:
        The study with boolean masks of the structure.

    Raises:
        InputError: A file is unreadable or not on the image's grid, the image is not 4D or has no spacing, or ED or ES
            is not known.
    """
    header = read_header(image_path)
    spacing = header.spacing
    if spacing.slice_mm is None or not spacing.pixel_known:
        raise InputError(f"{image_path}: found no spacing along x, y and z; volumes need a 4D file with spacing")
    for path in (reference_path, prediction_path):
        check_same_grid(read_header(path), header)
    ed, es = _phases(study)
    reference = read_labels(reference_path)
    return StudyResult(
        name=study.name,
        image=read_image(image_path),
        prediction=read_labels(prediction_path) == label,
        reference=reference == label,
        labelled=(reference != ignore_label).any(axis=(2, 3)),
        ed=ed,
        es=es,
        spacing_mm=(spacing.slice_mm, *spacing.pixel_mm),
        frame_interval_s=study.sequences[0].frame_interval_s,
        cyclic=study.sequences[0].cyclic,
    )


def read_expert_masks(
    study: Study, reference_path: Path, *, label: int, ignore_label: int
) -> tuple[np.ndarray, np.ndarray]:
    """Read the expert's masks of one structure at ED and at ES.

    Args:
        study: Its entry in the manifest, with ED and ES.
        reference_path: NIfTI (x, y, z, t) with the expert's labels.
        label: Value of the structure.
        ignore_label: Value of pixels the expert did not label.

    Returns:
        Two (N, Y, X) boolean arrays: all slices labelled at ED, all slices labelled at ES.

    Raises:
        InputError: The file is unreadable, or ED or ES is not known.
    """
    ed, es = _phases(study)
    reference = read_labels(reference_path)
    labelled = (reference != ignore_label).any(axis=(2, 3))  # (T, Z)
    return reference[ed, labelled[ed]] == label, reference[es, labelled[es]] == label


def _phases(study: Study) -> tuple[int, int]:
    """Return the frames (ED, ES) of a study."""
    first = study.sequences[0]
    if first.ed is None or first.es is None:
        raise InputError(f"study {study.name!r}: ED or ES is missing in the manifest, so phases cannot be compared")
    return first.ed, first.es
