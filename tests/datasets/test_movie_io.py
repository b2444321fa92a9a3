import gzip
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunet_temporal.datasets.movie_io import MOVIE_ENDINGS, movie_header, read_movie
from nnunet_temporal.errors import InputError

MOVIE = np.random.default_rng(0).integers(-50, 1000, (5, 2, 4, 3)).astype(np.int16)  # (T, Z, Y, X)
NRRD_4D = ("type: short", "dimension: 4", "sizes: 3 4 2 5", "endian: little", "encoding: raw")
META_4D = ("NDims = 4", "DimSize = 3 4 2 5", "ElementSpacing = 1.5 1.25 8 40", "ElementType = MET_SHORT")


def save_itk(path, pixels, spacing, compressed=False, direction=None):
    image = SimpleITK.GetImageFromArray(pixels, isVector=False)
    image.SetSpacing(spacing)
    if direction is not None:
        image.SetDirection(direction)
    SimpleITK.WriteImage(image, str(path), useCompression=compressed)
    return path


def save_nrrd(path, fields, content):
    path.write_bytes(("\n".join(["NRRD0005", "# a comment: ignored", *fields]) + "\n\n").encode() + content)
    return path


def save_meta(path, fields, content=b"", data="LOCAL"):
    path.write_bytes("".join(f"{line}\n" for line in [*fields, f"ElementDataFile = {data}"]).encode() + content)
    return path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_what_simpleitk_writes_comes_as_time_slice_row_column(tmp_path, ending, compressed, dtype):
    path = save_itk(tmp_path / f"a{ending}", abs(MOVIE % 200).astype(dtype), (1.5, 1.25, 8.0, 40.0), compressed)
    pixels, spacing = read_movie(path)
    assert pixels.dtype == np.float32 and pixels.flags.c_contiguous and pixels.flags.writeable
    assert np.array_equal(pixels, abs(MOVIE % 200))
    assert (spacing.pixel_mm, spacing.slice_mm, spacing.pixel_known) == ((1.25, 1.5), 8.0, True)
    header = movie_header(path)
    assert header.shape == MOVIE.shape and header.spacing == spacing and header.path == path


@pytest.mark.parametrize("ending", MOVIE_ENDINGS)
def test_a_3d_file_is_a_sequence_without_slices(tmp_path, ending):
    pixels, spacing = read_movie(save_itk(tmp_path / f"a{ending}", MOVIE[:, 0], (1.5, 1.25, 0.04)))
    assert np.array_equal(pixels, MOVIE[:, 0])
    assert spacing.pixel_mm == (1.25, 1.5) and spacing.slice_mm is None


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_an_oblique_direction_changes_neither_pixels_nor_spacing(tmp_path, ending):
    oblique = np.eye(4)
    oblique[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    path = save_itk(tmp_path / f"a{ending}", MOVIE, (1.5, 1.25, 8.0, 1.0), direction=oblique.ravel().tolist())
    pixels, spacing = read_movie(path)
    assert np.array_equal(pixels, MOVIE)
    assert spacing.pixel_mm == pytest.approx((1.25, 1.5)) and spacing.slice_mm == 8.0


def test_directions_that_simpleitk_refuses_are_read(tmp_path):
    flat = (*META_4D, "TransformMatrix = " + " ".join("0" * 16))
    assert np.array_equal(read_movie(save_meta(tmp_path / "a.mha", flat, MOVIE.tobytes()))[0], MOVIE)


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".mhd"])
def test_spacings_of_1_or_none_at_all_are_not_known(tmp_path, ending):
    assert not movie_header(save_itk(tmp_path / f"a{ending}", MOVIE, (1.0,) * 4)).spacing.pixel_known
    spacing = movie_header(save_nrrd(tmp_path / "b.nrrd", NRRD_4D, MOVIE.tobytes())).spacing
    assert (spacing.pixel_known, spacing.slice_mm) == (False, None)
    spacing = movie_header(save_meta(tmp_path / "c.mha", [*META_4D[:2], META_4D[3]], MOVIE.tobytes())).spacing
    assert (spacing.pixel_known, spacing.slice_mm) == (False, None)


