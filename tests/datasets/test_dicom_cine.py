import numpy as np
import pytest
from dicom_layout import (
    NORMAL,
    ORIENTATION,
    ORIGIN,
    change,
    cine_pixels,
    plane_of,
    position_of,
    save,
    save_cine,
    save_enhanced_cine,
)

from nnunet_temporal.datasets.dicom_io import find_movies
from nnunet_temporal.errors import InputError


def only_movie(folder):
    (movie,) = find_movies(folder).movies
    return movie


def test_shuffled_files_come_back_as_a_stack_in_time(tmp_path):
    files = save_cine(tmp_path)
    movie = only_movie(tmp_path)
    assert movie.shape == (4, 3, 6, 5) and movie.is_stack
    assert np.array_equal(movie.load_image(), cine_pixels())
    assert {(t, z): movie.frames[t][z].path for t in range(4) for z in range(3)} == files


def test_each_frame_names_its_instance(tmp_path):
    save_cine(tmp_path)
    source = only_movie(tmp_path).frames[3][1]
    assert (source.sop_instance_uid, source.series_uid, source.is_multi_frame) == ("1.2.3.4.2.4", "1.2.3.4", False)
    assert source.position_mm == pytest.approx(position_of(1))


def test_the_slice_spacing_comes_from_the_positions(tmp_path):
    save_cine(tmp_path)
    spacing = only_movie(tmp_path).spacing
    assert spacing.slice_mm == pytest.approx(9.0)
    assert (spacing.pixel_mm, spacing.pixel_known) == ((1.5, 1.25), True)


def test_slices_run_along_the_normal_whatever_their_numbers_say(tmp_path):
    pixels = cine_pixels()
    for t in range(4):
        for z in range(3):
            number = 1 + t + 20 * (2 - z)
            save(plane_of(pixels[t, z], t, z, InstanceNumber=number), tmp_path / f"{number}.dcm")
    assert np.array_equal(only_movie(tmp_path).load_image(), pixels)


def test_the_affine_leads_to_the_axes_of_nifti(tmp_path):
    save_cine(tmp_path)
    affine = only_movie(tmp_path).affine
    x, y, z = 2, 3, 1
    place = ORIGIN + x * 1.25 * np.array(ORIENTATION[:3]) + y * 1.5 * np.array(ORIENTATION[3:]) + z * 9 * NORMAL
    assert (affine @ [x, y, z, 1])[:3] == pytest.approx(place * [-1, -1, 1])


def test_trigger_times_outweigh_instance_numbers(tmp_path):
    pixels = cine_pixels(n_slices=1)
    for t in range(4):
        save(plane_of(pixels[t, 0], t, 0, InstanceNumber=9 - t), tmp_path / f"{t}.dcm")
    movie = only_movie(tmp_path)
    assert np.array_equal(movie.load_image(), pixels)
    assert movie.spacing.frame_s == pytest.approx(0.04) and movie.spacing.slice_mm is None


@pytest.mark.parametrize("trigger", [{"TriggerTime": None}, {"TriggerTime": 0}])
def test_without_trigger_times_instance_numbers_order_the_phases(tmp_path, trigger):
    save_cine(tmp_path, **trigger)
    movie = only_movie(tmp_path)
    assert np.array_equal(movie.load_image(), cine_pixels()) and movie.spacing.frame_s is None


def test_without_either_acquisition_times_order_the_phases(tmp_path):
    files = save_cine(tmp_path, TriggerTime=None, InstanceNumber=1)
    for (t, _), path in files.items():
        change(path, AcquisitionTime=f"0826{t:02d}.5")
    assert np.array_equal(only_movie(tmp_path).load_image(), cine_pixels())


def test_phases_without_an_order_are_refused(tmp_path):
    save_cine(tmp_path, TriggerTime=None, InstanceNumber=1)
    with pytest.raises(InputError, match=r"series 1\.2\.3\.4 .*no TriggerTime, InstanceNumber or AcquisitionTime"):
        find_movies(tmp_path)


