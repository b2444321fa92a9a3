import nibabel
import numpy as np
import pytest
from acdc_layout import mask_of, movie_of, save_acdc_nifti, save_database, save_patient

from nnunet_temporal.datasets.acdc import find_studies, held_out_studies
from nnunet_temporal.errors import InputError


@pytest.fixture
def patient(tmp_path):
    return save_patient(tmp_path / "patient001")


def only_study(patient):
    (study,) = find_studies(patient.parent)
    return study


def replace_fact(patient, line, other):
    info = patient / "Info.cfg"
    assert line in info.read_text()
    info.write_text(info.read_text().replace(line, other))


def test_frames_of_info_cfg_count_from_1_and_those_of_a_study_from_0(patient):
    study = only_study(patient)
    assert (study.study, study.ed, study.es) == ("patient001", 0, 2)


def test_a_patient_covers_one_beat_and_names_its_movie(patient):
    study = only_study(patient)
    assert study.cyclic and study.source == str(patient / "patient001_4d.nii.gz")


def test_spacing_comes_from_the_zooms_and_not_from_the_unit_sform(patient):
    assert np.abs(np.diag(nibabel.load(patient / "patient001_4d.nii.gz").affine)[:3]).tolist() == [1, 1, 1]
    spacing = only_study(patient).spacing
    assert (spacing.pixel_mm, spacing.slice_mm, spacing.pixel_known) == ((1.25, 1.5), 10.0, True)


def test_a_frame_interval_in_the_header_is_not_believed(patient):
    movie = nibabel.load(patient / "patient001_4d.nii.gz")
    movie.header.set_xyzt_units("mm", "sec")
    nibabel.save(nibabel.Nifti1Image(np.asarray(movie.dataobj), movie.affine, movie.header), movie.get_filename())
    assert only_study(patient).spacing.frame_s is None


def test_only_ed_and_es_are_labelled(patient):
    labels = only_study(patient).load_labels()
    assert labels.shape == (5, 2, 5, 6) and labels.dtype == np.uint8
    for t in (0, 2):
        assert np.array_equal(labels[t], mask_of(t + 1).T)
    assert np.all(labels[[1, 3, 4]] == 4)


def test_the_movie_is_read_with_frames_first(patient):
    assert np.array_equal(only_study(patient).load_image(), movie_of().T)


def test_a_transposed_patient_with_ed_after_es_keeps_masks_and_frames_together(tmp_path):
    study = only_study(save_patient(tmp_path / "patient002", ed=4, es=2, size=(5, 7)))
    labels = study.load_labels()
    assert (study.ed, study.es, labels.shape) == (3, 1, (5, 2, 7, 5))
    assert np.array_equal(labels[3], mask_of(4, (5, 7)).T) and np.all(labels[[0, 2, 4]] == 4)
    assert study.load_image().shape == labels.shape


def test_a_patient_without_masks_is_unlabelled_but_has_its_phases(tmp_path):
    study = only_study(save_patient(tmp_path / "patient101", masked=False))
    assert study.load_labels is None and (study.ed, study.es) == (0, 2)


def test_pixels_are_read_only_when_a_study_is_loaded(tmp_path):
    patient = save_patient(tmp_path / "patient001", n_frames=30)
    movie = patient / "patient001_4d.nii.gz"
    movie.write_bytes(movie.read_bytes()[:-20])
    study = only_study(patient)
    with pytest.raises(InputError, match="the file may be cut off"):
        study.load_image()


@pytest.mark.parametrize("place", [".", "database", "database/training"])
def test_the_patients_are_found_from_database_its_parent_and_a_part_of_it(tmp_path, place):
    save_database(tmp_path)
    expected = ["patient001", "patient002", "patient101"][: 2 if "training" in place else 3]
    assert sorted(study.study for study in find_studies(tmp_path / place)) == expected


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (".", ["patient101"]),
        ("database", ["patient101"]),
        ("database/training", []),
        ("database/testing", ["patient101"]),
    ],
)
def test_the_patients_for_testing_are_known_from_every_folder(tmp_path, monkeypatch, place, expected):
    save_database(tmp_path)
    assert held_out_studies(tmp_path / place) == expected
    monkeypatch.chdir(tmp_path / place)
    assert held_out_studies(type(tmp_path)(".")) == expected


def test_a_folder_without_patients_is_refused(tmp_path):
    with pytest.raises(InputError, match="found no folder patientNNN"):
        find_studies(tmp_path)


