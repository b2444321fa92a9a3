import nibabel
import numpy as np
import pytest
from mnms_layout import TABLE, mask_of, masks_of, movie_of, save_mnms_patient, save_nifti, save_open_dataset, save_table

from nnunet_temporal.datasets.mnms import CHANNEL, LABELS, find_studies, held_out_studies, official_folds
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.errors import InputError


def one_patient(root, masks, phases, part="Training/Labeled"):
    save_mnms_patient(root / part, "A0S9V9", masks)
    save_table(root, {"A0S9V9": phases})
    (study,) = find_studies(root)
    return study


@pytest.mark.parametrize("place", [".", "OpenDataset"])
def test_the_patients_of_all_parts_are_found(tmp_path, place):
    save_open_dataset(tmp_path)
    studies = {study.study: (study.ed, study.es) for study in find_studies(tmp_path / place)}
    expected = {"A0S9V9": (0, 3), "B0H7V0": (5, 2), "D0R0R9": (None, None), "C8J7L5": (0, 2), "A1K2P5": (1, 4)}
    assert studies == expected


def test_zero_frames_are_not_labelled_and_frames_count_from_0(tmp_path):
    labels = one_patient(tmp_path, masks_of(5, 2), (5, 2)).load_labels()
    assert labels.shape == (6, 2, 5, 7) and labels.dtype == np.uint8
    assert np.array_equal(labels[5], mask_of(True).T) and np.array_equal(labels[2], mask_of(False).T)
    assert np.all(labels[[0, 1, 3, 4]] == LABELS["ignore"])


def test_the_movie_is_read_with_frames_first(tmp_path):
    study = one_patient(tmp_path, masks_of(0, 3), (0, 3))
    assert np.array_equal(study.load_image(), movie_of().T)
    assert study.cyclic and study.source.endswith("A0S9V9_sa.nii.gz")


def test_directions_that_are_not_orthogonal_are_read_and_spacing_comes_from_the_zooms(tmp_path):
    study = one_patient(tmp_path, masks_of(0, 3), (0, 3))
    directions = nibabel.load(study.source).affine[:3, :3]
    assert abs(directions[:, 0] @ directions[:, 1]) > 0.1
    assert study.spacing.pixel_mm == (1.25, 1.5) and study.spacing.slice_mm == pytest.approx(9.6)


def test_the_frame_interval_of_the_header_is_not_believed(tmp_path):
    assert one_patient(tmp_path, masks_of(0, 3), (0, 3)).spacing.frame_s is None


@pytest.mark.parametrize("phases", [(0, 0), ("", ""), (0, 1), (3, 99), (-1, 4), ("n/a", 2)])
def test_phases_that_the_table_does_not_know_come_from_the_masks(tmp_path, phases):
    study = one_patient(tmp_path, masks_of(5, 2), phases)
    assert (study.ed, study.es) == (5, 2)
    assert np.array_equal(study.load_labels()[5], mask_of(True).T)


def test_the_table_says_which_phase_is_which_where_masks_agree_with_it(tmp_path):
    # The frame with the smaller LV is ED by the table; only where it is wrong do sizes decide.
    study = one_patient(tmp_path, masks_of(5, 2), ("2.0", "5.0"))
    assert (study.ed, study.es) == (2, 5)


def test_a_third_frame_with_stray_pixels_is_not_labelled(tmp_path):
    masks = masks_of(0, 3)
    masks[0, 0, 0, 4] = 1
    labels = one_patient(tmp_path, masks, (0, 3)).load_labels()
    assert np.all(labels[4] == LABELS["ignore"]) and labels[3].max() == 3


def test_three_masks_that_the_table_does_not_explain_are_refused(tmp_path):
    masks = masks_of(0, 3)
    masks[0, 0, 0, 4] = 1
    with pytest.raises(InputError, match=r"_sa_gt\.nii\.gz: found masks in the frames \[0, 3, 4\].*restore"):
        one_patient(tmp_path, masks, (0, 0))


def test_a_single_mask_of_ed_labels_that_frame_only(tmp_path):
    study = one_patient(tmp_path, masks_of(0, None), (0, 3))
    labels = study.load_labels()
    assert (study.ed, study.es) == (0, 3) and np.all(labels[3] == 4) and labels[0].max() == 3


@pytest.mark.parametrize("masks", [None, masks_of(None, None)])
@pytest.mark.parametrize("part", ["Training/Labeled", "Training/Unlabeled", "Testing"])
def test_a_patient_without_masks_or_with_zero_masks_is_unlabelled_but_keeps_its_phases(tmp_path, part, masks):
    study = one_patient(tmp_path, masks, (1, 3), part)
    assert study.load_labels is None and (study.ed, study.es) == (1, 3)


