import numpy as np
import pytest
from dicom_layout import change, clip_pixels, region_of, save_clip

from nnunet_temporal.datasets.dicom_io import find_movies
from nnunet_temporal.errors import InputError


def only_movie(path):
    (movie,) = find_movies(path.parent).movies
    return movie


@pytest.fixture
def path(tmp_path):
    return tmp_path / "clips" / "1.dcm"


def test_a_clip_is_cut_to_the_region_of_the_image_both_corners_included(path):
    movie = only_movie(save_clip(path))
    assert movie.shape == (4, 8, 10)
    assert np.array_equal(movie.load_image(), clip_pixels()[:, 2:10, 3:13])


def test_the_spacing_of_a_region_is_turned_from_cm_to_mm(path):
    movie = only_movie(save_clip(path))
    assert movie.spacing.pixel_mm == pytest.approx((0.4, 0.5)) and movie.spacing.pixel_known
    assert movie.spacing.slice_mm is None and not movie.cyclic


def test_the_affine_counts_mm_from_the_reference_pixel_of_the_region(path):
    reference = {"ReferencePixelX0": 5, "ReferencePixelY0": -2, "ReferencePixelPhysicalValueY": 0.1}
    affine = only_movie(save_clip(path, regions=[region_of(3, 2, 12, 9, **reference)])).affine
    # The reference pixel counts from the region's corner: 5 pixels of 0.5 mm, and 2 of 0.4 mm plus 1 mm.
    assert (affine @ [0, 0, 0, 1])[:2] == pytest.approx([-2.5, 1.8])
    assert (affine @ [5, -2, 0, 1])[:2] == pytest.approx([0, 1])


def test_a_negative_step_leaves_the_spacing_positive(path):
    movie = only_movie(save_clip(path, regions=[region_of(3, 2, 12, 9, PhysicalDeltaY=-0.04)]))
    assert movie.spacing.pixel_mm == pytest.approx((0.4, 0.5)) and movie.affine[1, 1] == pytest.approx(-0.4)


@pytest.mark.parametrize("facts", [{"PhysicalUnitsXDirection": 4}, {"PhysicalDeltaY": 0.0}])
def test_units_that_are_no_lengths_leave_the_spacing_unknown(path, facts):
    movie = only_movie(save_clip(path, regions=[region_of(3, 2, 12, 9, **facts)]))
    assert not movie.spacing.pixel_known and movie.affine is None and movie.shape == (4, 8, 10)


def test_a_region_beyond_the_pixels_is_neither_cut_nor_believed(path):
    movie = only_movie(save_clip(path, regions=[region_of(3, 2, 30, 20)]))
    assert movie.shape == (4, 12, 16) and not movie.spacing.pixel_known


def test_a_region_that_ends_one_pixel_late_is_believed(path):
    movie = only_movie(save_clip(path, regions=[region_of(0, 0, 16, 12)]))
    assert movie.shape == (4, 12, 16) and movie.spacing.pixel_known


def test_the_largest_tissue_region_is_taken_before_flow_and_spectra(path):
    flow = region_of(0, 0, 15, 11, RegionDataType=2)
    spectrum = region_of(0, 0, 15, 11, RegionSpatialFormat=3, RegionDataType=3)
    small = region_of(3, 2, 4, 3)
    movie = only_movie(save_clip(path, regions=[spectrum, flow, small, region_of(3, 2, 12, 9)]))
    assert movie.shape == (4, 8, 10)


def test_two_images_side_by_side_are_refused(path):
    save_clip(path, regions=[region_of(0, 0, 7, 11), region_of(8, 0, 15, 11)])
    with pytest.raises(InputError, match=r"1\.dcm: found two 2D images side by side"):
        find_movies(path.parent)


def test_without_regions_nothing_is_cut_and_pixel_spacing_is_taken(path):
    assert not only_movie(save_clip(path, regions=[])).spacing.pixel_known
    movie = only_movie(save_clip(path, regions=[], PixelSpacing=[0.3, 0.2]))
    assert movie.shape == (4, 12, 16) and movie.spacing.pixel_mm == (0.3, 0.2)


