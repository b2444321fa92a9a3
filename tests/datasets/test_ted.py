import numpy as np
import pytest
from camus_files import N_FRAMES, PIXEL_MM, frames_of, replace_text, save_mhd, save_ted

from nnunet_temporal.datasets.finished_studies import fingerprint
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.datasets.ted import CHANNEL, LABELS, NAME, find_studies
from nnunet_temporal.errors import InputError


@pytest.fixture
def patient(tmp_path):
    return save_ted(tmp_path, "patient001")


def only_study(patient):
    (study,) = find_studies(patient.parent)
    return study


@pytest.mark.parametrize("place", [".", "database"])
def test_a_patient_is_one_beat_with_all_frames_labelled(patient, tmp_path, place):
    (study,) = find_studies(tmp_path / place)
    image, labels = frames_of("patient001")
    assert (study.study, study.view, study.ed, study.es, study.cyclic) == ("patient001", "4CH", 0, 2, True)
    assert np.array_equal(study.load_image(), image)
    assert np.array_equal(study.load_labels(), np.where(labels == 3, 0, labels))
    assert study.spacing.pixel_mm == pytest.approx((PIXEL_MM / 2, PIXEL_MM)) and study.spacing.frame_s is None


def test_a_left_atrium_is_background(patient):
    labels = frames_of("patient001")[1]
    assert (labels == 3).any()
    save_mhd(patient / "patient001_4CH_sequence_gt.mhd", labels)
    assert set(np.unique(only_study(patient).load_labels())) == {0, 1, 2}


def test_a_frame_with_an_empty_mask_is_not_labelled(patient):
    labels = frames_of("patient001")[1]
    labels[1] = 0
    save_mhd(patient / "patient001_4CH_sequence_gt.mhd", labels)
    found = only_study(patient).load_labels()
    assert np.all(found[1] == LABELS["ignore"]) and not np.any(found[[0, 2, 3, 4]] == LABELS["ignore"])


def test_unknown_label_values_are_refused(patient):
    save_mhd(patient / "patient001_4CH_sequence_gt.mhd", frames_of("patient001")[1] + 2)
    with pytest.raises(InputError, match=r"_gt\.mhd: found label values \[4, 5\], expected 1 LV"):
        only_study(patient).load_labels()


def test_a_frame_rate_gives_the_interval(patient):
    replace_text(patient / "Info_4CH.cfg", "LVef: 55.0", "LVef: 55.0\nFrameRate: 40")
    assert only_study(patient).spacing.frame_s == pytest.approx(0.025)


@pytest.mark.parametrize("name", ["patient001_4CH_sequence.raw", "patient001_4CH_sequence_gt.mhd", "Info_4CH.cfg"])
def test_a_missing_file_is_named(patient, name):
    (patient / name).unlink()
    with pytest.raises(InputError, match=name.replace(".", r"\.")):
        find_studies(patient.parent)


def test_masks_of_another_number_of_frames_are_refused(patient):
    save_mhd(patient / "patient001_4CH_sequence_gt.mhd", np.ones((4, 14, 6)))
    with pytest.raises(InputError, match=r"_gt\.mhd: found label shape \(6, 14, 4\), expected \(6, 14, 5\)"):
        find_studies(patient.parent)


def test_the_dataset_has_folds_by_patient(patient, tmp_path):
    save_ted(tmp_path, "patient002")
    written = write_raw_dataset(find_studies(tmp_path), DatasetInfo(4, NAME, LABELS, CHANNEL), tmp_path)
    assert written.manifest["patient001_4CH"].labelled_frames == tuple(range(N_FRAMES)) and len(written.splits) == 2


def test_a_study_whose_pixels_have_changed_is_another(tmp_path):
    folder = save_ted(tmp_path, "patient001")
    before = [fingerprint(study, LABELS) for study in find_studies(tmp_path)]
    assert before == [fingerprint(study, LABELS) for study in find_studies(tmp_path)]
    path = folder / "patient001_4CH_sequence.raw"
    path.write_bytes(path.read_bytes()[::-1])
    assert before != [fingerprint(study, LABELS) for study in find_studies(tmp_path)]
