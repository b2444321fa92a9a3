import json

import nibabel
import numpy as np
import pytest
from camus_files import N_FRAMES, PIXEL_MM, frames_of, replace_text, save_camus, save_split

from nnunet_temporal.datasets.camus import CHANNEL, LABELS, NAME, find_studies, held_out_studies, official_folds
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.errors import InputError


@pytest.fixture
def patient(tmp_path):
    return save_camus(tmp_path, "patient0001")


def views_of(patient):
    return {source.view: source for source in find_studies(patient.parent)}


def rewrite(path, pixels):
    image = nibabel.load(path)
    nibabel.save(nibabel.Nifti1Image(pixels, image.affine, image.header), path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_both_views_of_a_patient_are_one_study_with_all_frames_labelled(tmp_path, ending):
    views = views_of(save_camus(tmp_path, "patient0001", ending))
    image, labels = frames_of("patient0001")
    assert set(views) == {"2CH", "4CH"} and {source.study for source in views.values()} == {"patient0001"}
    for source in views.values():
        assert np.array_equal(source.load_image(), image) and np.array_equal(source.load_labels(), labels)
        assert (source.ed, source.es, source.cyclic) == (0, N_FRAMES - 1, False)
        assert source.source.endswith(f"_half_sequence{ending}")


def test_a_sequence_stored_from_es_to_ed_is_turned_round_with_its_masks_and_phases(tmp_path):
    source = views_of(save_camus(tmp_path, "patient0001", backwards=True))["4CH"]
    image, labels = frames_of("patient0001")
    assert np.array_equal(source.load_image(), image) and np.array_equal(source.load_labels(), labels)
    assert (source.ed, source.es) == (0, N_FRAMES - 1)


def test_masks_stored_as_floats_become_whole_numbers(patient):
    assert views_of(patient)["2CH"].load_labels().dtype == np.uint8


def test_a_label_between_two_whole_numbers_is_refused(patient):
    path = patient / "patient0001_4CH_half_sequence_gt.nii.gz"
    rewrite(path, np.asarray(nibabel.load(path).dataobj) + np.float32(0.5))
    with pytest.raises(InputError, match=r"4CH_half_sequence_gt\.nii\.gz: found label values \[0\.5.*whole numbers"):
        views_of(patient)["4CH"].load_labels()


def test_a_label_that_might_pass_for_not_labelled_is_refused(patient):
    path = patient / "patient0001_4CH_half_sequence_gt.nii.gz"
    rewrite(path, np.asarray(nibabel.load(path).dataobj) * 2)
    with pytest.raises(InputError, match=r"found label values \[4, 6\], expected 1 LV, 2 MYO, 3 LA"):
        views_of(patient)["4CH"].load_labels()


def test_a_frame_with_an_empty_mask_is_not_labelled(patient):
    path = patient / "patient0001_4CH_half_sequence_gt.nii.gz"
    pixels = np.asarray(nibabel.load(path).dataobj).copy()
    pixels[..., 2] = 0
    rewrite(path, pixels)
    labels = views_of(patient)["4CH"].load_labels()
    assert np.all(labels[2] == LABELS["ignore"]) and np.array_equal(labels[3], frames_of("patient0001")[1][3])


def test_pixels_are_in_mm_and_the_frame_interval_comes_from_the_frame_rate(patient):
    spacing = views_of(patient)["4CH"].spacing
    assert spacing.pixel_mm == pytest.approx((PIXEL_MM, PIXEL_MM)) and spacing.pixel_known
    assert spacing.frame_s == pytest.approx(0.02)


def test_without_a_frame_rate_the_interval_is_unknown(patient):
    replace_text(patient / "Info_4CH.cfg", "FrameRate: 50.0\n", "")
    assert views_of(patient)["4CH"].spacing.frame_s is None


def test_facts_are_read_leniently(patient):
    (patient / "Info_4CH.cfg").write_text("\n  ed :  1 \nRemark\nES:5.0\nNbFrame : 5\nComment: a: b\n")
    source = views_of(patient)["4CH"]
    assert (source.ed, source.es) == (0, 4)


@pytest.mark.parametrize(
    ("text", "other", "message"),
    [
        ("ED: 1\n", "", "found ED '', expected a line 'ED: NUMBER'"),
        ("ED: 1", "ED: one", "found ED 'one', expected a line"),
        ("ED: 1", "ED: 0", r"found ED 0\.0, ES 5\.0.*counted from 1"),
        ("ED: 1", "ED: 5", r"found ED 5\.0, ES 5\.0.*two different frames"),
        ("ES: 5", "ES: 6", "found ED 1, ES 6 and NbFrame 5, expected them to fit the 5 frames of .*_4CH_half_sequence"),
        ("NbFrame: 5", "NbFrame: 6", "found ED 1, ES 5 and NbFrame 6, expected them to fit the 5 frames"),
        ("50.0", "fast", "found FrameRate 'fast'"),
    ],
)
def test_odd_facts_are_named_with_the_file_and_what_to_do(patient, text, other, message):
    replace_text(patient / "Info_4CH.cfg", text, other)
    with pytest.raises(InputError, match=rf"patient0001/Info_4CH\.cfg: {message}.*restore"):
        find_studies(patient.parent)


def test_all_missing_files_are_listed(patient, tmp_path):
    other = save_camus(tmp_path, "patient0002")
    (patient / "Info_2CH.cfg").unlink()
    (other / "patient0002_4CH_half_sequence_gt.nii.gz").unlink()
    with pytest.raises(
        InputError, match=r"2 inputs[^$]*patient0001/Info_2CH\.cfg[^$]*patient0002_4CH_half_sequence_gt"
    ):
        find_studies(tmp_path)


def test_a_mask_on_another_grid_is_refused(patient):
    path = patient / "patient0001_4CH_half_sequence_gt.nii.gz"
    rewrite(path, np.zeros((6, 14, 4), np.float32))
    with pytest.raises(InputError, match=r"_gt\.nii\.gz: found label shape \(6, 14, 4\), expected \(6, 14, 5\)"):
        find_studies(patient.parent)


def test_a_folder_without_patients_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found no folder patient\*"):
        find_studies(tmp_path)


@pytest.fixture
def release(tmp_path):
    for number in range(1, 5):
        save_camus(tmp_path, f"patient{number:04d}", backwards=number == 2)
    save_split(tmp_path, ["patient0001", "patient0002"], ["patient0003"], ["patient0004"])
    return tmp_path


@pytest.mark.parametrize("place", [".", "database_nifti"])
def test_the_official_split_is_read_from_every_folder(release, place, monkeypatch):
    expected = [({"patient0001", "patient0002"}, {"patient0003"})]
    assert official_folds(release / place) == expected
    assert held_out_studies(release / place) == ["patient0004"]
    monkeypatch.chdir(release / place)
    assert official_folds(type(release)(".")) == expected and held_out_studies(type(release)(".")) == ["patient0004"]


def test_a_patient_in_two_lists_is_refused(release):
    replace_text(release / "database_split" / "subgroup_validation.txt", "patient0003", "patient0001")
    with pytest.raises(
        InputError, match=r"subgroup_training\.txt and .*subgroup_validation\.txt both name patient0001"
    ):
        official_folds(release)


def test_a_listed_patient_without_a_folder_is_refused(release):
    replace_text(release / "database_split" / "subgroup_training.txt", "patient0001", "patient0007")
    with pytest.raises(InputError, match=r"names 1 patients without a folder: patient0007; .*--folds study"):
        official_folds(release)


@pytest.mark.parametrize("function", [official_folds, held_out_studies])
def test_a_missing_list_among_others_is_refused(release, function):
    (release / "database_split" / "subgroup_testing.txt").unlink()
    with pytest.raises(InputError, match=r"subgroup_testing\.txt: expected one patient per line"):
        function(release)


def test_without_lists_nobody_is_held_out_and_official_folds_are_refused(patient):
    assert held_out_studies(patient.parent) == []
    with pytest.raises(InputError, match=r"found no database_split.*--folds study"):
        official_folds(patient.parent)


def test_the_dataset_has_the_official_fold_and_all_frames_in_the_order_of_time(release, tmp_path):
    info = DatasetInfo(3, NAME, LABELS, CHANNEL)
    folds, held_out = official_folds(release), held_out_studies(release)
    written = write_raw_dataset(find_studies(release), info, tmp_path, held_out=held_out, folds=folds)
    (fold,) = json.loads((written.folder / "splits_final.json").read_text())
    assert fold == {
        "train": [f"patient{n}_{view}" for n in ("0001", "0002") for view in ("2CH", "4CH")],
        "val": ["patient0003_2CH", "patient0003_4CH"],
    }
    assert written.manifest["patient0002_4CH"].labelled_frames == tuple(range(N_FRAMES))
    labels = np.asarray(nibabel.load(written.folder / "labelsTr" / "patient0002_4CH.nii.gz").dataobj).T
    assert np.array_equal(labels, frames_of("patient0002")[1])
    assert len(list((written.folder / "labelsTs").iterdir())) == 2
