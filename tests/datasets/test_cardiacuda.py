import nibabel
import numpy as np
import pytest
from echo_layouts import heart
from scipy.ndimage import binary_erosion

from nnunet_temporal.datasets.cardiacuda import CHANNEL, LABELS, NAME, VIEW_LABELS, find_studies, held_out_studies
from nnunet_temporal.datasets.finished_studies import fingerprint
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.errors import InputError

SIZE = (60, 80)


def save_nifti(path, frames, zooms=(1.0, 1.0, 1.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(frames.T, np.diag([-1.0, -1.0, 1.0, 1.0]))
    image.header.set_zooms(zooms[: frames.ndim])
    nibabel.save(image, path)


def chambers(n_frames=9):
    """Return frames and labels LV 1, LA 2, RA 3, RV 4: four quarters of a growing and shrinking rectangle."""
    frames, labels = heart(n_frames, SIZE, ed=0, es=4)[0], np.zeros((n_frames, *SIZE), np.uint8)
    for t in range(n_frames):
        half = 20 - abs(4 - t)
        for value, y, x in ((1, 30 - half, 41), (2, 31, 41), (3, 31, 40 - half), (4, 30 - half, 40 - half)):
            labels[t, y : y + half, x : x + half] = value
    return frames, labels


def save_pair(folder, name, frames, labels):
    save_nifti(folder / f"{name}_image.nii.gz", frames)
    save_nifti(folder / f"{name}_label.nii.gz", labels)
    return folder / f"{name}_label.nii.gz"


def sparse(labels):
    labels = labels.copy()
    labels[[t for t in range(len(labels)) if t % 4]] = 0
    return labels


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "cardiacUDC_dataset"
    frames, labels = chambers()
    for k, site in enumerate(("Site_G_20", "Site_R_52")):
        save_pair(folder / site, "patient-1-4", frames + np.uint8(k), sparse(labels))
        save_pair(folder / site, "patient-1-1", frames, sparse(labels * (labels < 3)))
    save_pair(folder / "label_all_frame", "normal-23-4", frames + np.uint8(5), labels)
    return folder


def label_file(root, site="Site_G_20", name="patient-1-4"):
    return root / site / f"{name}_label.nii.gz"


def studies_of(folder, **options):
    return {study.study: study for study in find_studies(folder, **options)}


@pytest.mark.parametrize("place", [".", "cardiacUDC_dataset"])
def test_patients_are_named_by_folder_and_only_one_view_is_taken(root, place):
    studies = studies_of(root.parent / place)
    assert set(studies) == {"Site_G_20_patient-1", "Site_R_52_patient-1", "label_all_frame_normal-23"}
    assert {study.view for study in studies.values()} == {"A4C"}


def test_frames_that_are_zero_throughout_are_unlabelled(root):
    labels = studies_of(root)["Site_G_20_patient-1"].load_labels()
    assert np.flatnonzero((labels != 5).any(axis=(1, 2))).tolist() == [0, 4, 8]
    assert np.array_equal(labels[4], chambers()[1][4])


def test_a_frame_of_a_few_labelled_pixels_is_unlabelled(root):
    labels = sparse(chambers()[1])
    labels[1, 10:20, 10:20] = 1
    labels[2, 10:20, 10:21] = 1
    save_nifti(label_file(root), labels)
    found = studies_of(root)["Site_G_20_patient-1"].load_labels()
    assert np.all(found[1] == 5) and np.count_nonzero(found[2] == 1) == 110


def test_with_all_frames_labelled_all_are_and_the_study_is_held_out(root):
    labels = studies_of(root)["label_all_frame_normal-23"].load_labels()
    assert np.array_equal(labels, chambers()[1])
    assert held_out_studies(root) == ["label_all_frame_normal-23"]


def test_label_values_are_those_of_the_view(root):
    assert VIEW_LABELS["LVLA"] == {"background": 0, "LV": 1, "RV": 2, "ignore": 3}
    study = studies_of(root, view="LVLA")["Site_G_20_patient-1"]
    labels = study.load_labels()
    assert study.view == "LVLA" and set(np.unique(labels[4])) == {0, 1, 2} and np.all(labels[1] == 3)


def test_outlines_are_filled_label_by_label(root):
    labels = sparse(chambers()[1])
    outlines = labels.copy()
    for t in (0, 4, 8):
        for value in (1, 2, 3, 4):
            region = labels[t] == value
            outlines[t][binary_erosion(region)] = 0
    assert np.count_nonzero(outlines) < np.count_nonzero(labels) / 2
    save_nifti(label_file(root), outlines)
    found = studies_of(root)["Site_G_20_patient-1"].load_labels()
    for t in (0, 4, 8):
        assert np.array_equal(found[t], labels[t])


def test_an_outline_around_another_label_does_not_cover_it(root):
    labels = np.zeros((9, *SIZE), np.uint8)
    labels[0, 10:50, 10:60] = 4
    labels[0, 12:48, 12:58] = 0
    labels[0, 20:30, 20:30] = 1
    save_nifti(label_file(root), labels)
    found = studies_of(root)["Site_G_20_patient-1"].load_labels()[0]
    assert np.count_nonzero(found == 1) == 100 and np.count_nonzero(found == 4) == 40 * 50 - 100


def test_an_outline_that_is_not_closed_is_refused(root):
    labels = np.zeros((9, *SIZE), np.uint8)
    labels[0, 10:50, 10:60] = 4
    labels[0, 12:50, 12:58] = 0
    save_nifti(label_file(root), labels)
    with pytest.raises(InputError, match=r"frame 0, counted from 0: found only a line of label 4 .* remove the label"):
        studies_of(root)["Site_G_20_patient-1"].load_labels()


def test_stray_values_carry_the_ignore_label_and_are_reported(root):
    labels = sparse(chambers()[1])
    labels[4][labels[4] == 4] = 6
    save_nifti(label_file(root), labels)
    with pytest.warns(UserWarning, match=r"label\.nii\.gz: found label values \[6\], which are left out"):
        found = studies_of(root)["Site_G_20_patient-1"].load_labels()
    assert np.array_equal(found[4] == 5, labels[4] == 6) and np.array_equal(found[0], labels[0])


def test_labels_stored_as_floats_are_fine(root):
    save_nifti(label_file(root), sparse(chambers()[1]).astype(np.float32))
    assert studies_of(root)["Site_G_20_patient-1"].load_labels().dtype == np.uint8


def test_a_file_of_two_axes_is_a_movie_of_one_frame(root):
    frames, labels = chambers()
    save_pair(root / "Site_G_20", "patient-2-4", frames[4], labels[4])
    study = studies_of(root)["Site_G_20_patient-2"]
    assert np.array_equal(study.load_image(), frames[4:5]) and np.array_equal(study.load_labels(), labels[4:5])


def test_a_video_without_labels_is_unlabelled(root):
    label_file(root).unlink()
    assert studies_of(root)["Site_G_20_patient-1"].load_labels is None


def test_a_video_that_is_among_the_fully_labelled_ones_too_is_taken_from_there(root):
    frames, labels = chambers()
    save_pair(root / "Site_R_52", "normal-23-4", frames + np.uint8(5), sparse(labels))
    assert "Site_R_52_normal-23" not in studies_of(root)
    save_pair(root / "Site_R_52", "normal-23-4", frames + np.uint8(6), sparse(labels))
    assert "Site_R_52_normal-23" in studies_of(root)


@pytest.mark.parametrize(("zooms", "known"), [((1.0, 1.0, 1.0), False), ((0.4, 0.5, 1.0), True)])
def test_pixels_of_1_mm_are_a_placeholder_and_the_interval_is_unknown(root, zooms, known):
    save_nifti(root / "Site_G_20" / "patient-1-4_image.nii.gz", chambers()[0], zooms)
    image = nibabel.load(root / "Site_G_20" / "patient-1-4_image.nii.gz")
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), image.get_filename())
    spacing = studies_of(root)["Site_G_20_patient-1"].spacing
    assert spacing.pixel_known is known and spacing.frame_s is None