def test_rescale_slope_and_intercept_are_applied_file_by_file(tmp_path):
    files = save_cine(tmp_path, RescaleSlope="2", RescaleIntercept="-10")
    change(files[1, 2], RescaleSlope="0.5")
    expected = cine_pixels() * 2.0 - 10
    expected[1, 2] = cine_pixels()[1, 2] * 0.5 - 10
    np.testing.assert_allclose(only_movie(tmp_path).load_image(), expected)


def test_a_missing_phase_is_named_with_its_slice_and_gap(tmp_path):
    save_cine(tmp_path)[2, 1].unlink()
    message = r"slice 1 \(counted from 0, 9\.0 mm .*\) has 3 of 4 phases, none between trigger times 51 and 131 ms"
    # The origin lies off the plane through 0, so the place along the normal is counted from there.
    offset = float(ORIGIN @ NORMAL)
    with pytest.raises(InputError, match=message.replace(r"9\.0", f"{offset + 9:.1f}")):
        find_movies(tmp_path)


def test_a_phase_missing_from_all_slices_is_named(tmp_path):
    files = save_cine(tmp_path)
    for z in range(3):
        files[3, z].unlink()
    assert only_movie(tmp_path).shape[0] == 3
    for path in tmp_path.glob("*.dcm"):
        change(path, CardiacNumberOfImages=4)
    with pytest.raises(InputError, match=r"slice 0 .* has 3 of 4 phases; slice 1 .*; slice 2 "):
        find_movies(tmp_path)


def test_a_missing_slice_is_named(tmp_path):
    files = save_cine(tmp_path, cine_pixels(n_slices=5))
    for t in range(4):
        files[t, 3].unlink()
    with pytest.raises(InputError, match=r"found 18\.00 mm from slice 2 to 3 .*expected 9\.00 mm"):
        find_movies(tmp_path)


def test_a_phase_that_is_there_twice_is_named_with_both_files(tmp_path):
    save_cine(tmp_path)
    save(plane_of(cine_pixels()[0, 0], 1, 2, SOPInstanceUID="1.9", InstanceNumber=99), tmp_path / "again.dcm")
    with pytest.raises(InputError, match=r"again\.dcm and .*\.dcm|\.dcm and .*again\.dcm"):
        find_movies(tmp_path)


def test_frames_of_another_size_are_named(tmp_path):
    files = save_cine(tmp_path)
    change(files[0, 1], PixelSpacing=[2, 2])
    with pytest.raises(InputError, match=r"found rows, columns and pixel spacing"):
        find_movies(tmp_path)


def test_series_in_one_folder_become_movies_of_their_own(tmp_path):
    save_cine(tmp_path)
    other = cine_pixels(n_slices=2)[::-1]
    for t in range(4):
        for z in range(2):
            facts = {"SeriesInstanceUID": "1.2.3.9", "SOPInstanceUID": f"1.2.3.9.{t}.{z}", "SeriesNumber": 9}
            save(plane_of(other[t, z], t, z, **facts), tmp_path / f"other{t}{z}.dcm")
    movies = {movie.view: movie for movie in find_movies(tmp_path).movies}
    assert np.array_equal(movies["s5"].load_image(), cine_pixels())
    assert np.array_equal(movies["s9"].load_image(), other)


def save_slice_series(folder, z, series, number, t_first=0):
    pixels = cine_pixels()[t_first:, z]
    for t, frame in enumerate(pixels, start=t_first):
        facts = {"SeriesInstanceUID": series, "SOPInstanceUID": f"{series}.{t}", "SeriesNumber": number}
        save(plane_of(frame, t, z, **facts), folder / f"{series}_{t}.dcm")


