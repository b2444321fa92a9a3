"""The check of a raw dataset before any long work: every error, and all of them at once."""

import json
import multiprocessing.dummy
import os

import nibabel
import numpy as np
import pytest
from nifti_movies import save_nifti
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from phantom_dataset import write_phantom

from nnunet_temporal.datasets import integrity
from nnunet_temporal.datasets.integrity import check_raw_dataset, manifest_of
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """Write the phantom's raw dataset."""
    # nnU-Net lists files with 12 processes; threads do it in a tenth of the time.
    monkeypatch.setattr("nnunetv2.utilities.utils.Pool", multiprocessing.dummy.Pool)
    return write_phantom(tmp_path)


def image_path(raw, case):
    """Return the image file of a training case."""
    return raw / "imagesTr" / f"{case}_0000.nii.gz"


def label_path(raw, case):
    """Return the label file of a training case."""
    return raw / "labelsTr" / f"{case}.nii.gz"


def edit(path, change):
    """Replace the pixels (x, y, t) of a file by what ``change`` returns for them."""
    image = nibabel.load(path)
    pixels = change(np.asanyarray(image.dataobj).copy())
    nibabel.save(nibabel.Nifti1Image(pixels, image.affine), path)


def set_pixel(index, value):
    """Return a change of one pixel or frame."""

    def change(pixels):
        pixels[index] = value
        return pixels

    return change


