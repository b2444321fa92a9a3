import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunet_temporal.datasets.image_io import (
    T_SPACING,
    check_same_grid,
    find_niftis,
    nifti_name,
    read_header,
    read_image,
    read_labels,
    write_sequence,
)
from nnunet_temporal.errors import InputError


def save(path, on_disk, zooms=None, units=("mm", "unknown"), affine=None):
    image = nibabel.Nifti1Image(on_disk, np.eye(4) if affine is None else affine)
    image.header.set_zooms(zooms or (1.0,) * on_disk.ndim)
    image.header.set_xyzt_units(*units)
    nibabel.save(image, path)
    return path


def counting(*shape, dtype=np.int16):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def test_a_4d_file_comes_as_time_slice_row_column(tmp_path):
    on_disk = counting(3, 4, 2, 5)
    pixels = read_image(save(tmp_path / "a.nii.gz", on_disk))
    assert pixels.dtype == np.float32 and pixels.flags.c_contiguous
    assert np.array_equal(pixels, on_disk.transpose(3, 2, 1, 0))


def test_a_3d_file_comes_as_time_row_column(tmp_path):
    on_disk = counting(3, 4, 5)
    assert np.array_equal(read_image(save(tmp_path / "a.nii", on_disk)), on_disk.transpose(2, 1, 0))


def test_arrays_agree_with_simpleitk(tmp_path):
    path = save(tmp_path / "a.nii.gz", counting(3, 4, 2, 5))
    assert np.array_equal(read_image(path), SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))))


def test_trailing_axes_of_length_one_are_dropped_but_a_single_frame_stays(tmp_path):
    assert read_header(save(tmp_path / "a.nii.gz", counting(3, 4, 2, 5, 1, 1))).shape == (5, 2, 4, 3)
    assert read_image(save(tmp_path / "b.nii.gz", counting(3, 4, 2, 1))).shape == (1, 2, 4, 3)


def test_spacing_comes_from_the_zooms_although_the_affine_is_a_unit_matrix(tmp_path):
    path = save(tmp_path / "a.nii.gz", counting(3, 4, 2, 5), zooms=(1.5, 1.25, 8.0, 1.0))
    assert np.array_equal(nibabel.load(path).affine, np.eye(4))
    spacing = read_header(path).spacing
    assert spacing.pixel_mm == (1.25, 1.5) and spacing.slice_mm == 8.0 and spacing.pixel_known


def test_lengths_in_other_units_become_mm(tmp_path):
    path = save(tmp_path / "a.nii.gz", counting(3, 4, 5), zooms=(500.0, 250.0, 1.0), units=("micron", "unknown"))
    assert read_header(path).spacing.pixel_mm == (0.25, 0.5)


@pytest.mark.parametrize(
    ("unit", "zoom", "interval_s"),
    [
        ("sec", 0.04, 0.04),
        ("msec", 40.0, 0.04),
        ("usec", 4e4, 0.04),
        ("unknown", 0.04, None),
        ("sec", 40.0, None),
        ("hz", 0.04, None),
    ],
)
def test_the_frame_interval_needs_a_time_unit_and_a_plausible_value(tmp_path, unit, zoom, interval_s):
    path = save(tmp_path / "a.nii.gz", counting(3, 4, 2, 5), zooms=(1.0, 1.0, 1.0, zoom), units=("mm", unit))
    assert read_header(path).spacing.frame_s == (None if interval_s is None else pytest.approx(interval_s))


@pytest.mark.parametrize("zoom", [0.0, np.nan])
def test_a_file_without_pixel_spacing_says_so(tmp_path, zoom):
    path = save(tmp_path / "a.nii", counting(3, 4, 5), units=("unknown", "unknown"))
    content = bytearray(path.read_bytes())
    content[80:84] = np.float32(zoom).tobytes()  # the header's pixdim[1]
    path.write_bytes(content)
    spacing = read_header(path).spacing
    assert not spacing.pixel_known and spacing.pixel_mm == (1.0, 1.0)


