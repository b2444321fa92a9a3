import nibabel
import numpy as np
import pytest
from dicom_layout import cine_pixels, clip_pixels, plane_of, region_of, save, save_cine, save_clip
from nifti_movies import save_nifti

from nnunet_temporal.datasets.dicom import find_studies
from nnunet_temporal.datasets.dicom_io import find_movies
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.errors import InputError

IGNORE = 2
LABELS = {"background": 0, "LV": 1, "ignore": IGNORE}


def studies_of(folder, masks=None, **options):
    return find_studies(folder, masks, ignore=IGNORE, **options)


def save_patient_cine(folder, patient, study, **facts):
    uids = {"PatientID": patient, "StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.1"}
    return save_cine(folder, **uids, **facts)


def stack_mask():
    """Return a mask (T, Z, Y, X) of the cine, frames 1 and 3 not labelled, no two pixels of a frame to be mistaken."""
    mask = (np.random.default_rng(5).random(cine_pixels().shape) < 0.5).astype(np.uint8)
    mask[[1, 3]] = IGNORE
    return mask


def save_mask(path, mask, affine):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(mask.T, affine), path)


@pytest.fixture
def cine(tmp_path):
    save_cine(tmp_path / "in", PatientID="P1")
    (movie,) = find_movies(tmp_path / "in").movies
    return movie


def test_a_study_is_named_after_its_patient_and_says_what_the_headers_say(tmp_path):
    save_patient_cine(tmp_path, "A 1/b", "1.2.3", NominalInterval=160)
    (study,) = studies_of(tmp_path)
    assert (study.study, study.view, study.load_labels, study.cyclic) == ("A-1-b", None, None, True)
    assert study.spacing.frame_s == pytest.approx(0.04) and study.source.startswith(str(tmp_path))
    assert np.array_equal(study.load_image(), cine_pixels())


def test_several_movies_of_a_visit_are_views(tmp_path):
    for number in (7, 12):
        save_clip(tmp_path / f"{number}.dcm", InstanceNumber=number, SOPInstanceUID=f"1.2.3.{number}")
    assert sorted((s.study, s.view) for s in studies_of(tmp_path)) == [("P1", "s1i12"), ("P1", "s1i7")]


def test_visits_of_a_patient_are_numbered_by_time(tmp_path):
    save_patient_cine(tmp_path / "late", "P1", "1.2.1", StudyDate="20210101")
    save_patient_cine(tmp_path / "early", "P1", "1.2.2", StudyDate="20200101")
    places = {study.study: study.source for study in studies_of(tmp_path)}
    assert sorted(places) == ["P1_1", "P1_2"] and "early" in places["P1_1"]


def test_ultrasound_and_mri_are_not_mixed(tmp_path):
    save_cine(tmp_path / "mri")
    save_clip(tmp_path / "clip.dcm")
    with pytest.raises(InputError, match="found both ultrasound and MRI"):
        studies_of(tmp_path)


def test_colour_flow_is_left_out_unless_it_is_asked_for(tmp_path):
    save_clip(tmp_path / "1.dcm", UltrasoundColorDataPresent=1)
    with pytest.raises(InputError, match="only clips with colour flow"):
        studies_of(tmp_path)
    save_clip(tmp_path / "2.dcm", InstanceNumber=8, SOPInstanceUID="1.2.3.8")
    assert [study.source for study in studies_of(tmp_path)] == [str(tmp_path / "2.dcm")]
    assert len(studies_of(tmp_path, colour_flow=True)) == 2


def test_a_mask_called_like_the_study_labels_it(tmp_path, cine):
    save_mask(tmp_path / "masks" / "P1.nii.gz", stack_mask(), cine.affine)
    (study,) = studies_of(tmp_path / "in", tmp_path / "masks")
    assert np.array_equal(study.load_labels(), stack_mask())


@pytest.mark.parametrize("axes", [(2,), (3,), (1,), (2, 3), (1, 2, 3)])
def test_a_mirrored_mask_is_turned_back_by_its_affine(tmp_path, cine, axes):
    # What converters do that store images the other way round: pixels and affine are mirrored together.
    mirror = np.eye(4)
    for axis in axes:
        mirror[3 - axis, 3 - axis], mirror[3 - axis, 3] = -1, cine.shape[axis] - 1
    save_mask(tmp_path / "masks" / "P1.nii", np.flip(stack_mask(), axes), cine.affine @ mirror)
    (study,) = studies_of(tmp_path / "in", tmp_path / "masks")
    assert np.array_equal(study.load_labels(), stack_mask())


def test_a_mask_that_lies_elsewhere_is_refused(tmp_path, cine):
    affine = cine.affine.copy()
    affine[0, 3] += 5
    save_mask(tmp_path / "masks" / "P1.nii.gz", stack_mask(), affine)
    with pytest.raises(InputError, match=r"P1\.nii\.gz: the affine places the mask elsewhere"):
        studies_of(tmp_path / "in", tmp_path / "masks")


def test_a_mask_without_an_affine_is_taken_as_it_is(tmp_path, cine):
    (tmp_path / "masks").mkdir()
    image = nibabel.Nifti1Image(stack_mask().T, None)
    nibabel.save(image, tmp_path / "masks" / "P1.nii.gz")
    (study,) = studies_of(tmp_path / "in", tmp_path / "masks")
    assert np.array_equal(study.load_labels(), stack_mask())


