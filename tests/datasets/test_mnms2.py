import nibabel
import numpy as np
import pytest
from mnms_layout import mask_of, movie_of, save_mnm2, save_mnms2_view, save_nifti

from nnunet_temporal.datasets.mnms2 import CHANNEL, LABELS, find_studies, held_out_studies, official_folds
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.errors import InputError


@pytest.fixture
def patient(tmp_path):
    folder = tmp_path / "MnM2" / "dataset" / "007"
    save_mnms2_view(folder, "007", "SA")
    return folder


def only_study(folder, **options):
    (study,) = find_studies(folder, **options)
    return study


def test_both_views_of_every_patient_are_found_with_phases_of_their_own(tmp_path):
    found = {(s.study, s.view): (s.ed, s.es) for s in find_studies(save_mnm2(tmp_path, ("001", "201")))}
    assert found == {("001", "SA"): (1, 4), ("001", "LA"): (0, 3), ("201", "SA"): (1, 4), ("201", "LA"): (0, 3)}


@pytest.mark.parametrize("place", [".", "MnM2", "MnM2/dataset", "MnM2/dataset/001"])
def test_the_patients_are_found_from_every_folder(tmp_path, place):
    save_mnm2(tmp_path, ("001",))
    assert [study.view for study in find_studies(tmp_path / place)] == ["LA", "SA"]


def test_one_view_can_be_asked_for(tmp_path):
    assert [study.view for study in find_studies(save_mnm2(tmp_path), views=("LA",))] == ["LA"] * 3


def test_a_copy_packed_by_view_is_read_as_well(tmp_path):
    for view in ("SA", "LA"):
        save_mnms2_view(tmp_path / view / "001", "001", view)
    for path in tmp_path.rglob("*_gt.nii.gz"):
        path.rename(path.with_name(path.name.replace("_gt", "_gt_")))
    studies = find_studies(tmp_path)
    assert [study.view for study in studies] == ["LA", "SA"] and all(study.load_labels for study in studies)


def test_a_short_axis_view_is_a_stack_labelled_at_ed_and_es(patient):
    study = only_study(patient)
    labels = study.load_labels()
    assert np.array_equal(study.load_image(), movie_of().T) and labels.shape == (6, 2, 5, 7)
    assert np.array_equal(labels[1], mask_of(True).T) and np.array_equal(labels[4], mask_of(False).T)
    assert np.all(labels[[0, 2, 3, 5]] == LABELS["ignore"])
    assert study.spacing.pixel_mm == (1.25, 1.5) and study.spacing.slice_mm == pytest.approx(9.6)
    assert study.spacing.frame_s is None and study.cyclic


@pytest.mark.parametrize("has_slice_axis", [True, False])
def test_a_long_axis_view_is_one_sequence_without_slices(tmp_path, has_slice_axis):
    save_mnms2_view(tmp_path, "001", "LA", ed=5, es=2)
    if not has_slice_axis:
        save_nifti(tmp_path / "001_LA_CINE.nii.gz", movie_of(slices=1)[:, :, 0])
    study = only_study(tmp_path)
    assert (study.ed, study.es, study.spacing.slice_mm) == (5, 2, None)
    assert np.array_equal(study.load_image(), movie_of(slices=1)[:, :, 0].T)
    labels = study.load_labels()
    assert labels.shape == (6, 5, 7) and np.array_equal(labels[5], mask_of(True, 1)[..., 0].T)
    assert np.all(labels[[0, 1, 3, 4]] == 4)


def test_a_frame_that_was_rounded_by_a_copy_is_still_found(patient):
    save_nifti(patient / "007_SA_ED.nii.gz", movie_of()[..., 1].astype(np.float32) + 0.4)
    assert only_study(patient).ed == 1


def test_a_frame_that_is_not_in_the_movie_is_refused(patient):
    other = np.random.default_rng(1).integers(0, 1000, (7, 5, 2)).astype(np.int16)
    save_nifti(patient / "007_SA_ES.nii.gz", other)
    with pytest.raises(InputError, match=r"007_SA_ES\.nii\.gz: differs from every frame of .*CINE.*restore both"):
        find_studies(patient)


def test_a_view_without_masks_is_unlabelled_but_has_its_phases(tmp_path):
    save_mnms2_view(tmp_path, "170", "SA", masked=False)
    study = only_study(tmp_path)
    assert study.load_labels is None and (study.ed, study.es) == (1, 4)