VECTOR = {"FrameTime": None, "FrameTimeVector": [0, 40, 41, 200], "FrameIncrementPointer": 0x00181065}
NO_TIME = {"FrameTime": None, "FrameIncrementPointer": None}


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, 0.025),
        (VECTOR, 0.041),
        ({**VECTOR, "FrameTime": "25"}, 0.041),
        ({**VECTOR, "FrameTime": "25", "FrameIncrementPointer": 0x00181063}, 0.025),
        ({**NO_TIME, "CineRate": 50, "RecommendedDisplayFrameRate": 40}, 0.02),
        ({**NO_TIME, "RecommendedDisplayFrameRate": 40}, 0.025),
        ({**NO_TIME, "CineRate": 0}, None),
        ({"FrameTime": "0", "CineRate": 50}, 0.02),
    ],
)
def test_the_frame_interval_comes_from_the_tag_that_is_pointed_to_or_left(path, facts, expected):
    assert only_movie(save_clip(path, **facts)).spacing.frame_s == pytest.approx(expected)


def test_colour_becomes_luma(path):
    colours = np.zeros((2, 12, 16, 3), np.uint8)
    colours[0, ..., 0], colours[0, ..., 1], colours[0, ..., 2] = 200, 100, 50
    colours[1] = 77
    image = only_movie(save_clip(path, colours)).load_image()
    assert image.dtype == np.float32
    np.testing.assert_allclose(image[0], 0.299 * 200 + 0.587 * 100 + 0.114 * 50, atol=1e-4)
    np.testing.assert_allclose(image[1], 77, atol=1e-4)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_palette_is_looked_up_whatever_its_depth(path, bits):
    entries = np.arange(256, dtype=np.uint8)[::-1] if bits == 8 else np.arange(256, dtype=np.uint16)[::-1] * 257
    facts = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        facts[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, bits]
        facts[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    image = only_movie(save_clip(path, **facts)).load_image()
    np.testing.assert_allclose(image, 255.0 - clip_pixels()[:, 2:10, 3:13], atol=1e-3)


def test_inverted_grey_values_are_refused(path):
    movie = only_movie(save_clip(path, PhotometricInterpretation="MONOCHROME1"))
    with pytest.raises(InputError, match=r"1\.dcm: found MONOCHROME1 pixels"):
        movie.load_image()


@pytest.mark.parametrize(
    "facts",
    [
        {"ImageType": ["DERIVED", "PRIMARY", "TTE", "0010"]},
        {"UltrasoundColorDataPresent": 1},
        {"regions": [region_of(3, 2, 12, 9), region_of(4, 3, 8, 6, RegionDataType=2)]},
    ],
)
def test_colour_flow_is_flagged_by_any_of_three_tags(path, facts):
    assert only_movie(save_clip(path, **facts)).colour_flow


def test_a_clip_without_flow_is_not_flagged(path):
    assert not only_movie(save_clip(path, ImageType=["ORIGINAL", "PRIMARY", "TTE", "0001"])).colour_flow


def test_each_frame_knows_where_it_came_from(path):
    movie = only_movie(save_clip(path))
    sources = [slices[0] for slices in movie.frames]
    assert [source.number for source in sources] == [0, 1, 2, 3]
    assert {(source.path, source.sop_instance_uid) for source in sources} == {(path, "1.2.3.5.1")}


def test_pixels_that_are_cut_off_are_refused_when_they_are_loaded(path):
    save_clip(path)
    path.write_bytes(path.read_bytes()[:-50])
    movie = only_movie(path)
    with pytest.raises(InputError, match=r"1\.dcm: the pixels cannot be decoded, the file may be cut off"):
        movie.load_image()


@pytest.mark.parametrize("keyword", ["NumberOfFrames", "StudyInstanceUID"])
def test_a_missing_tag_is_named(path, keyword):
    change(save_clip(path), **{keyword: None})
    with pytest.raises(InputError, match=rf"1\.dcm: {keyword} is missing"):
        find_movies(path.parent)


@pytest.mark.parametrize(
    "facts",
    [
        {"FrameTime": "nan"},
        {"NumberOfFrames": 2**31 - 1},
        {"Rows": 65535, "Columns": 65535},
        {"regions": [], "PixelSpacing": [0.4]},
        {"regions": [region_of(3, 2, 12, 9, PhysicalDeltaX=float("nan"))]},
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_numbers_that_cannot_be_are_refused_with_the_file(path, facts):
    with pytest.raises(InputError, match=r"1\.dcm: found .*"):
        find_movies(save_clip(path, **facts).parent)


@pytest.mark.parametrize("spacing", [None, [0, 0]])
def test_a_pixel_spacing_of_zero_is_unknown(path, spacing):
    movie = only_movie(save_clip(path, regions=[], PixelSpacing=spacing))
    assert not movie.spacing.pixel_known