@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2, 5, 3)])
def test_other_numbers_of_axes_are_refused(tmp_path, shape):
    with pytest.raises(InputError, match=r"a\.nii: found \d axes"):
        read_header(save(tmp_path / "a.nii", counting(*shape)))


@pytest.mark.parametrize("shape", [(3, 4, 0), (3, 4, 2, 0)])
def test_zero_frames_are_refused(tmp_path, shape):
    with pytest.raises(InputError, match="zero frames"):
        read_header(save(tmp_path / "a.nii", np.zeros(shape, np.int16)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused(tmp_path, bad):
    pixels = np.zeros((3, 4, 5), np.float32)
    pixels[1, 1, 1] = bad
    with pytest.raises(InputError, match="found 1 NaN or infinite pixels"):
        read_image(save(tmp_path / "a.nii.gz", pixels))


@pytest.mark.parametrize("content", [b"", b"no image at all", None])
def test_an_unreadable_file_is_named(tmp_path, content):
    path = tmp_path / "a.nii.gz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii\.gz: expected a readable NIfTI"):
        read_header(path)


def test_a_cut_off_file_is_named(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).integers(0, 999, (20, 20, 5)).astype(np.int16))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(InputError, match="cannot be read, the file may be cut off"):
        read_image(path)


def test_colour_pixels_are_refused(tmp_path):
    colour = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(InputError, match="expected one number per pixel"):
        read_image(save(tmp_path / "a.nii.gz", colour))


def test_labels_stored_as_floats_become_the_smallest_integers(tmp_path):
    labels = read_labels(save(tmp_path / "a.nii.gz", np.full((3, 4, 5), 2.0, np.float32)))
    assert labels.dtype == np.uint8 and np.all(labels == 2)
    assert read_labels(save(tmp_path / "b.nii.gz", np.full((3, 4, 5), 300, np.int16))).dtype == np.uint16


@pytest.mark.parametrize("value", [0.5, -1.0, np.nan, 70000.0])
def test_labels_that_are_no_whole_numbers_are_refused(tmp_path, value):
    with pytest.raises(InputError, match="found label values"):
        read_labels(save(tmp_path / "a.nii.gz", np.full((3, 4, 5), value, np.float32)))


def test_a_3d_label_for_a_4d_image_is_refused_with_a_hint(tmp_path):
    image = read_header(save(tmp_path / "image.nii.gz", counting(3, 4, 2, 5)))
    labels = read_header(save(tmp_path / "labels.nii.gz", counting(3, 4, 2)))
    with pytest.raises(InputError, match=r"labels\.nii\.gz: found label shape \(3, 4, 2\).*needs a 4D label"):
        check_same_grid(labels, image)


@pytest.mark.parametrize("n_frames", [1, 6])
def test_a_written_sequence_is_what_simpleitk_calls_t_y_x(tmp_path, n_frames):
    pixels = np.random.default_rng(0).random((n_frames, 4, 3)).astype(np.float32)
    write_sequence(pixels, (1.25, 1.5), tmp_path / "a_0000.nii.gz")
    image = SimpleITK.ReadImage(str(tmp_path / "a_0000.nii.gz"))
    assert np.array_equal(SimpleITK.GetArrayFromImage(image), pixels)
    assert image.GetSpacing() == (1.5, 1.25, T_SPACING)


def test_masks_are_written_as_uint8(tmp_path):
    write_sequence(np.ones((2, 4, 3), np.int64), (1.0, 1.0), tmp_path / "a.nii.gz")
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == np.uint8


def test_nifti_files_are_found_and_named_without_ending(tmp_path):
    for name in ("b.nii.gz", "a.nii", ".hidden.nii", "c.json"):
        (tmp_path / name).touch()
    assert [nifti_name(path) for path in find_niftis(tmp_path)] == ["a", "b"]
