"""Given masks of a study: which frames count as given, and what is refused in words that name the file."""

import re

import nibabel
import numpy as np
import pytest
from nifti_movies import save_nifti

from nnunet_temporal.datasets.image_io import read_header
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.propagation.route import Place
from nnunet_temporal.inference.propagation.seeds import find_seed_file, read_seeds

IGNORE = 3
SHAPE = (6, 5, 2, 4)  # (x, y, z, t) on disk
OBLIQUE = np.array([[1.2, 0.3, -2.0, 7.0], [-0.4, 1.3, 3.0, -9.5], [0.2, -0.5, 7.0, 31.0], [0, 0, 0, 1.0]])


def drawn(shape, *frames):
    """Return label values with an own pattern in each frame named by its indices after (x, y)."""
    masks = np.zeros(shape, np.uint8)
    for number, frame in enumerate(frames):
        masks[(slice(1, 4), slice(number % 3, 4), *frame)] = 1
        masks[(1, 3, *frame)] = 2
    return masks


@pytest.fixture
def study(tmp_path):
    """Return a movie with a unit sform, as ACDC has it."""
    return save_nifti(tmp_path / "movie.nii.gz", np.zeros(SHAPE, np.int16))


def read(image, masks, frame=None, ignore=None, zooms=(1.5, 1.25, 10.0, 1.0)):
    """Write label values beside a movie, and read them as its seeds."""
    file = save_nifti(image.parent / "seed.nii.gz", masks, zooms)
    return read_seeds(file, read_header(image), (0, 1, 2), ignore, frame)


def check(seeds, masks, *frames):
    """Assert that the given frames, and no others, are seeds with the label values that are on disk."""
    assert set(seeds) == {Place(*frame) for frame in frames}
    for place, mask in seeds.items():
        np.testing.assert_array_equal(mask, masks[:, :, place.slice, place.frame].T)


def test_any_frames_that_have_foreground_are_given(study):
    masks = drawn(SHAPE, (0, 0), (1, 0), (1, 3))
    check(read(study, masks), masks, (0, 0), (1, 0), (1, 3))


def test_no_empty_frame_is_given_where_no_frame_is_marked_as_unlabelled(study):
    masks = drawn(SHAPE, (0, 1))
    check(read(study, masks, ignore=IGNORE), masks, (0, 1))


def test_empty_frames_are_given_where_the_others_are_marked_by_the_ignore_label(study):
    masks = drawn(SHAPE, (0, 1))
    masks[..., 1, :] = masks[..., 0, [0, 3]] = IGNORE
    check(read(study, masks, ignore=IGNORE), masks, (0, 1), (0, 2))


def test_a_frame_that_is_ignored_in_part_is_refused(study):
    masks = drawn(SHAPE, (0, 1), (1, 2))
    masks[0, 0, 1, 2] = IGNORE
    with pytest.raises(InputError, match=r"seed\.nii\.gz: frame 2 of slice 1 is labelled in part \(ignore label 3\)"):
        read(study, masks, ignore=IGNORE)


@pytest.mark.parametrize("shape", [SHAPE[:3], (*SHAPE[:3], 1)])
def test_a_file_of_one_moment_is_put_there(shape, study):
    masks = drawn(shape[:3], (1,))
    seeds = read(study, masks.reshape(shape), frame=2)
    assert set(seeds) == {Place(1, 2)}
    np.testing.assert_array_equal(seeds[Place(1, 2)], masks[..., 1].T)


def test_in_a_file_of_one_moment_unlabelled_slices_say_nothing_of_other_moments(study):
    masks = drawn(SHAPE[:3], (0,))
    masks[..., 1] = IGNORE
    assert set(read(study, masks, frame=2, ignore=IGNORE)) == {Place(0, 2)}


def test_a_frame_of_one_moment_that_is_ignored_in_part_is_named(study):
    masks = drawn(SHAPE[:3], (0,))
    masks[0, 0, 1] = IGNORE
    with pytest.raises(InputError, match="frame 3 of slice 1 is labelled in part"):
        read(study, masks, frame=3, ignore=IGNORE)


@pytest.mark.parametrize(("frame", "found"), [(None, "none"), (4, "4"), (-1, "-1")])
def test_a_file_of_one_moment_needs_one_that_exists(frame, found, study):
    with pytest.raises(InputError, match=rf"holds one moment, but found {found} for it, .* 0\.\.3; name it with --t0"):
        read(study, drawn(SHAPE[:3], (1,)), frame=frame)


def test_a_movie_without_slices_has_seeds_of_slice_0(tmp_path):
    image = save_nifti(tmp_path / "movie.nii.gz", np.zeros((6, 5, 4), np.int16))
    masks = drawn((6, 5, 4), (1,), (3,))
    check(read(image, masks), masks[:, :, None], (0, 1), (0, 3))
    moment = drawn((6, 5, 1), (0,))
    check(read(image, moment, frame=0), moment[:, :, None], (0, 0))


@pytest.mark.parametrize("shape", [(5, 6, 2, 4), (6, 5, 2, 3), (6, 5, 3), (6, 5, 3, 4)])
def test_another_shape_is_refused(shape, study):
    message = f"seed.nii.gz: found shape {shape}, expected {SHAPE} as in {study}, or {SHAPE[:3]} for one moment"
    with pytest.raises(InputError, match=re.escape(message)):
        read(study, drawn(shape, (0,) * (len(shape) - 2)), frame=0)


