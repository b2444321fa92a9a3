import json

import nibabel
import numpy as np
import pytest
from nifti_movies import save_nifti

from nnunet_temporal.datasets.image_io import read_image, write_sequence
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.study import merge_slices, merge_studies, merge_study, split_studies, split_study
from nnunet_temporal.sequences import Manifest

OBLIQUE = np.array([[1.2, 0.3, -2.0, 7.0], [-0.4, 1.3, 3.0, -9.5], [0.2, -0.5, 7.0, 31.0], [0, 0, 0, 1.0]])


def movie(*shape):
    return np.random.default_rng(0).integers(0, 5, shape).astype(np.int16)


def save_oblique(path):
    """A 4D file with what a scanner sets: oblique sform and qform of different codes, units, window, scaling."""
    image = nibabel.Nifti1Image(movie(6, 5, 3, 4), OBLIQUE)
    image.set_sform(OBLIQUE, code=1)
    image.set_qform(np.diag([1.5, 1.25, 10.0, 1.0]), code=2)
    image.header.set_zooms((1.5, 1.25, 10.0, 0.04))
    image.header.set_xyzt_units("mm", "sec")
    image.header["cal_max"] = 900.0
    nibabel.save(image, path)
    return path


def predict(sequences, masks, value=None):
    """Write as masks what a network would return: here the grey values themselves."""
    masks.mkdir(exist_ok=True)
    for path in sequences.glob("*_0000.nii.gz"):
        pixels = read_image(path).astype(int) if value is None else np.full(read_image(path).shape, value)
        mask_path = masks / path.name.replace("_0000", "")
        write_sequence(pixels, tuple(float(z) for z in nibabel.load(path).header.get_zooms()[1::-1]), mask_path)
    return masks


@pytest.fixture
def case(tmp_path):
    """A 4D movie split into sequences, with a mask for each."""
    original = save_nifti(tmp_path / "in" / "a.nii.gz", movie(6, 5, 3, 4))
    split_studies([original], tmp_path / "seq")
    predict(tmp_path / "seq", tmp_path / "masks")
    return tmp_path


def header_fields(path):
    header = nibabel.load(path).header
    names = ("pixdim", "qform_code", "sform_code", "quatern_b", "qoffset_x", "srow_x", "srow_y", "srow_z", "xyzt_units")
    return [np.asarray(header[name]).tolist() for name in (*names, "dim")]


def test_a_4d_movie_becomes_one_sequence_per_slice_and_a_manifest(tmp_path):
    on_disk = movie(6, 5, 3, 4)
    original = save_nifti(tmp_path / "a.nii.gz", on_disk)
    manifest = split_studies([original], tmp_path / "seq")
    assert manifest.sequences == Manifest.load(tmp_path / "seq").sequences
    assert [(s.case, s.slice, s.n_frames) for s in manifest.values()] == [(f"a_z0{z}", z, 4) for z in range(3)]
    assert manifest["a_z01"].source == str(original.resolve()) and manifest["a_z01"].labelled_frames == ()
    pixels = read_image(tmp_path / "seq" / "a_z01_0000.nii.gz")
    assert np.array_equal(pixels, on_disk[:, :, 1].transpose(2, 1, 0))


def test_a_3d_movie_becomes_one_sequence(tmp_path):
    manifest = split_studies([save_nifti(tmp_path / "a.nii", movie(6, 5, 4))], tmp_path / "seq")
    assert list(manifest) == ["a"] and (tmp_path / "seq" / "a_0000.nii.gz").is_file()


def test_splitting_again_is_fine_but_a_folder_of_other_sequences_is_refused(tmp_path):
    originals = [save_nifti(tmp_path / f"{name}.nii.gz", movie(6, 5, 4)) for name in "ab"]
    for _ in range(2):
        split_studies(originals[:1], tmp_path / "seq")
    with pytest.raises(InputError, match="holds other sequences already"):
        split_studies(originals[1:], tmp_path / "seq")


def test_colliding_case_names_are_refused(tmp_path):
    originals = [
        save_nifti(tmp_path / "a.nii.gz", movie(6, 5, 2, 4)),
        save_nifti(tmp_path / "a_z01.nii.gz", movie(6, 5, 4)),
    ]
    with pytest.raises(InputError, match="both lead to case 'a_z01'"):
        split_studies(originals, tmp_path / "seq")


