import nibabel
import numpy as np
import pytest
from echo_layouts import heart, save_video

from nnunet_temporal.datasets.finished_studies import fingerprint
from nnunet_temporal.datasets.nifti import read_label_names
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.datasets.video import CHANNEL, NAME, VideoLayout, find_studies
from nnunet_temporal.errors import InputError

pytest.importorskip("av")

FRAMES, TRUTH = heart(6, (40, 48), ed=0, es=3)
IGNORE = 3


def save_masks(path, labels):
    path.parent.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(labels.T, np.eye(4)), path)


@pytest.fixture
def root(tmp_path):
    """Two videos with masks, the first on two frames only, and one without."""
    labels = np.full_like(TRUTH, IGNORE)
    labels[[0, 3]] = TRUTH[[0, 3]]
    for name in ("a.avi", "b.MP4", "c.avi"):
        save_video(tmp_path / name, FRAMES, 25, "ffv1", "gray")
    save_masks(tmp_path / "labels" / "a.nii.gz", labels)
    save_masks(tmp_path / "labels" / "b.nii.gz", TRUTH)
    return tmp_path


def studies_of(folder, **layout):
    return {study.study: study for study in find_studies(folder, VideoLayout(**layout), IGNORE)}


def test_videos_are_studies_and_masks_are_paired_by_name(root):
    studies = studies_of(root)
    assert list(studies) == ["a", "b", "c"] and studies["c"].load_labels is None
    assert np.array_equal(studies["b"].load_image(), FRAMES) and np.array_equal(studies["b"].load_labels(), TRUTH)
    assert np.all(studies["a"].load_labels()[[1, 2, 4, 5]] == IGNORE)


def test_the_interval_is_known_and_the_pixel_spacing_is_not(root):
    study = studies_of(root)["a"]
    assert study.spacing.frame_s == pytest.approx(0.04) and not study.spacing.pixel_known
    assert study.source == str(root / "a.avi")


@pytest.mark.parametrize("place", ["images", "videos"])
def test_videos_in_a_folder_below_are_found(root, place):
    (root / place).mkdir()
    (root / "a.avi").rename(root / place / "a.avi")
    assert studies_of(root)["a"].load_labels is not None


def test_the_layout_can_be_named(root):
    (root / "labels").rename(root / "masks")
    (root / "masks" / "a.nii.gz").rename(root / "masks" / "a_lv.nii.gz")
    studies = studies_of(root, labels=("masks/{name}_lv.nii.gz",), cyclic=True, view="4CH")
    assert studies["a"].load_labels is not None and studies["a"].cyclic
    assert studies["a"].view == "4CH"


def test_frames_that_are_zero_throughout_are_what_the_layout_says(root):
    labels = TRUTH.copy()
    labels[2] = 0
    save_masks(root / "labels" / "b.nii.gz", labels)
    with pytest.raises(InputError, match=r"b\.nii\.gz: 1 of 6 frames .*--empty-frames"):
        studies_of(root)["b"].load_labels()
    assert np.all(studies_of(root, empty_frames="unlabelled")["b"].load_labels()[2] == IGNORE)
    assert np.all(studies_of(root, empty_frames="background")["b"].load_labels()[2] == 0)


def test_colour_doppler_is_reported(root):
    colours = np.repeat(FRAMES[..., None], 3, axis=-1)
    colours[:, 10:20, 10:20] = (220, 40, 0)
    save_video(root / "c.avi", colours, 25, "rawvideo", "bgr24")
    with pytest.warns(UserWarning, match=r"c\.avi: 5% of the pixels are coloured; is it colour Doppler"):
        studies_of(root)


def test_the_dataset_is_written(root, tmp_path):
    info = DatasetInfo(7, NAME, read_label_names(root, ["LV", "MYO"]), CHANNEL)
    written = write_raw_dataset(studies_of(root).values(), info, tmp_path)
    assert written.manifest["a"].labelled_frames == (0, 3) and written.manifest["c"].labelled_frames == ()


def test_a_study_is_known_again(root):
    assert fingerprint(studies_of(root)["a"], {}) == fingerprint(studies_of(root)["a"], {})


def test_masks_of_another_number_of_frames_are_refused(root):
    save_masks(root / "labels" / "a.nii.gz", TRUTH[:5])
    with pytest.raises(InputError, match=r"a\.nii\.gz: found label shape \(48, 40, 5\), expected \(48, 40, 6\)"):
        studies_of(root)


def test_all_bad_videos_are_listed(root):
    for name in ("a.avi", "c.avi"):
        (root / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"2 inputs[^$]*a\.avi: the file is empty[^$]*c\.avi: the file is empty"):
        studies_of(root)


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found no video \(\.avi, \.mp4, \.gif\) in "):
        studies_of(tmp_path)