def clip_mask():
    mask = (clip_pixels() > 100).astype(np.uint8)
    mask[2] = IGNORE
    return mask


def test_a_mask_of_a_clip_covers_it_as_stored_or_as_cut(tmp_path):
    save_clip(tmp_path / "in" / "1.dcm")
    for mask in (clip_mask(), clip_mask()[:, 2:10, 3:13]):
        save_nifti(tmp_path / "masks" / "P1.nii.gz", mask.T)
        (study,) = studies_of(tmp_path / "in", tmp_path / "masks")
        assert np.array_equal(study.load_labels(), clip_mask()[:, 2:10, 3:13])


def test_a_mask_of_another_shape_is_refused(tmp_path, cine):
    save_mask(tmp_path / "masks" / "P1.nii.gz", stack_mask()[:, :2], cine.affine)
    with pytest.raises(InputError, match=r"P1\.nii\.gz: found shape \(5, 6, 2, 4\), expected \(5, 6, 3, 4\)"):
        studies_of(tmp_path / "in", tmp_path / "masks")


def test_a_mask_of_no_study_is_refused(tmp_path, cine):
    save_mask(tmp_path / "masks" / "P2.nii.gz", stack_mask(), cine.affine)
    with pytest.raises(InputError, match=r"found P2, expected NIfTI files called like the movies: P1"):
        studies_of(tmp_path / "in", tmp_path / "masks")


def test_a_folder_without_masks_is_refused(tmp_path, cine):
    (tmp_path / "masks").mkdir()
    with pytest.raises(InputError, match="found no mask, expected NIfTI files called like the movies: P1"):
        studies_of(tmp_path / "in", tmp_path / "masks")


@pytest.mark.parametrize(("meaning", "value"), [("background", 0), ("unlabelled", IGNORE)])
def test_empty_frames_mean_what_the_user_says(tmp_path, cine, meaning, value):
    mask = stack_mask()
    mask[0] = 0
    save_mask(tmp_path / "masks" / "P1.nii.gz", mask, cine.affine)
    (study,) = studies_of(tmp_path / "in", tmp_path / "masks", empty_frames=meaning)
    labels = study.load_labels()
    assert np.all(labels[0] == value) and np.array_equal(labels[1:], mask[1:])


def test_empty_frames_without_a_meaning_are_refused(tmp_path, cine):
    save_mask(tmp_path / "masks" / "P1.nii.gz", np.zeros_like(stack_mask()), cine.affine)
    (study,) = studies_of(tmp_path / "in", tmp_path / "masks")
    with pytest.raises(InputError, match=r"4 of 4 frames have labels that are zero everywhere.*--empty-frames"):
        study.load_labels()


def test_a_folder_of_dicom_becomes_a_raw_dataset(tmp_path):
    for patient in ("A", "B", "C"):
        folder = tmp_path / "in" / patient
        save_patient_cine(folder, patient, f"1.2.{ord(patient)}")
        (movie,) = find_movies(folder).movies
        if patient != "C":
            save_mask(tmp_path / "masks" / f"{patient}.nii.gz", stack_mask(), movie.affine)
    (tmp_path / "raw").mkdir()
    info = DatasetInfo(7, "DICOM", LABELS, "cineMRI")
    written = write_raw_dataset(studies_of(tmp_path / "in", tmp_path / "masks"), info, tmp_path / "raw")
    sequence = written.manifest["A_z01"]
    assert (sequence.labelled_frames, sequence.slice_spacing_mm) == ((0, 2), pytest.approx(9.0))
    assert written.manifest["C_z00"].labelled_frames == ()
    image = nibabel.load(written.folder / "imagesTr" / "A_z01_0000.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj).T, cine_pixels()[:, 1])
    assert image.header.get_zooms()[:2] == pytest.approx((1.25, 1.5))


def test_the_largest_region_gives_the_grid_of_a_clip_with_two(tmp_path):
    save_clip(tmp_path / "1.dcm", regions=[region_of(0, 0, 3, 3), region_of(3, 2, 12, 9)])
    assert studies_of(tmp_path)[0].load_image().shape == (4, 8, 10)


def test_stills_and_localisers_are_passed_over(tmp_path):
    save_cine(tmp_path)
    save(plane_of(cine_pixels()[0, 0], 0, 0, SeriesInstanceUID="1.9", SOPInstanceUID="1.9.1"), tmp_path / "still.dcm")
    assert len(studies_of(tmp_path)) == 1


def test_a_patient_called_like_the_visit_of_another_is_refused(tmp_path):
    save_patient_cine(tmp_path / "a", "P1", "1.5")
    save_patient_cine(tmp_path / "b", "P1", "1.6")
    save_patient_cine(tmp_path / "c", "P1_2", "1.7")
    with pytest.raises(InputError, match="would be called P1_2, as a visit of another patient is"):
        studies_of(tmp_path)


def test_a_patient_id_that_leads_elsewhere_names_a_study_without_dots_and_slashes(tmp_path):
    save_patient_cine(tmp_path, "../../x", "1.5")
    assert [study.study for study in studies_of(tmp_path)] == ["x"]