def test_all_bad_files_are_listed_before_anything_is_written(tmp_path):
    good, empty = (save_nifti(tmp_path / f"{n}.nii.gz", movie(6, 5, t)) for n, t in (("good", 4), ("empty", 0)))
    holes = save_nifti(tmp_path / "holes.nii.gz", np.full((6, 5, 4), np.nan, np.float32))
    with pytest.raises(InputError, match=r"empty\.nii\.gz: found zero frames[^$]*holes\.nii\.gz: found 120 NaN"):
        split_studies([good, empty, holes], tmp_path / "seq")
    assert not (tmp_path / "seq").exists()


def test_nothing_to_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="no NIfTI file"):
        split_studies([], tmp_path / "seq")


def test_slices_in_memory_become_a_study():
    slices = {z: np.full((4, 5, 6), z) for z in (2, 0, 1)}
    study = merge_slices(slices)
    assert study.shape == (4, 3, 5, 6) and all(np.all(study[:, z] == z) for z in range(3))


@pytest.mark.parametrize(
    ("slices", "message"),
    [
        ({0: np.zeros((4, 5, 6)), 2: np.zeros((4, 5, 6))}, r"slices \[1\] are missing"),
        ({0: np.zeros((4, 5, 6)), 1: np.zeros((3, 5, 6))}, "different shapes"),
        ({}, r"slices \[0\] are missing"),
    ],
)
def test_slices_that_do_not_fit_are_refused(slices, message):
    with pytest.raises(InputError, match=message):
        merge_slices(slices)


@pytest.mark.parametrize("kind", ["oblique", "unit sform", "sequence", "one frame", "five axes"])
def test_split_and_merge_return_voxels_grid_and_header_of_the_original(tmp_path, kind):
    shapes = {
        "unit sform": (6, 5, 3, 4),
        "sequence": (6, 5, 4),
        "one frame": (6, 5, 3, 1),
        "five axes": (6, 5, 3, 4, 1),
    }
    original = tmp_path / "a.nii.gz"
    if kind == "oblique":
        save_oblique(original)
    else:
        zooms = (1.5, 1.25, 10.0, 1.0, 1.0)
        save_nifti(original, movie(*shapes[kind]), zooms)
    split_studies([original], tmp_path / "seq")
    (merged,) = merge_studies(predict(tmp_path / "seq", tmp_path / "masks"), tmp_path / "out", tmp_path / "seq")
    assert merged == tmp_path / "out" / "a.nii.gz"
    before, after = nibabel.load(original), nibabel.load(merged)
    assert np.array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj))
    assert np.array_equal(after.affine, before.affine) and header_fields(merged) == header_fields(original)


def test_a_merged_file_has_a_label_type_and_no_scaling_or_window_of_the_image(tmp_path):
    original = save_oblique(tmp_path / "a.nii.gz")
    split_studies([original], tmp_path / "seq")
    (merged,) = merge_studies(predict(tmp_path / "seq", tmp_path / "masks"), tmp_path / "out", tmp_path / "seq")
    header = nibabel.load(merged).header
    assert header.get_data_dtype() == np.uint8 and header["cal_max"] == 0
    proxy = nibabel.load(merged).dataobj
    assert (proxy.slope, proxy.inter) == (1.0, 0.0)


def test_labels_above_255_get_a_wider_type(tmp_path):
    original = save_nifti(tmp_path / "a.nii.gz", movie(6, 5, 2, 4))
    split_studies([original], tmp_path / "seq")
    masks = predict(tmp_path / "seq", tmp_path / "masks", value=300)
    (merged,) = merge_studies(masks, tmp_path / "out", tmp_path / "seq")
    assert nibabel.load(merged).get_data_dtype() == np.uint16


def test_one_study_can_be_split_and_merged_alone(tmp_path):
    original = save_nifti(tmp_path / "a.nii.gz", movie(6, 5, 2, 4))
    (tmp_path / "seq").mkdir()
    paths = split_study(original, tmp_path / "seq")
    merge_study(dict(enumerate(paths)), original, tmp_path / "merged.nii.gz")
    assert np.array_equal(read_image(tmp_path / "merged.nii.gz"), read_image(original))