@pytest.mark.parametrize(
    ("fields", "frame_s"),
    [
        (["spacings: 1.5 1.25 8 40", 'units: "mm" "mm" "mm" "ms"'], 0.04),
        (["spacings: 1.5 1.25 8 0.04", 'units: "mm" "mm" "mm" "s"'], 0.04),
        (["spacings: 1.5 1.25 8 40", 'units: "mm" "mm" "mm" "s"'], None),
        (["spacings: 1.5 1.25 8 0.04"], None),
        (["spacings: 1.5 1.25 8 nan", 'units: "mm" "mm" "mm" "s"'], None),
        (
            [
                "space: left-posterior-superior-time",
                "space directions: (1.5,0,0,0) (0,1.25,0,0) (0,0,8,0) (0,0,0,40)",
                'space units: "mm" "mm" "mm" "ms"',
            ],
            0.04,
        ),
    ],
)
def test_the_frame_interval_of_nrrd_needs_a_unit_of_time_and_a_plausible_value(tmp_path, fields, frame_s):
    spacing = movie_header(save_nrrd(tmp_path / "a.nrrd", [*NRRD_4D, *fields], MOVIE.tobytes())).spacing
    assert spacing.frame_s == (None if frame_s is None else pytest.approx(frame_s))
    assert spacing.pixel_mm == (1.25, 1.5) and spacing.slice_mm == 8.0


def test_metaimage_has_no_unit_of_time_so_the_interval_is_not_known(tmp_path):
    assert movie_header(save_itk(tmp_path / "a.mha", MOVIE, (1.5, 1.25, 8.0, 0.04))).spacing.frame_s is None


def test_nifti_states_its_interval(tmp_path):
    image = nibabel.Nifti1Image(MOVIE.T, np.eye(4))
    image.header.set_zooms((1.5, 1.25, 8.0, 40.0))
    image.header.set_xyzt_units("mm", "msec")
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert read_movie(tmp_path / "a.nii.gz")[1].frame_s == pytest.approx(0.04)


@pytest.mark.parametrize(
    ("kind", "axis"), [("list", 0), ("time", 0), ("list", 2), ("list", 3), ("time", 3), ("domain", 0)]
)
def test_time_may_be_any_axis_of_nrrd_that_says_so_or_has_no_direction(tmp_path, kind, axis):
    # 3D Slicer writes a sequence with kind "list" first; ITK takes none of these with kind "time" or "domain".
    space = ["(1.5,0,0)", "(0,1.25,0)", "(0,0,8)"]
    kinds, sizes = ["domain"] * 3, ["3", "4", "2"]
    for values, value in ((space, "none"), (kinds, kind), (sizes, "5")):
        values.insert(axis, value)
    fields = [
        *NRRD_4D[:2],
        *NRRD_4D[3:],
        f"sizes: {' '.join(sizes)}",
        f"kinds: {' '.join(kinds)}",
        "space: left-posterior-superior",
        f"space directions: {' '.join(space)}",
        "axis 0 index values:=0 40 80 120 160",
    ]
    content = np.ascontiguousarray(np.moveaxis(MOVIE, 0, 3 - axis)).tobytes()
    pixels, spacing = read_movie(save_nrrd(tmp_path / "a.nrrd", fields, content))
    assert np.array_equal(pixels, MOVIE)
    assert (spacing.pixel_mm, spacing.slice_mm) == ((1.25, 1.5), 8.0)


def test_bytes_in_the_other_order_are_turned(tmp_path):
    swapped = MOVIE.astype(">i2").tobytes()
    nrrd = [field.replace("little", "big") for field in NRRD_4D]
    assert np.array_equal(read_movie(save_nrrd(tmp_path / "a.nrrd", nrrd, swapped))[0], MOVIE)
    meta = [*META_4D, "BinaryDataByteOrderMSB = True"]
    assert np.array_equal(read_movie(save_meta(tmp_path / "a.mha", meta, swapped))[0], MOVIE)


def test_a_nrrd_may_keep_its_pixels_in_another_file_and_compressed(tmp_path):
    (tmp_path / "a.raw.gz").write_bytes(gzip.compress(MOVIE.tobytes()))
    fields = [*NRRD_4D[:-1], "encoding: gzip", "data file: a.raw.gz"]
    assert np.array_equal(read_movie(save_nrrd(tmp_path / "a.nrrd", fields, b""))[0], MOVIE)


@pytest.mark.parametrize("size", [7, -1])
def test_a_header_before_the_pixels_of_an_mhd_is_skipped(tmp_path, size):
    (tmp_path / "a.raw").write_bytes(b"7 bytes" + MOVIE.tobytes())
    path = save_meta(tmp_path / "a.mhd", [*META_4D, f"HeaderSize = {size}"], data="a.raw")
    assert np.array_equal(read_movie(path)[0], MOVIE)


