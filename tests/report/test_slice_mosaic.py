"""Slices as one picture: the box, the grey values, the outlines."""

import numpy as np
import pytest

from nnunet_temporal.report.slice_mosaic import crop_box, draw_outline, grey_window, mosaic_columns, still_background


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