def test_the_dataset_is_written(root, tmp_path):
    info = DatasetInfo(7, NAME, LABELS, CHANNEL)
    written = write_raw_dataset(find_studies(root), info, tmp_path, held_out=held_out_studies(root))
    assert written.manifest["Site_G_20_patient-1_A4C"].labelled_frames == (0, 4, 8)
    assert (written.folder / "labelsTs" / "label_all_frame_normal-23_A4C.nii.gz").is_file()


def test_a_study_is_known_again(root):
    first, again = (studies_of(root)["Site_G_20_patient-1"] for _ in range(2))
    assert fingerprint(first, LABELS) == fingerprint(again, LABELS)


def test_labels_of_another_shape_are_refused(root):
    save_nifti(label_file(root), chambers()[1][:8])
    with pytest.raises(InputError, match=r"found label shape \(80, 60, 8\), expected \(80, 60, 9\)"):
        find_studies(root)


def test_files_that_are_cut_off_are_refused(root):
    path = label_file(root)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match="may be cut off"):
        studies_of(root)["Site_G_20_patient-1"].load_labels()


def test_a_folder_without_videos_of_the_view_is_refused(root):
    with pytest.raises(InputError, match=r"found no Site_\*/<patient>-3_image\.nii\.gz"):
        find_studies(root, "LVSA")


def test_hidden_files_of_a_mac_are_passed_over(root):
    before = studies_of(root).keys()
    (root / "Site_G_20" / "._patient-1-4_image.nii.gz").write_bytes(b"\0\5\x16\7")
    assert studies_of(root).keys() == before


def test_a_still_whose_header_asks_for_more_than_the_file_holds_is_refused(root):
    path = root / "Site_G_20" / "patient-7-4_image.nii"
    save_nifti(path, np.zeros(SIZE, np.uint8))
    content = bytearray(path.read_bytes())
    content[42:46] = b"\xff\x7f\xff\x7f"
    path.write_bytes(content)
    with pytest.raises(InputError, match="found a header for"):
        find_studies(root)
