import numpy as np
import pytest
from camus_files import N_FRAMES, PIXEL_MM, frames_of, replace_text, save_camus_mhd, save_mhd

from nnunet_temporal.datasets.camus_mhd import CHANNEL, LABELS, NAME, find_studies, held_out_studies, official_folds
from nnunet_temporal.datasets.finished_studies import fingerprint
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.errors import InputError


@pytest.fixture
def patient(tmp_path):
    return save_camus_mhd(tmp_path / "training" / "patient0001")


def views_of(patient):
    return {source.view: source for source in find_studies(patient.parent)}


def save_folds(root, folds):
    (root / "listSubGroups").mkdir()
    for number, lists in folds.items():
        for subset, names in zip(("training", "validation", "testing"), lists, strict=True):
            (root / "listSubGroups" / f"subGroup{number}_{subset}.txt").write_text("\n".join(names) + "\n")


@pytest.mark.parametrize("backwards", [False, True])
def test_only_ed_and_es_are_labelled_in_the_order_of_time(tmp_path, backwards):
    source = views_of(save_camus_mhd(tmp_path / "patient0001", backwards))["4CH"]
    image, labels = frames_of("patient0001")
    found = source.load_labels()
    assert np.array_equal(source.load_image(), image)
    assert (source.study, source.ed, source.es, source.cyclic) == ("patient0001", 0, 3, False)
    assert np.array_equal(found[[0, 3]], labels[[0, 3]]) and np.all(found[[1, 2, 4]] == LABELS["ignore"])


def test_pixels_are_twice_as_wide_as_high_and_the_third_spacing_is_no_time(patient):
    spacing = views_of(patient)["4CH"].spacing
    assert spacing.pixel_mm == pytest.approx((PIXEL_MM / 2, PIXEL_MM))
    assert (spacing.frame_s, spacing.slice_mm) == (None, None)


def test_a_header_that_names_another_file_of_pixels_reads_that_one(patient):
    (patient / "patient0001_4CH_sequence.raw").rename(patient / "movie.raw")
    replace_text(patient / "patient0001_4CH_sequence.mhd", "patient0001_4CH_sequence.raw", "movie.raw")
    assert np.array_equal(views_of(patient)["4CH"].load_image(), frames_of("patient0001")[0])


def test_pixels_that_are_not_where_the_header_says_are_refused(patient):
    (patient / "patient0001_4CH_sequence.raw").rename(patient / "movie.raw")
    with pytest.raises(InputError, match=r"patient0001_4CH_sequence\.raw"):
        views_of(patient)


def test_all_missing_files_are_listed(patient):
    (patient / "Info_2CH.cfg").unlink()
    (patient / "patient0001_4CH_ES_gt.mhd").unlink()
    with pytest.raises(
        InputError, match=r"2 inputs[^$]*Info_2CH\.cfg[^$]*found no patient0001_4CH_ES_gt\.mhd; restore"
    ):
        views_of(patient)


def test_a_training_patient_without_masks_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found no patient0001_2CH_ED_gt\.mhd and no patient0001_2CH_ES_gt\.mhd"):
        views_of(save_camus_mhd(tmp_path / "training" / "patient0001", masked=False))


def test_a_patient_for_testing_without_masks_is_not_labelled(tmp_path):
    source = views_of(save_camus_mhd(tmp_path / "testing" / "patient0001", masked=False))["2CH"]
    assert source.load_labels is None and (source.ed, source.es) == (0, 3)


def test_a_mask_of_another_size_is_refused(patient):
    save_mhd(patient / "patient0001_4CH_ES_gt.mhd", np.ones((1, 6, 14)))
    with pytest.raises(InputError, match=r"ES_gt\.mhd: found shape \(14, 6, 1\), expected \(6, 14, 1\)"):
        views_of(patient)


@pytest.mark.parametrize(("value", "found"), [(0, "no label at all"), (4, r"label values \[4\]")])
def test_a_mask_that_holds_no_masks_of_camus_is_refused(patient, value, found):
    save_mhd(patient / "patient0001_4CH_ES_gt.mhd", np.full((1, 14, 6), value))
    with pytest.raises(InputError, match=rf"ES_gt\.mhd: found {found}"):
        views_of(patient)["4CH"].load_labels()


@pytest.fixture
def challenge(tmp_path):
    for place in ("training/patient0001", "training/patient0002", "testing/patient0001"):
        save_camus_mhd(tmp_path / place, masked="training" in place)
    return tmp_path


def test_patients_for_testing_are_held_out_and_told_from_those_of_the_same_name(challenge, tmp_path):
    studies = {source.study: source for source in find_studies(challenge)}
    assert sorted(studies) == ["patient0001", "patient0002", "testing_patient0001"]
    assert "/testing/" in studies["testing_patient0001"].source
    assert held_out_studies(challenge) == ["testing_patient0001"] and official_folds(challenge) == []
    info = DatasetInfo(3, NAME, LABELS, CHANNEL)
    written = write_raw_dataset(find_studies(challenge), info, tmp_path, held_out=held_out_studies(challenge))
    assert written.manifest["patient0002_2CH"].labelled_frames == (0, 3)
    assert (written.folder / "imagesTs" / "testing_patient0001_2CH_0000.nii.gz").is_file()
    assert not (written.folder / "labelsTs").exists()


@pytest.fixture
def folds(tmp_path):
    names = [f"patient{number:04d}" for number in range(1, 4)]
    for name in names:
        save_camus_mhd(tmp_path / name)
    one, two, three = names
    save_folds(tmp_path, {1: ([one], [two], [three]), 2: ([three], [one], [two]), 10: ([two], [three], [one])})
    return tmp_path


def test_each_official_fold_is_scored_on_its_test_patients_in_the_order_of_their_numbers(folds):
    assert official_folds(folds) == [
        ({"patient0001", "patient0002"}, {"patient0003"}),
        ({"patient0001", "patient0003"}, {"patient0002"}),
        ({"patient0002", "patient0003"}, {"patient0001"}),
    ]
    assert held_out_studies(folds) == []


def test_a_fold_that_lacks_a_list_is_refused(folds):
    (folds / "listSubGroups" / "subGroup2_testing.txt").unlink()
    with pytest.raises(InputError, match=r"subGroup2_testing\.txt: expected one patient per line"):
        official_folds(folds)


def test_a_fold_that_trains_on_a_test_patient_is_refused(folds):
    replace_text(folds / "listSubGroups" / "subGroup2_testing.txt", "patient0002", "patient0003")
    with pytest.raises(InputError, match=r"subGroup2_training\.txt and .*subGroup2_testing\.txt both name patient0003"):
        official_folds(folds)


def test_the_phases_must_be_frames_of_the_movie(patient):
    replace_text(patient / "Info_4CH.cfg", "ES: 4", f"ES: {N_FRAMES + 1}")
    with pytest.raises(InputError, match=r"Info_4CH\.cfg: found ED 1, ES 6 and NbFrame 5"):
        views_of(patient)


@pytest.mark.parametrize("name", ["patient0001_4CH_sequence.raw", "patient0001_4CH_ES_gt.raw"])
def test_a_study_whose_pixels_have_changed_is_another(patient, name):
    before = fingerprint(views_of(patient)["4CH"], LABELS)
    assert before == fingerprint(views_of(patient)["4CH"], LABELS)
    (patient / name).write_bytes((patient / name).read_bytes()[::-1] + b"0")
    assert before != fingerprint(views_of(patient)["4CH"], LABELS)
