import json

import numpy as np
import pytest
from nifti_movies import save_nifti

from nnunet_temporal.datasets.sunnybrook import find_studies
from nnunet_temporal.errors import InputError


def save_study(folder, name, facts=None, labelled=True):
    labels = np.full((6, 5, 2, 4), 2, np.uint8)
    labels[:, :, 0, [1, 3]] = 1
    save_nifti(folder / f"{name}_cine.nii.gz", np.zeros(labels.shape, np.int16))
    if labelled:
        save_nifti(folder / f"{name}_gt_lv.nii.gz", labels)
    facts = {"dt_s": 0.04, "ed_t": [3], "es_t": [1]} if facts is None else facts
    (folder / f"{name}.json").write_text(json.dumps(facts))


def test_studies_come_with_labels_phases_and_frame_interval(tmp_path):
    save_study(tmp_path, "SC-1")
    (study,) = find_studies(tmp_path)
    assert (study.study, study.ed, study.es, study.cyclic) == ("SC-1", 3, 1, True)
    assert study.spacing.frame_s == 0.04 and study.spacing.pixel_mm == (1.25, 1.5)
    assert study.load_image().shape == study.load_labels().shape == (4, 2, 5, 6)


def test_a_study_without_label_file_is_unlabelled(tmp_path):
    save_study(tmp_path, "SC-1", labelled=False)
    assert find_studies(tmp_path)[0].load_labels is None


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found no \*_cine\.nii\.gz"):
        find_studies(tmp_path)


@pytest.mark.parametrize(
    "facts", [{}, {"dt_s": 0.04, "ed_t": [], "es_t": [1]}, {"dt_s": "x", "ed_t": [1], "es_t": [1]}]
)
def test_facts_that_are_missing_or_wrong_are_named_for_all_studies(tmp_path, facts):
    for name in ("SC-1", "SC-2"):
        save_study(tmp_path, name, facts)
    with pytest.raises(InputError, match=r"SC-1\.json[^$]*SC-2\.json"):
        find_studies(tmp_path)


def test_labels_of_another_shape_are_refused(tmp_path):
    save_study(tmp_path, "SC-1")
    save_nifti(tmp_path / "SC-1_gt_lv.nii.gz", np.ones((6, 5, 2), np.uint8))
    with pytest.raises(InputError, match="needs a 4D label file"):
        find_studies(tmp_path)


def test_hidden_files_of_a_mac_are_passed_over(tmp_path):
    save_study(tmp_path, "SC-1")
    (tmp_path / "._SC-1_cine.nii.gz").write_bytes(b"\0\5\x16\7")
    assert [study.study for study in find_studies(tmp_path)] == ["SC-1"]


def test_a_phase_beyond_any_number_is_refused(tmp_path):
    save_study(tmp_path, "SC-1", {"dt_s": 0.04, "ed_t": [float("inf")], "es_t": [1]})
    with pytest.raises(InputError, match="expected a JSON file with numbers"):
        find_studies(tmp_path)