def test_the_patients_for_testing_and_the_official_fold_are_known(tmp_path):
    folder = save_open_dataset(tmp_path)
    assert held_out_studies(tmp_path) == held_out_studies(folder) == ["A1K2P5"]
    assert official_folds(folder) == [({"A0S9V9", "B0H7V0", "D0R0R9"}, {"C8J7L5"})]


def test_without_validation_there_is_no_official_fold(tmp_path):
    save_mnms_patient(tmp_path / "Training" / "Labeled", "A0S9V9", masks_of(0, 3))
    assert official_folds(tmp_path) == [] and held_out_studies(tmp_path) == []


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffExternal code,Vendor,ED,ES\nA0S9V9,,1,4\n",
        "Vendor,VendorName,ES,ED,External code\nZ,unheard of,4,1, A0S9V9 \n\n",
        "External code,ED,ES,Vendor\nX,,\nA0S9V9,1,4\n",
    ],
)
def test_other_columns_of_the_table_may_be_missing_strange_or_in_another_order(tmp_path, text):
    save_mnms_patient(tmp_path / "Training" / "Unlabeled", "A0S9V9", None)
    (tmp_path / "facts.csv").write_text(text, encoding="utf-8")
    (study,) = find_studies(tmp_path)
    assert (study.ed, study.es) == (1, 4)


def test_of_two_editions_of_the_table_the_newer_one_counts(tmp_path):
    save_table(tmp_path, {"A0S9V9": (0, 5)}, "201014_M&Ms_Dataset_Information_-_opendataset.csv")
    study = one_patient(tmp_path, None, (1, 4))
    assert (study.ed, study.es) == (1, 4)


def test_a_patient_who_is_not_in_the_table_has_the_phases_of_the_masks(tmp_path):
    save_mnms_patient(tmp_path / "Validation", "C8J7L5", masks_of(4, 1))
    save_table(tmp_path, {})
    (study,) = find_studies(tmp_path)
    assert (study.ed, study.es) == (4, 1)


def test_a_missing_table_is_named(tmp_path):
    (save_open_dataset(tmp_path) / TABLE).unlink()
    with pytest.raises(InputError, match=r"found no csv file with columns 'External code', 'ED' and 'ES'.*restore"):
        find_studies(tmp_path)


def test_a_folder_that_is_not_of_mnms_is_refused(tmp_path):
    with pytest.raises(InputError, match="found no folder Training/Labeled"):
        find_studies(tmp_path)
    (tmp_path / "Testing").mkdir()
    save_table(tmp_path, {})
    with pytest.raises(InputError, match="found no patient"):
        find_studies(tmp_path)


def test_every_bad_patient_is_listed(tmp_path):
    folder = save_open_dataset(tmp_path)
    (folder / "Testing" / "A1K2P5" / "A1K2P5_sa.nii.gz").unlink()
    save_nifti(folder / "Validation" / "C8J7L5" / "C8J7L5_sa_gt.nii.gz", masks_of(0, 2)[..., :5])
    save_nifti(folder / "Training" / "Labeled" / "A0S9V9" / "A0S9V9_sa.nii.gz", movie_of()[..., 0])
    with pytest.raises(InputError, match=r"^3 inputs") as error:
        find_studies(tmp_path)
    for part in ("A1K2P5_sa.nii.gz: expected", "C8J7L5_sa_gt.nii.gz: found label shape", "A0S9V9_sa.nii.gz: found 3"):
        assert part in str(error.value)


def test_a_class_that_mnms_does_not_have_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"_sa_gt\.nii\.gz: found label values \[4, 6\], expected 1 LV, 2 MYO, 3 RV"):
        one_patient(tmp_path, masks_of(0, 3) * 2, (0, 3)).load_labels()


def test_the_pixels_of_a_movie_are_read_only_when_a_study_is_loaded(tmp_path):
    patient = save_mnms_patient(tmp_path / "Testing", "A1K2P5", masks_of(0, 3))
    save_table(tmp_path, {"A1K2P5": (0, 3)})
    movie = patient / "A1K2P5_sa.nii.gz"
    movie.write_bytes(movie.read_bytes()[:-20])
    (study,) = find_studies(tmp_path)
    with pytest.raises(InputError, match="the file may be cut off"):
        study.load_image()


def test_the_whole_dataset_is_written(tmp_path):
    folder = save_open_dataset(tmp_path)
    info = DatasetInfo(7, "MNMs", LABELS, CHANNEL)
    written = write_raw_dataset(find_studies(folder), info, tmp_path, held_out=held_out_studies(folder))
    assert written.manifest["B0H7V0_z01"].labelled_frames == (2, 5)
    assert written.manifest["D0R0R9_z00"].labelled_frames == ()
    mask = np.asarray(nibabel.load(written.folder / "labelsTr" / "A0S9V9_z00.nii.gz").dataobj)
    assert np.array_equal(mask[..., 3], mask_of(False)[..., 0]) and np.all(mask[..., 1] == 4)
    assert (written.folder / "labelsTs" / "A1K2P5_z00.nii.gz").is_file()