def test_the_predicted_folder_is_read_from_the_record_of_nnunet(case):
    record = {"list_of_lists_or_source_folder": str(case / "seq")}
    (case / "masks" / "predict_from_raw_data_args.json").write_text(json.dumps(record))
    for name in ("dataset.json", "plans.json", "a_z00.npz", "a_z00.pkl"):
        (case / "masks" / name).touch()
    assert merge_studies(case / "masks", case / "out")[0].is_file()


def test_a_record_that_lists_files_names_their_folder(case):
    record = {"list_of_lists_or_source_folder": [[str(case / "seq" / "a_z00_0000.nii.gz")]]}
    (case / "masks" / "predict_from_raw_data_args.json").write_text(json.dumps(record))
    assert merge_studies(case / "masks", case / "out")[0].is_file()


@pytest.mark.parametrize("record", [None, "no json", "{}", '{"list_of_lists_or_source_folder": "/nowhere/at/all"}'])
def test_without_a_usable_record_the_user_is_asked_for_the_sequences(case, record):
    if record is not None:
        (case / "masks" / "predict_from_raw_data_args.json").write_text(record)
    with pytest.raises(InputError, match="with -s"):
        merge_studies(case / "masks", case / "out")


def test_a_manifest_above_the_images_of_a_raw_dataset_is_found(case):
    (case / "seq" / "sequences.json").rename(case / "sequences.json")
    assert merge_studies(case / "masks", case / "out", case / "seq")[0].is_file()


def test_studies_that_were_not_predicted_are_left_out(case):
    manifest = Manifest.load(case / "seq")
    other = split_studies([save_nifti(case / "b.nii.gz", movie(6, 5, 4))], case / "other")
    Manifest({**manifest.sequences, **other.sequences}).write(case / "seq" / "sequences.json")
    assert [path.name for path in merge_studies(case / "masks", case / "out", case / "seq")] == ["a.nii.gz"]


def test_a_missing_slice_is_named_and_nothing_is_written(case):
    (case / "masks" / "a_z01.nii.gz").unlink()
    with pytest.raises(InputError, match=r"masks are missing.*a_z01\.nii\.gz"):
        merge_studies(case / "masks", case / "out", case / "seq")
    assert not (case / "out").exists()


def test_a_study_without_any_mask_is_named(case):
    split_studies([case / "in" / "a.nii.gz", save_nifti(case / "b.nii.gz", movie(6, 5, 4))], case / "seq")
    with pytest.raises(InputError, match=r"b\.nii\.gz: cannot be merged"):
        merge_studies(case / "masks", case / "out", case / "seq")


@pytest.mark.parametrize(
    ("shape", "spacing", "message"),
    [
        ((3, 5, 6), (1.25, 1.5), r"a_z01\.nii\.gz: found 3 frames"),
        ((4, 6, 5), (1.25, 1.5), r"a_z01\.nii\.gz: found 4 frames of \(6, 5\)"),
        ((4, 5, 6), (1.5, 1.25), r"a_z01\.nii\.gz: found pixel spacing"),
    ],
)
def test_a_mask_on_another_grid_is_named(case, shape, spacing, message):
    write_sequence(np.zeros(shape, np.uint8), spacing, case / "masks" / "a_z01.nii.gz")
    with pytest.raises(InputError, match=message):
        merge_studies(case / "masks", case / "out", case / "seq")


def test_a_mask_of_an_unknown_case_is_named(case):
    write_sequence(np.zeros((4, 5, 6), np.uint8), (1.25, 1.5), case / "masks" / "x.nii.gz")
    with pytest.raises(InputError, match=r"unknown cases \['x'\]"):
        merge_studies(case / "masks", case / "out", case / "seq")


def test_a_folder_without_masks_is_refused(case):
    with pytest.raises(InputError, match="found no masks"):
        merge_studies(case, case / "out", case / "seq")


def test_an_original_that_is_gone_is_named(case):
    (case / "in" / "a.nii.gz").unlink()
    with pytest.raises(InputError, match=r"in/a\.nii\.gz: expected a readable NIfTI"):
        merge_studies(case / "masks", case / "out", case / "seq")


def test_the_original_is_never_overwritten(case):
    with pytest.raises(InputError, match="would overwrite the original"):
        merge_studies(case / "masks", case / "in", case / "seq")