def test_another_pixel_spacing_is_refused(study):
    message = (
        rf"seed\.nii\.gz: found pixel spacing \(1\.25, 1\.6.*\) mm \(y, x\), expected \(1\.25, 1\.5\) as in {study}"
    )
    with pytest.raises(InputError, match=message):
        read(study, drawn(SHAPE, (0, 0)), zooms=(1.6, 1.25, 10.0, 1.0))


def oriented(path, pixels, affine):
    """Write pixels with an affine that says what it means."""
    nibabel.save(nibabel.Nifti1Image(pixels, affine), path)
    return path


@pytest.mark.parametrize(
    "change",
    [
        np.diag([1.0, -1.0, 1.0, 1.0]),
        np.diag([1.0, 1.0, -1.0, 1.0]),
        np.array([[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]]),
    ],
)
def test_a_mask_that_is_turned_otherwise_is_refused(change, tmp_path):
    affine = np.diag([1.25, 1.25, 8.0, 1.0])
    image = oriented(tmp_path / "movie.nii.gz", np.zeros(SHAPE, np.int16), affine)
    file = oriented(tmp_path / "seed.nii.gz", drawn(SHAPE, (0, 0)), change @ affine)
    with pytest.raises(InputError, match=rf"{file}: lies elsewhere, or is turned otherwise, than {image}"):
        read_seeds(file, read_header(image), (0, 1, 2), None, None)


def test_a_mask_that_lies_elsewhere_is_refused(tmp_path):
    image = oriented(tmp_path / "movie.nii.gz", np.zeros(SHAPE, np.int16), OBLIQUE)
    shifted = OBLIQUE + np.array([[0, 0, 0, 4.0], [0] * 4, [0] * 4, [0] * 4])
    file = oriented(tmp_path / "seed.nii.gz", drawn(SHAPE, (0, 0)), shifted)
    with pytest.raises(InputError, match="lies elsewhere"):
        read_seeds(file, read_header(image), (0, 1, 2), None, None)


def test_masks_of_an_oblique_movie_are_read(tmp_path):
    image = oriented(tmp_path / "movie.nii.gz", np.zeros(SHAPE, np.int16), OBLIQUE)
    rounded = OBLIQUE.round(1) + 1e-3
    file = oriented(tmp_path / "seed.nii.gz", drawn(SHAPE[:3], (1,)), rounded)
    assert set(read_seeds(file, read_header(image), (0, 1, 2), None, 0)) == {Place(1, 0)}


def test_a_mask_with_a_true_affine_fits_a_movie_with_a_unit_sform(study):
    file = oriented(study.parent / "seed.nii.gz", drawn(SHAPE, (0, 0)), np.diag([1.5, 1.25, 10.0, 1.0]))
    assert set(read_seeds(file, read_header(study), (0, 1, 2), None, None)) == {Place(0, 0)}


def test_labels_that_the_model_does_not_know_are_refused(study):
    masks = 2 * drawn(SHAPE, (0, 0))
    with pytest.raises(InputError, match=r"seed\.nii\.gz: found label values \[4\], expected only \[0, 1, 2\]"):
        read(study, masks)
    with pytest.raises(InputError, match=r"found label values \[4\], expected only \[0, 1, 2, 3\]"):
        read(study, masks, ignore=IGNORE)


@pytest.mark.parametrize("value", [0, IGNORE])
def test_a_file_without_any_mask_is_refused(value, study):
    with pytest.raises(InputError, match=r"seed\.nii\.gz: found no mask, expected at least one frame with foreground"):
        read(study, np.full(SHAPE, value, np.uint8), ignore=IGNORE)


def test_a_file_of_nothing_but_empty_frames_is_refused(study):
    masks = np.full(SHAPE, IGNORE, np.uint8)
    masks[..., 0, 1] = 0
    with pytest.raises(InputError, match="found no mask"):
        read(study, masks, ignore=IGNORE)


def test_what_is_no_readable_file_of_whole_numbers_is_named(study):
    header = read_header(study)
    with pytest.raises(InputError, match=r"nowhere\.nii\.gz: expected a readable NIfTI file"):
        read_seeds(study.parent / "nowhere.nii.gz", header, (0, 1, 2), None, None)
    with pytest.raises(InputError, match=r"seed\.nii\.gz: found label values \[0\.5\]"):
        read(study, (drawn(SHAPE, (0, 0)) / 2).astype(np.float32))


def test_a_file_is_the_seed_of_any_study(study):
    assert find_seed_file(study, "other") == study


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_in_a_folder_the_seed_is_named_like_the_study(ending, study):
    file = save_nifti(study.parent / "seeds" / f"movie{ending}", drawn(SHAPE, (0, 0)))
    save_nifti(study.parent / "seeds" / "movie_2.nii.gz", drawn(SHAPE, (0, 0)))
    assert find_seed_file(study.parent / "seeds", "movie") == file


def test_a_folder_without_the_seed_is_named(study):
    with pytest.raises(InputError, match=rf"{study.parent}: found no seed other\.nii\.gz, expected one file for each"):
        find_seed_file(study.parent, "other")
