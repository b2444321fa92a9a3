import json

import numpy as np
import pytest
from nifti_movies import save_movie, save_nifti

from nnunet_temporal.datasets.nifti import NiftiLayout, find_studies, read_label_names
from nnunet_temporal.errors import InputError


def save_labels_with_an_empty_frame(folder):
    image = save_movie(folder, "a", slices=2)
    labels = np.zeros((6, 5, 2, 4), np.uint8)
    labels[2, 2, 0, [0, 1, 3]] = 1
    save_nifti(folder / "labels" / "a.nii.gz", labels)
    return image


def test_images_and_labels_are_paired_by_name(tmp_path):
    save_movie(tmp_path, "b", slices=0, labelled=False)
    image = save_movie(tmp_path, "a")
    a, b = find_studies(tmp_path, NiftiLayout(cyclic=True), 2)
    assert (a.study, b.study) == ("a", "b") and a.cyclic and a.source == str(image.resolve())
    assert a.load_labels().shape == a.load_image().shape == (4, 2, 5, 6)
    assert b.load_labels is None and b.load_image().shape == (4, 5, 6)
    assert a.spacing.pixel_mm == (1.25, 1.5) and a.spacing.slice_mm == 10.0 and a.spacing.frame_s is None


def test_uncompressed_files_are_found_too(tmp_path):
    save_nifti(tmp_path / "images" / "a.nii", np.zeros((6, 5, 4), np.int16))
    save_nifti(tmp_path / "labels" / "a.nii", np.ones((6, 5, 4), np.uint8))
    (study,) = find_studies(tmp_path, NiftiLayout(), 2)
    assert study.load_labels().shape == (4, 5, 6)


@pytest.mark.parametrize("template", ["{name}_gt.nii.gz", "{folder}/gt.nii.gz"])
def test_other_layouts_are_given_as_pattern_and_template(tmp_path, template):
    save_nifti(tmp_path / "p1" / "p1_4d.nii.gz", np.zeros((6, 5, 2, 4), np.int16))
    labels = template.replace("{name}", "p1_4d").replace("{folder}", "p1")
    save_nifti(tmp_path / labels, np.ones((6, 5, 2, 4), np.uint8))
    (study,) = find_studies(tmp_path, NiftiLayout(("*/*_4d.nii.gz",), (template,)), 2)
    assert study.study == "p1_4d" and study.load_labels().all()


def test_label_files_that_match_the_image_pattern_are_no_images(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", np.zeros((6, 5, 4), np.int16))
    save_nifti(tmp_path / "a_gt.nii.gz", np.ones((6, 5, 4), np.uint8))
    assert [s.study for s in find_studies(tmp_path, NiftiLayout(("*.nii.gz",), ("{name}_gt.nii.gz",)), 2)] == ["a"]


def test_frames_that_are_zero_everywhere_have_to_be_explained(tmp_path):
    save_labels_with_an_empty_frame(tmp_path)
    (study,) = find_studies(tmp_path, NiftiLayout(), 2)
    with pytest.raises(InputError, match=r"1 of 4 frames .* frame 2, .*--empty-frames"):
        study.load_labels()


@pytest.mark.parametrize(("meaning", "value"), [("background", 0), ("unlabelled", 2)])
def test_zero_frames_mean_what_the_user_says(tmp_path, meaning, value):
    save_labels_with_an_empty_frame(tmp_path)
    (study,) = find_studies(tmp_path, NiftiLayout(empty_frames=meaning), 2)
    labels = study.load_labels()
    assert np.all(labels[2] == value) and labels[0].any() and np.all(labels[0, 1] == 0)


def test_a_3d_label_for_a_4d_image_is_refused(tmp_path):
    save_movie(tmp_path, "a")
    save_nifti(tmp_path / "labels" / "a.nii.gz", np.ones((6, 5, 2), np.uint8))
    with pytest.raises(InputError, match="needs a 4D label file"):
        find_studies(tmp_path, NiftiLayout(), 2)


def test_every_bad_file_is_listed(tmp_path):
    for name in ("a", "b", "c"):
        save_movie(tmp_path, name)
    save_nifti(tmp_path / "images" / "b.nii.gz", np.zeros((6, 5, 2, 0), np.int16))
    (tmp_path / "images" / "c.nii.gz").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"b\.nii\.gz: found zero frames[^$]*c\.nii\.gz: expected a readable"):
        find_studies(tmp_path, NiftiLayout(), 2)


def test_two_images_of_one_name_are_refused(tmp_path):
    for folder in ("x", "y"):
        save_nifti(tmp_path / folder / "a.nii.gz", np.zeros((6, 5, 4), np.int16))
    with pytest.raises(InputError, match="have the same name"):
        find_studies(tmp_path, NiftiLayout(images=("*/*.nii.gz",)), 2)


def test_two_images_with_one_label_file_are_refused(tmp_path):
    for name in ("a", "b"):
        save_movie(tmp_path, name)
    with pytest.raises(InputError, match="share the label file"):
        find_studies(tmp_path, NiftiLayout(labels=("labels/a.nii.gz",)), 2)


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (NiftiLayout(), "no image matches"),
        (NiftiLayout(images=("/data/*.nii.gz",)), "a pattern relative to"),
    ],
)
def test_a_layout_that_cannot_work_is_refused(tmp_path, layout, message):
    with pytest.raises(InputError) as error:
        find_studies(tmp_path, layout, 2)
    assert message in str(error.value)


def test_a_missing_input_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        find_studies(tmp_path / "nowhere", NiftiLayout(), 2)


def test_classes_are_numbered_in_order_and_ignore_comes_last(tmp_path):
    assert read_label_names(tmp_path, ["RV", "MYO"]) == {"background": 0, "RV": 1, "MYO": 2, "ignore": 3}


@pytest.mark.parametrize("extra", [{}, {"ignore": 2}])
def test_label_names_come_from_dataset_json(tmp_path, extra):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "LV": 1, **extra}}))
    assert read_label_names(tmp_path) == {"background": 0, "LV": 1, "ignore": 2}


@pytest.mark.parametrize("text", ["no json", "{}", '{"labels": {"background": 0, "heart": [1, 2]}}'])
def test_a_dataset_json_without_plain_labels_is_refused(tmp_path, text):
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(InputError, match=r"dataset\.json"):
        read_label_names(tmp_path)


def test_without_any_label_names_the_user_is_asked_for_classes(tmp_path):
    with pytest.raises(InputError, match="--classes"):
        read_label_names(tmp_path)


@pytest.mark.parametrize("classes", [["LV", "LV"], ["ignore"]])
def test_classes_that_repeat_or_are_reserved_are_refused(tmp_path, classes):
    with pytest.raises(InputError, match="expected different names"):
        read_label_names(tmp_path, classes)


@pytest.mark.parametrize("pattern", ["/images/*.nii.gz", "**x/*.nii.gz", "."])
def test_patterns_that_cannot_be_looked_for_are_refused(tmp_path, pattern):
    with pytest.raises(InputError, match=r"--images: found .*expected a pattern relative to"):
        find_studies(tmp_path, NiftiLayout(images=(pattern,)), 2)


def test_hidden_files_of_a_mac_are_passed_over(tmp_path):
    save_movie(tmp_path, "a")
    (tmp_path / "images" / "._a.nii.gz").write_bytes(b"\0\5\x16\7")
    assert [study.study for study in find_studies(tmp_path, NiftiLayout(), 2)] == ["a"]