def test_one_series_per_slice_becomes_one_stack(tmp_path):
    for z in range(3):
        save_slice_series(tmp_path, z, f"1.2.8.{3 - z}", 30 - z)
    movie = only_movie(tmp_path)
    assert np.array_equal(movie.load_image(), cine_pixels())
    assert movie.spacing.slice_mm == pytest.approx(9.0)
    assert [source.series_uid for source in movie.frames[0]] == ["1.2.8.3", "1.2.8.2", "1.2.8.1"]


def test_a_phase_missing_from_a_series_of_one_slice_is_named(tmp_path):
    for z in range(3):
        save_slice_series(tmp_path, z, f"1.2.8.{3 - z}", 30 - z, t_first=int(z == 1))
    with pytest.raises(InputError, match=r"slice 1 .* has 3 of 4 phases"):
        find_movies(tmp_path)


def test_a_slice_that_was_acquired_twice_is_refused(tmp_path):
    for z, series in ((0, "1.2.8.1"), (1, "1.2.8.2"), (1, "1.2.8.3")):
        save_slice_series(tmp_path, z, series, 30)
    with pytest.raises(InputError, match=r"series 1\.2\.8\.2, 1\.2\.8\.3 are slices of one stack and show the same"):
        find_movies(tmp_path)


def test_two_movies_of_one_place_are_two_views(tmp_path):
    for series, number in (("1.2.8.2", 7), ("1.2.8.3", 8)):
        save_slice_series(tmp_path, 1, series, number)
    assert [movie.view for movie in find_movies(tmp_path).movies] == ["s7", "s8"]


def test_orientations_within_a_series_are_movies_of_their_own(tmp_path):
    save_cine(tmp_path)
    for t in range(4):
        facts = {"ImageOrientationPatient": [0, 1, 0, 0, 0, 1], "SOPInstanceUID": f"1.7.{t}", "InstanceNumber": 90 + t}
        save(plane_of(cine_pixels()[t, 0], t, 0, **facts), tmp_path / f"long{t}.dcm")
    movies = find_movies(tmp_path).movies
    assert [(movie.view, movie.shape[1]) for movie in movies] == [("s5n1", 3), ("s5n2", 1)]


def test_enhanced_mr_is_sorted_by_its_functional_groups(tmp_path):
    slopes = np.arange(1, 13).reshape(4, 3)
    path = save_enhanced_cine(tmp_path / "enhanced.dcm", cine_pixels(), slopes)
    movie = only_movie(tmp_path)
    np.testing.assert_allclose(movie.load_image(), cine_pixels() * slopes[..., None, None] + 3)
    assert movie.spacing.slice_mm == pytest.approx(9.0) and movie.spacing.frame_s == pytest.approx(0.04)
    assert all(source.is_multi_frame and source.path == path for source in movie.frames[0])


@pytest.mark.parametrize(("interval", "is_cyclic"), [(165, True), (200, False), (None, False)])
def test_phases_that_fill_the_heart_beat_are_cyclic(tmp_path, interval, is_cyclic):
    save_cine(tmp_path, NominalInterval=interval)
    assert only_movie(tmp_path).cyclic is is_cyclic


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_missing_place_is_named(tmp_path, keyword):
    files = save_cine(tmp_path)
    change(files[0, 0], **{keyword: None})
    with pytest.raises(InputError, match=rf"{files[0, 0].name}: {keyword} is missing"):
        find_movies(tmp_path)


@pytest.mark.parametrize(
    "facts",
    [
        {"PixelSpacing": [1.5]},
        {"PixelSpacing": [-1.5, 1.25]},
        {"PixelSpacing": ["nan", 1.25]},
        {"ImagePositionPatient": [1, 2]},
        {"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]},
        {"AcquisitionTime": "10:30:05"},
        {"RescaleSlope": "inf"},
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_numbers_that_cannot_be_are_refused_with_file_and_tag(tmp_path, facts):
    files = save_cine(tmp_path)
    change(files[1, 1], **facts)
    with pytest.raises(InputError, match=rf"{files[1, 1].name}: found .*{next(iter(facts))}"):
        find_movies(tmp_path)
