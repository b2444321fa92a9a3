"""The movie and the curve: what is in the files, and that every study can be drawn."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from nnunet_temporal.report.overlay_movie import write_overlay_movie
from nnunet_temporal.report.slice_mosaic import (
    EXPERT_COLOUR,
    PREDICTION_COLOUR,
    crop_box,
    draw_outline,
    grey_window,
    mosaic_columns,
    still_background,
)
from nnunet_temporal.report.study_result import StudyResult
from nnunet_temporal.report.volume_curve import write_volume_curve


def make_result(n_slices: int = 2, n_frames: int = 5) -> StudyResult:
    """Return a study with a beating disc; the expert drew all slices in frames 0 and 2."""
    y, x = np.mgrid[:32, :32]
    radius = 8 + 3 * np.cos(2 * np.pi * np.arange(n_frames) / n_frames)
    disc = np.hypot(y - 15, x - 17) < radius[:, None, None]  # (T, Y, X)
    masks = np.repeat(disc[:, None], n_slices, axis=1)  # (T, Z, Y, X)
    noise = np.random.default_rng(0).normal(size=masks.shape)
    labelled = np.zeros(masks.shape[:2], bool)
    labelled[[0, min(2, n_frames - 1)]] = True
    image = (100 * masks + noise).astype(np.float32)
    return StudyResult("study", image, masks, masks, labelled, 0, min(2, n_frames - 1), (8.0, 1.4, 1.4), 0.04)


def has_colour(picture: Image.Image, colour: tuple[int, int, int]) -> bool:
    """Return whether some pixels of the mosaic are nearly of a colour."""
    mosaic = np.asarray(picture.convert("RGB"))[50:-90].astype(int)
    return int((np.abs(mosaic - colour).max(axis=-1) < 40).sum()) > 20


def test_the_movie_has_all_frames_and_shows_the_expert_where_they_drew(tmp_path):
    path = tmp_path / "movie.gif"
    write_overlay_movie(make_result(), path)
    with Image.open(path) as movie:
        assert movie.n_frames == 5
        durations, expert_seen = [], []
        for frame in range(5):
            movie.seek(frame)
            assert has_colour(movie, PREDICTION_COLOUR)
            durations.append(movie.info["duration"])
            expert_seen.append(has_colour(movie, EXPERT_COLOUR))
    assert expert_seen == [True, False, True, False, False]
    assert durations[0] > durations[1]
    assert movie.info.get("loop") == 0


@pytest.mark.parametrize(("n_slices", "n_frames"), [(1, 1), (3, 2)])
def test_a_movie_of_few_slices_and_frames_is_drawn(tmp_path, n_slices, n_frames):
    write_overlay_movie(make_result(n_slices, n_frames), tmp_path / "movie.gif")
    assert (tmp_path / "movie.gif").stat().st_size > 0


def test_a_movie_without_any_prediction_is_drawn(tmp_path):
    result = make_result()
    empty = np.zeros_like(result.prediction)
    write_overlay_movie(replace(result, prediction=empty, frame_interval_s=None), tmp_path / "movie.gif")
    assert (tmp_path / "movie.gif").stat().st_size > 0


@pytest.mark.parametrize("frame_interval_s", [0.04, None])
def test_the_volume_curve_is_a_picture(tmp_path, frame_interval_s):
    path = tmp_path / "curve.png"
    write_volume_curve(replace(make_result(), frame_interval_s=frame_interval_s), path)
    with Image.open(path) as picture:
        assert picture.size == (1200, 690)


def test_a_curve_without_compared_slices_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no slice is labelled at both ED"):
        write_volume_curve(replace(make_result(), labelled=np.zeros((5, 2), bool)), tmp_path / "curve.png")


def test_the_crop_box_is_a_square_around_all_masks_inside_the_image():
    masks = np.zeros((3, 20, 30), bool)
    masks[0, 10:14, 25:29] = True
    masks[2, 8, 27] = True
    box = crop_box(masks, margin=0.2)
    # The masks span 6 rows and 4 columns; 6 * (1 + 2 * 0.2) is 8.4, rounded up to 9. Centred, but inside the image.
    assert (box.y, box.x, box.size) == (6, 21, 9)


def test_the_crop_box_without_a_mask_is_the_whole_image_as_a_square():
    box = crop_box(np.zeros((2, 20, 30), bool))
    assert (box.y, box.x, box.size) == (0, 5, 20)


def test_the_grey_window_of_a_constant_image_is_black():
    assert not grey_window(np.full((2, 3), 7.0)).any()


def test_noise_is_held_still_and_motion_is_kept():
    grey = np.array([[100.0, 100.0], [104.0, 150.0], [97.0, 151.0]])
    np.testing.assert_array_equal(still_background(grey, tolerance=5), [[100, 100], [100, 150], [100, 150]])


def test_an_outline_leaves_the_inside_alone_unless_filled():
    mask = np.zeros((10, 10), bool)
    mask[2:8, 2:8] = True
    canvas = np.zeros((50, 50, 3), np.float32)
    draw_outline(canvas, mask, (250, 0, 0), width_px=2)
    assert canvas[25, 25].tolist() == [0, 0, 0]
    assert canvas[25, 8:13, 0].max() == 250
    draw_outline(canvas, mask, (250, 0, 0), width_px=2, filled=True)
    assert 0 < canvas[25, 25, 0] < 100


@pytest.mark.parametrize(("n_slices", "columns"), [(1, 1), (3, 2), (9, 4), (12, 4), (16, 5)])
def test_the_mosaic_is_about_four_to_three(n_slices, columns):
    assert mosaic_columns(n_slices) == columns