def edit_json(path, **entries):
    """Replace entries of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def test_a_good_dataset_passes_and_gives_the_manifest_of_its_training_cases(raw):
    manifest = check_raw_dataset(raw)
    assert sorted(manifest) == sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    assert manifest["study_a_z00"].labelled_frames == (0, 4)


def test_a_dataset_without_a_manifest_passes(raw):
    os.remove(raw / MANIFEST_NAME)
    assert check_raw_dataset(raw)["study_a_z00"].labelled_frames == (0, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_reported_with_their_frames(raw, value):
    edit(image_path(raw, "study_a_z00"), set_pixel((3, 4, [2, 5]), value))
    with pytest.raises(InputError, match=r"study_a_z00_0000\.nii\.gz.*NaN or infinity in frames \[2, 5\]"):
        check_raw_dataset(raw)


@pytest.mark.parametrize("axis", [0, 2])
def test_a_label_on_another_grid_is_reported_with_both_shapes(raw, axis):
    edit(label_path(raw, "study_a_z00"), lambda pixels: np.delete(pixels, -1, axis))
    shape = r"\(8, 40, 35\)" if axis == 0 else r"\(7, 40, 36\)"
    with pytest.raises(InputError, match=rf"study_a_z00\.nii\.gz.*{shape}.*\(8, 40, 36\)"):
        check_raw_dataset(raw)


def test_a_label_of_one_frame_for_a_movie_is_reported(raw):
    edit(label_path(raw, "study_a_z00"), lambda pixels: pixels[..., :1])
    with pytest.raises(InputError, match=r"study_a_z00\.nii\.gz"):
        check_raw_dataset(raw)


def test_unknown_label_values_are_reported_with_the_known_ones(raw):
    edit(label_path(raw, "study_b_z01"), set_pixel((3, 4, 0), 9))
    with pytest.raises(InputError, match=r"study_b_z01\.nii\.gz.*\[9(\.0)?\].*\[0, 1, 2, 3\]"):
        check_raw_dataset(raw)


def test_the_values_of_regions_are_known_labels(raw):
    regions = {"background": 0, "epicardium": [1, 2], "LV": [1], "ignore": 3}
    edit_json(raw / "dataset.json", labels=regions, regions_class_order=[2, 1])
    assert len(check_raw_dataset(raw)) == 8


def test_a_dataset_without_any_labelled_frame_is_refused(raw):
    for path in (raw / "labelsTr").iterdir():
        edit(path, lambda pixels: np.full_like(pixels, 3))
    manifest = Manifest.load(raw)
    Manifest({case: Sequence(case, s.study, s.n_frames, (), slice=s.slice) for case, s in manifest.items()}).write(
        raw / MANIFEST_NAME
    )
    with pytest.raises(InputError, match="none of its 8 training sequences has a labelled frame"):
        check_raw_dataset(raw)


def test_a_frame_called_labelled_without_a_labelled_pixel_is_reported(raw):
    edit(label_path(raw, "study_a_z00"), set_pixel((slice(None), slice(None), 4), 3))
    with pytest.raises(InputError, match=r"study_a_z00\.nii\.gz.*frames \[4\] labelled.*'ignore'"):
        check_raw_dataset(raw)


def test_a_frame_whose_mask_is_all_background_is_labelled(raw):
    edit(label_path(raw, "study_a_z00"), set_pixel((slice(None), slice(None), 4), 0))
    assert check_raw_dataset(raw)["study_a_z00"].labelled_frames == (0, 4)


def test_a_number_of_frames_other_than_the_manifests_is_reported(raw):
    for path in (image_path(raw, "study_a_z00"), label_path(raw, "study_a_z00")):
        edit(path, lambda pixels: pixels[..., :6])
    with pytest.raises(InputError, match=r"study_a_z00_0000\.nii\.gz.*has 6 frames.*says 8"):
        check_raw_dataset(raw)


def test_a_training_case_the_manifest_does_not_know_is_named(raw):
    manifest = Manifest.load(raw)
    manifest.subset(case for case in manifest if case != "study_b_z00").write(raw / MANIFEST_NAME)
    with pytest.raises(InputError, match=r"sequences\.json.*study_b_z00"):
        manifest_of(raw)


def test_a_missing_label_file_is_named_with_the_way_out(raw):
    os.remove(label_path(raw, "study_a_z00"))
    with pytest.raises(InputError, match=r"study_a_z00\.nii\.gz is missing.*all-ignore"):
        check_raw_dataset(raw)


def test_a_missing_label_file_is_named_also_without_a_manifest(raw):
    os.remove(raw / MANIFEST_NAME)
    os.remove(label_path(raw, "study_a_z00"))
    with pytest.raises(InputError, match=r"study_a_z00.*(missing|label)"):
        check_raw_dataset(raw)


def test_a_missing_dataset_json_is_named(raw):
    os.remove(raw / "dataset.json")
    with pytest.raises(InputError, match=r"dataset\.json is missing"):
        check_raw_dataset(raw)


def test_a_dataset_json_that_is_no_json_is_named(raw):
    (raw / "dataset.json").write_text("{")
    with pytest.raises(InputError, match=r"dataset\.json"):
        check_raw_dataset(raw)


@pytest.mark.parametrize("content", ["[]", "5", '{"file_ending": ".nii.gz"}', '{"labels": {"background": 0}}'])
def test_a_dataset_json_without_nnunets_entries_is_named(raw, content):
    (raw / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=r"dataset\.json: found .*expected.*'file_ending', 'labels'"):
        manifest_of(raw)


def test_a_dataset_without_images_is_refused(raw):
    for path in (raw / "imagesTr").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="no training images"):
        check_raw_dataset(raw)


def test_an_unsplit_4d_image_is_reported_with_what_to_do(raw):
    edit(image_path(raw, "study_a_z00"), lambda pixels: np.stack([pixels] * 3, 2))
    with pytest.raises(InputError, match=r"study_a_z00_0000\.nii\.gz.*split"):
        check_raw_dataset(raw)


def test_an_unsplit_4d_image_with_a_4d_label_is_reported_with_what_to_do(raw):
    for path in (image_path(raw, "study_a_z00"), label_path(raw, "study_a_z00")):
        edit(path, lambda pixels: np.stack([pixels] * 3, 2))
    with pytest.raises(InputError, match=r"study_a_z00_0000\.nii\.gz.*split"):
        check_raw_dataset(raw)


def test_a_4d_dataset_without_a_manifest_is_refused(raw):
    os.remove(raw / MANIFEST_NAME)
    for path in [*(raw / "imagesTr").iterdir(), *(raw / "labelsTr").iterdir()]:
        edit(path, lambda pixels: np.stack([pixels] * 3, 2))
    with pytest.raises(InputError, match=r"split"):
        check_raw_dataset(raw)


def test_a_label_with_a_slice_axis_of_its_own_is_reported(raw):
    edit(label_path(raw, "study_a_z00"), lambda pixels: np.stack([pixels] * 3, 2))
    with pytest.raises(InputError, match=r"study_a_z00\.nii\.gz"):
        check_raw_dataset(raw)


def test_an_unreadable_image_is_reported(raw):
    image_path(raw, "study_b_z00").write_bytes(b"not a NIfTI file")
    with pytest.raises(InputError, match=r"study_b_z00_0000\.nii\.gz: cannot be read"):
        check_raw_dataset(raw)


def test_the_reader_is_found_although_the_first_image_is_unreadable(raw):
    image_path(raw, "study_a_z00").write_bytes(b"not a NIfTI file")
    with pytest.raises(InputError, match=r"study_a_z00_0000\.nii\.gz"):
        check_raw_dataset(raw)


def test_all_problems_are_listed_at_once(raw):
    edit(image_path(raw, "study_a_z00"), set_pixel((3, 4, 2), np.nan))
    edit(label_path(raw, "study_a_z01"), set_pixel((3, 4, 0), 9))
    edit(label_path(raw, "study_b_z00"), lambda pixels: pixels[..., :-1])
    os.remove(label_path(raw, "study_c_z00"))
    with pytest.raises(InputError) as raised:
        check_raw_dataset(raw)
    message = str(raised.value)
    assert message.startswith("4 inputs cannot be used:")
    for file in ("study_a_z00_0000.nii.gz", "study_a_z01.nii.gz", "study_b_z00.nii.gz", "study_c_z00.nii.gz"):
        assert file in message


def test_one_frame_sequences_are_fine(raw):
    entries = json.loads((raw / MANIFEST_NAME).read_text())
    for case in list(check_raw_dataset(raw)):
        for path in (image_path(raw, case), label_path(raw, case)):
            edit(path, lambda pixels: pixels[..., :1])
        labelled = [0] if entries["sequences"][case]["labelled_frames"] else []
        entries["sequences"][case].update(n_frames=1, labelled_frames=labelled, ed=None, es=None)
    (raw / MANIFEST_NAME).write_text(json.dumps(entries))
    assert check_raw_dataset(raw)["study_a_z00"].n_frames == 1


def test_held_out_studies_are_not_checked(raw):
    (raw / "imagesTs" / "study_x_z00_0000.nii.gz").write_bytes(b"")
    assert not any(case.startswith("study_x") for case in check_raw_dataset(raw))


def test_a_direction_that_nnunets_reader_refuses_is_reported(raw):
    image = nibabel.load(image_path(raw, "study_b_z00"))
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    image = nibabel.Nifti1Image(np.asanyarray(image.dataobj), sheared)
    image.set_qform(None, code=0)
    nibabel.save(image, image_path(raw, "study_b_z00"))
    with pytest.raises(InputError, match=r"study_b_z00_0000\.nii\.gz: cannot be read[^$]*orthonormal"):
        check_raw_dataset(raw)


def test_channels_of_different_spacing_are_reported(raw):
    edit_json(raw / "dataset.json", channel_names={"0": "cineMRI", "1": "T1"})
    for path in list((raw / "imagesTr").iterdir()):
        zooms = (2.0, 2.0, 10.0) if path.name == "study_b_z00_0000.nii.gz" else nibabel.load(path).header.get_zooms()
        second = path.with_name(path.name.replace("_0000", "_0001"))
        save_nifti(second, np.asanyarray(nibabel.load(path).dataobj), zooms)
        save_nifti(path, np.asanyarray(nibabel.load(path).dataobj), nibabel.load(path).header.get_zooms())
    with pytest.raises(InputError, match=r"^\S*study_b_z00_0000\.nii\.gz: cannot .*channels differ in size or spacing"):
        check_raw_dataset(raw)


def test_each_file_is_decoded_and_listed_once(raw, monkeypatch):
    opened, listed = [], []

    def count(function, calls):
        return lambda *arguments: calls.append(arguments[0]) or function(*arguments)

    monkeypatch.setattr(integrity, "open_nifti", count(integrity.open_nifti, opened))
    name = "get_filenames_of_train_images_and_targets"
    monkeypatch.setattr(integrity, name, count(integrity.get_filenames_of_train_images_and_targets, listed))
    check_raw_dataset(raw)
    assert sorted(opened) == sorted([*(raw / "imagesTr").iterdir(), *(raw / "labelsTr").iterdir()])
    assert listed == [str(raw)]


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 1), (6, 5, 4), (6, 5, 4, 1), (6, 5, 2, 4)])
def test_the_check_reads_what_nnunets_reader_reads(tmp_path, shape):
    image = nibabel.Nifti1Image(np.random.default_rng(0).integers(0, 99, shape).astype(np.int16), np.eye(4))
    image.header.set_slope_inter(0.5, -3.0)
    path = str(tmp_path / "a.nii.gz")
    nibabel.save(image, path)
    found = integrity._NanKeepingReader().read_images([path])[0]
    expected = SimpleITKIO().read_images([path])[0]
    assert found.dtype == expected.dtype and np.array_equal(found, expected)