@pytest.mark.parametrize("ending", MOVIE_ENDINGS)
@pytest.mark.parametrize("content", [None, b"", b"\x00" * 400, b"no movie at all, but a text of some length\n" * 20])
def test_a_file_that_is_missing_empty_or_of_another_kind_is_named(tmp_path, ending, content):
    path = tmp_path / f"a{ending}"
    if content is not None:
        path.write_bytes(content)
    for read in (movie_header, read_movie):
        with pytest.raises(InputError, match=rf"a\{ending}: .*expected"):
            read(path)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_a_file_that_is_cut_off_anywhere_is_refused(tmp_path, ending, compressed):
    path = save_itk(tmp_path / f"a{ending}", MOVIE, (1.5, 1.25, 8.0, 40.0), compressed)
    raw = next((other for other in tmp_path.iterdir() if other != path), path)
    whole = raw.read_bytes()
    for n_bytes in range(0, len(whole), 7):
        raw.write_bytes(whole[:n_bytes])
        with pytest.raises(InputError, match=rf"/{path.stem}\."):
            read_movie(path)


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd"])
def test_damaged_compressed_pixels_are_refused_and_not_made_up(tmp_path, ending):
    path = save_itk(tmp_path / f"a{ending}", MOVIE, (1.5, 1.25, 8.0, 40.0), compressed=True)
    raw = next((other for other in tmp_path.iterdir() if other != path), path)
    raw.write_bytes(raw.read_bytes()[:-60] + b"x" * 60)
    with pytest.raises(InputError, match="the pixels cannot be read, the file may be damaged"):
        read_movie(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("ending", MOVIE_ENDINGS)
def test_pixels_that_are_not_finite_are_refused(tmp_path, ending, bad):
    pixels = MOVIE.astype(np.float32)
    pixels[1, 1, 1, 1] = bad
    with pytest.raises(InputError, match="found 1 NaN or infinite pixels"):
        read_movie(save_itk(tmp_path / f"a{ending}", pixels, (1.5, 1.25, 8.0, 1.0)))


def with_line(fields, key, line):
    return [line if field.startswith(key) else field for field in fields]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (with_line(META_4D, "NDims", "NDims = -4"), "found NDims -4"),  # ITK crashes on it
        (with_line(META_4D, "DimSize", "DimSize = 3 4 2"), "found dimsize '3 4 2', expected 4 number"),
        (with_line(META_4D, "DimSize", "DimSize = 3 4 2 0"), "found an empty image"),
        (with_line(META_4D, "DimSize", "DimSize = 3 4 2 -5"), "found an empty image"),
        (with_line(META_4D, "DimSize", "DimSize = 90000 90000 90000 90000"), "is cut off or its header damaged"),
        (["NDims = 2", "DimSize = 3 40", "ElementType = MET_SHORT"], "found 2 axes"),
        (with_line(META_4D, "ElementType", "ElementType = MET_STRING"), "found elementtype 'MET_STRING'"),
        ([*META_4D, "ElementNumberOfChannels = 3"], "found 3 channels, expected one number per pixel"),
        ([*META_4D, "BinaryData = False"], "found pixels written as text"),
        ([*META_4D, "CompressedData = True"], "the pixels cannot be read, the file may be damaged"),
        ([*META_4D, "HeaderSize = -2"], "found HeaderSize -2"),
        (META_4D[:2], "found no field 'elementtype'"),
    ],
)
def test_a_metaimage_that_is_no_movie_is_refused(tmp_path, fields, message):
    with pytest.raises(InputError, match=rf"a\.mha: {message}|a\.mha: .*{message}"):
        read_movie(save_meta(tmp_path / "a.mha", fields, MOVIE.tobytes()))