def test_a_movie_alone_is_an_unlabelled_study(patient):
    for path in patient.glob("*_E*"):
        path.unlink()
    study = only_study(patient)
    assert study.load_labels is None and (study.ed, study.es) == (None, None)


@pytest.mark.parametrize("kind", ["ED_gt", "ES"])
def test_one_missing_mask_or_frame_is_refused(patient, kind):
    (patient / f"007_SA_{kind}.nii.gz").unlink()
    with pytest.raises(InputError, match=rf"found no 007_SA_{kind}\.nii\.gz; expected image and mask of both"):
        find_studies(patient)


def test_every_bad_movie_is_listed(tmp_path):
    folder = save_mnm2(tmp_path) / "dataset"
    (folder / "001" / "001_SA_CINE.nii.gz").unlink()
    (folder / "161" / "161_LA_CINE.nii.gz").write_bytes(b"")
    save_nifti(folder / "201" / "201_SA_ED_gt.nii.gz", np.ones((5, 7, 2), np.uint8))
    with pytest.raises(InputError, match=r"^3 inputs") as error:
        find_studies(tmp_path)
    for part in ("found no 001_SA_CINE", "161_LA_CINE.nii.gz: expected a readable", "found shape (5, 7, 2), expected"):
        assert part in str(error.value)


def test_a_short_axis_movie_without_a_slice_axis_is_refused(patient):
    save_nifti(patient / "007_SA_CINE.nii.gz", movie_of()[:, :, 0])
    with pytest.raises(InputError, match="found 3 axes, expected 4"):
        find_studies(patient)


def test_a_file_that_is_there_twice_is_refused(patient):
    save_mnms2_view(patient.parent / "copy", "007", "SA")
    with pytest.raises(InputError, match="are the same image of one patient"):
        find_studies(patient.parent)


def test_a_folder_without_patients_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found no file such as .* of the view SA or LA in it; name the"):
        find_studies(tmp_path)


@pytest.mark.parametrize(("value", "found"), [(4, r"label values \[4\]"), (0, "no label at all")])
def test_a_mask_that_holds_no_masks_of_mnms2_is_refused(patient, value, found):
    save_nifti(patient / "007_SA_ED_gt.nii.gz", np.full((7, 5, 2), value, np.uint8))
    with pytest.raises(InputError, match=rf"007_SA_ED_gt\.nii\.gz: found {found}, expected 1 LV, 2 MYO, 3 RV"):
        only_study(patient).load_labels()


def test_the_official_parts_go_by_the_number_of_the_patient(tmp_path):
    folder = save_mnm2(tmp_path, ("001", "160", "161", "200", "201", "360"))
    assert held_out_studies(folder) == ["201", "360"]
    assert official_folds(folder) == [({"001", "160"}, {"161", "200"})]


def test_without_patients_for_validation_there_is_no_official_fold(tmp_path):
    assert official_folds(save_mnm2(tmp_path, ("001", "201"))) == []


def test_both_views_are_written_as_one_dataset(tmp_path):
    folder = save_mnm2(tmp_path, ("001", "002", "201"))
    info = DatasetInfo(8, "MNMs2", LABELS, CHANNEL)
    written = write_raw_dataset(find_studies(folder), info, tmp_path, held_out=held_out_studies(folder))
    assert written.manifest["001_SA_z01"].labelled_frames == (1, 4)
    assert written.manifest["002_LA"].labelled_frames == (0, 3)
    mask = np.asarray(nibabel.load(written.folder / "labelsTs" / "201_LA.nii.gz").dataobj)
    assert np.array_equal(mask[..., 0], mask_of(True, 1)[..., 0])


def test_with_one_view_patients_who_only_have_the_other_are_neither_held_out_nor_in_a_fold(tmp_path):
    folder = save_mnm2(tmp_path, ("001", "002", "161", "201"))
    for patient in ("002", "202"):
        save_mnms2_view(folder / "dataset" / patient, patient, "LA")
    for path in (folder / "dataset" / "002").glob("*_SA_*"):
        path.unlink()
    assert held_out_studies(folder, ["SA"]) == ["201"] and held_out_studies(folder) == ["201", "202"]
    assert official_folds(folder, ["SA"]) == [({"001"}, {"161"})]