def test_every_bad_patient_is_listed(tmp_path):
    for number in (1, 2, 3):
        save_patient(tmp_path / f"patient{number:03d}")
    (tmp_path / "patient001" / "Info.cfg").unlink()
    (tmp_path / "patient003" / "patient003_4d.nii.gz").unlink()
    with pytest.raises(InputError, match=r"2 inputs[^$]*patient001/Info\.cfg: [^$]*patient003_4d\.nii\.gz: ") as error:
        find_studies(tmp_path)
    assert "patient002" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "other", "message"),
    [
        ("ED: 1\n", "", "found ED None, expected a line 'ED: NUMBER'"),
        ("ED: 1", "ED: one", "found ED 'one', expected a line"),
        ("ES: 3", "ES: 3.5", "found ES '3.5', expected a line"),
        ("ES: 3", "ES: -3", "found ES '-3', expected a line"),
        ("ED: 1", "ED: 0", r"found ED 0 and ES 3, expected two different frames in 1\.\.5, counted from 1"),
        ("ES: 3", "ES: 6", r"found ED 1 and ES 6, expected two different frames in 1\.\.5"),
        ("ES: 3", "ES: 1", "found ED 1 and ES 1, expected two different frames"),
        ("NbFrame: 5", "NbFrame: 6", r"found NbFrame 6, expected 5, the frames of .*patient001_4d\.nii\.gz"),
    ],
)
def test_odd_facts_are_named_with_the_file_and_what_to_do(patient, line, other, message):
    replace_fact(patient, line, other)
    with pytest.raises(InputError, match=rf"patient001/Info\.cfg: {message}.*restore"):
        find_studies(patient.parent)


def test_facts_that_are_no_text_are_refused(patient):
    (patient / "Info.cfg").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"Info\.cfg: expected lines such as 'ED: 1'"):
        find_studies(patient.parent)


def test_blanks_and_unknown_lines_in_the_facts_are_fine(patient):
    replace_fact(patient, "ED: 1\n", "\n  ED :  1 \nRemark\n")
    assert only_study(patient).ed == 0


def test_one_missing_mask_is_refused(patient):
    (patient / "patient001_frame03_gt.nii.gz").unlink()
    with pytest.raises(InputError, match=r"found masks \['patient001_frame01_gt.*expected .*frame03_gt.*restore"):
        find_studies(patient.parent)


def test_masks_of_other_frames_than_info_cfg_names_are_refused(patient):
    replace_fact(patient, "ES: 3", "ES: 4")
    with pytest.raises(InputError, match=r"found masks .*frame03_gt.*expected .*frame04_gt.*by ED and ES of Info\.cfg"):
        find_studies(patient.parent)


@pytest.mark.parametrize("name", ["patient001_frame03_gt.nii.gz", "patient001_frame03.nii.gz"])
def test_a_mask_or_frame_of_another_shape_is_refused(patient, name):
    save_acdc_nifti(patient / name, np.ones((5, 6, 2), np.uint8))
    with pytest.raises(InputError, match=rf"{name}: found shape \(5, 6, 2\), expected \(6, 5, 2\) \(x, y, z\)"):
        find_studies(patient.parent)


def test_a_mask_without_its_frame_is_refused(patient):
    (patient / "patient001_frame03.nii.gz").unlink()
    with pytest.raises(InputError, match=r"patient001_frame03\.nii\.gz: expected a readable NIfTI"):
        find_studies(patient.parent)


@pytest.mark.parametrize("masked", [True, False])
def test_a_frame_that_is_not_the_one_of_the_movie_is_refused(tmp_path, masked):
    patient = save_patient(tmp_path / "patient001", masked=masked)
    # What is left by counting from 0: the file of frame 3 holds frame 4.
    save_acdc_nifti(patient / "patient001_frame03.nii.gz", movie_of()[..., 3])
    with pytest.raises(
        InputError, match=r"frame03\.nii\.gz: differs from frame 3 \(counted from 1\) of .*_4d\.nii\.gz"
    ):
        only_study(patient).load_image()


@pytest.mark.parametrize(
    ("value", "found"), [(4, r"label values \[4\]"), (257, r"label values \[257\]"), (0, "no label")]
)
def test_a_mask_that_holds_no_masks_of_acdc_is_refused(patient, value, found):
    mask = mask_of(3).astype(np.uint16)
    mask[mask > 0] = value
    save_acdc_nifti(patient / "patient001_frame03_gt.nii.gz", mask)
    with pytest.raises(InputError, match=rf"frame03_gt\.nii\.gz: found {found}.*expected 1 RV, 2 MYO, 3 LV"):
        only_study(patient).load_labels()


def test_a_movie_without_a_slice_axis_is_refused(patient):
    save_acdc_nifti(patient / "patient001_4d.nii.gz", np.zeros((6, 5, 5), np.int16))
    with pytest.raises(InputError, match=r"_4d\.nii\.gz: found 3 axes, expected 4"):
        find_studies(patient.parent)