@pytest.mark.parametrize("data", ["LIST", "slice%02d.raw 1 4 1", "", "gone.raw", ".", "a\0b"])
def test_a_metaimage_without_one_file_of_pixels_is_refused(tmp_path, data):
    with pytest.raises(InputError, match=r"a\.mhd: "):
        read_movie(save_meta(tmp_path / "a.mhd", META_4D, data=data))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (with_line(NRRD_4D, "dimension", "dimension: 99"), "found dimension 99"),
        (with_line(NRRD_4D, "sizes", "sizes: 3 4 2"), "found sizes '3 4 2', expected 4 number"),
        (with_line(NRRD_4D, "sizes", "sizes: 3 4 2 5000000000"), "is cut off or its header damaged"),
        (with_line(NRRD_4D, "type", "type: block"), "found type 'block'"),
        (with_line(NRRD_4D, "encoding", "encoding: bzip2"), "found encoding 'bzip2', expected one of raw, gzip"),
        (with_line(NRRD_4D, "endian", "x: y"), "found no field 'endian'"),
        ([*NRRD_4D, "kinds: RGB-color domain domain domain"], "found kinds 'rgb-color"),
        ([*NRRD_4D, "kinds: list domain domain time"], "found 2 axes of time"),
        ([*NRRD_4D, "kinds: domain"], "found kinds 'domain', expected 4"),
        ([*NRRD_4D, "space directions: (1,0,0) none"], r"found space directions .*, expected 4"),
        ([*NRRD_4D, "space directions: (1,0,a) none none none"], "found direction"),
        ([*NRRD_4D, "line skip: 3"], "found line skip 3"),
        ([*NRRD_4D, "data file: LIST"], "found data file 'LIST'"),
        ([*NRRD_4D, "data file: gone.raw"], "its file of pixels .*gone.raw cannot be read"),
        (["type: short", "dimension: 2", "sizes: 3 40", "endian: little", "encoding: raw"], "found 2 axes"),
    ],
)
def test_a_nrrd_that_is_no_movie_is_refused(tmp_path, fields, message):
    with pytest.raises(InputError, match=rf"a\.nrrd: .*{message}|a\.nrrd: {message}"):
        read_movie(save_nrrd(tmp_path / "a.nrrd", fields, MOVIE.tobytes()))


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"a\.png: found another ending, expected a movie in one of \.nii\.gz, \.nii"):
        read_movie(tmp_path / "a.png")


def test_a_nifti_header_that_asks_for_more_than_the_file_can_hold_is_refused(tmp_path):
    content = bytearray(nibabel.Nifti1Image(MOVIE.T, np.eye(4)).to_bytes())
    struct.pack_into("<4h", content, 42, *[32767] * 4)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(InputError, match=r"a\.nii\.gz: found a header for \d+ bytes of pixels in a file of"):
        movie_header(tmp_path / "a.nii.gz")


def test_a_pixel_of_a_nifti_that_was_damaged_after_packing_is_noticed_by_the_check_sum(tmp_path):
    # Packed without compression, a damaged pixel is a valid stream.
    movie = np.tile(MOVIE, (1, 1, 40, 40))
    content = bytearray(gzip.compress(nibabel.Nifti1Image(movie.T, np.eye(4)).to_bytes(), compresslevel=0))
    (tmp_path / "a.nii.gz").write_bytes(content)
    assert np.array_equal(read_movie(tmp_path / "a.nii.gz")[0], movie)
    content[-50] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.nii\.gz: the pixels cannot be read.*CRC"):
        read_movie(tmp_path / "a.nii.gz")


def test_a_unit_that_nifti_does_not_define_is_no_unit(tmp_path):
    image = nibabel.Nifti1Image(MOVIE.T, np.eye(4))
    image.header.set_zooms((1.5, 1.25, 8.0, 0.04))
    content = bytearray(image.to_bytes())
    content[123] = 80  # the header's xyzt_units
    (tmp_path / "a.nii").write_bytes(content)
    spacing = movie_header(tmp_path / "a.nii").spacing
    assert (spacing.pixel_mm, spacing.slice_mm, spacing.frame_s) == ((1.25, 1.5), 8.0, None)


@pytest.mark.parametrize("sizes", [(-3, 4, 2, 5), (3, 4, -2, 5), (3, 4, 2, -5)])
def test_negative_sizes_of_a_nifti_are_refused(tmp_path, sizes):
    content = bytearray(nibabel.Nifti1Image(MOVIE.T, np.eye(4)).to_bytes())
    struct.pack_into("<4h", content, 42, *sizes)
    (tmp_path / "a.nii").write_bytes(content)
    with pytest.raises(InputError, match="found an empty image"):
        read_movie(tmp_path / "a.nii")


@pytest.mark.parametrize("offset", [np.inf, np.nan, 1e30, 3e9, -1.0])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_pixels_of_a_nifti_that_begin_outside_of_the_file_are_refused(tmp_path, ending, offset):
    content = bytearray(nibabel.Nifti1Image(MOVIE.T, np.eye(4)).to_bytes())
    struct.pack_into("<f", content, 108, offset)  # the header's vox_offset
    path = tmp_path / f"a{ending}"
    path.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    with pytest.raises(InputError, match=rf"a\{ending}: "):
        read_movie(path)
