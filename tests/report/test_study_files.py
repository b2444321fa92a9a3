"""Studies read from files, and files that do not fit."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.report.study_files import read_expert_masks, read_study_result
from nnunet_temporal.sequences import Sequence, Study

LABELS = {"label": 1, "ignore_label": 2}


def make_study(ed: int | None = 2) -> Study:
    """Return a study of one slice and three frames."""
    sequence = Sequence("s_z00", "s", 3, (0, 2), slice=0, ed=ed, es=0, cyclic=True, frame_interval_s=0.05)
    return Study("s", (sequence,))


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Write image, expert's labels and prediction of 4 x 5 pixels, 2 slices, 3 frames; slice 0 labelled at 0 and 2."""
    image = np.ones((4, 5, 2, 3), np.int16)
    reference = np.full(image.shape, 2, np.uint8)
    reference[..., 0, [0, 2]] = 0
    reference[1:3, 1:4, 0, 2] = 1
    prediction = (reference == 1).astype(np.uint8)
    paths = []
    for name, voxels in (("image", image), ("reference", reference), ("prediction", prediction)):
        nifti = nibabel.Nifti1Image(voxels, np.diag([1.5, 1.25, 8.0, 1.0]))
        nifti.header.set_xyzt_units("mm", "sec")
        paths.append(tmp_path / f"{name}.nii.gz")
        nibabel.save(nifti, paths[-1])
    return paths


def test_arrays_come_with_time_first_and_spacing_with_slices_first(files):
    result = read_study_result(make_study(), *files, **LABELS)
    assert result.prediction.shape == (3, 2, 5, 4)
    assert result.reference[2, 0].sum() == 6
    assert result.labelled.tolist() == [[True, False], [False, False], [True, False]]
    assert result.spacing_mm == (8.0, 1.25, 1.5)
    assert (result.ed, result.es, result.frame_interval_s, result.cyclic) == (2, 0, 0.05, True)


def test_expert_masks_are_those_of_the_slices_labelled_at_ed_and_es(files):
    ed, es = read_expert_masks(make_study(), files[1], **LABELS)
    assert (ed.shape, es.shape) == ((1, 5, 4), (1, 5, 4))
    assert (ed.sum(), es.sum()) == (6, 0)


def test_a_study_without_ed_in_the_manifest_is_refused(files):
    with pytest.raises(InputError, match="study 's': ED or ES is missing in the manifest"):
        read_study_result(make_study(ed=None), *files, **LABELS)


def test_a_prediction_on_another_grid_is_refused_and_named(files):
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 1, 3), np.uint8), np.eye(4)), files[2])
    with pytest.raises(InputError, match=r"prediction\.nii\.gz: found label shape"):
        read_study_result(make_study(), *files, **LABELS)


def test_an_image_without_slices_is_refused(files):
    for path in files:
        nibabel.save(nibabel.Nifti1Image(np.zeros((4, 5, 3), np.uint8), np.eye(4)), path)
    with pytest.raises(InputError, match="volumes need a 4D file with spacing"):
        read_study_result(make_study(), *files, **LABELS)
