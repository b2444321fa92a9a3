"""Outlines of masks as polygons: rasterised again they are the masks."""

import numpy as np
import pytest
from skimage.draw import polygon2mask

from nnunet_temporal.report.outlines import GRAIN, outlines
from nnunet_temporal.report.slice_mosaic import CropBox

SIDE = 12
WHOLE = CropBox(0, 0, SIDE)


def rasterised(polygons, size=SIDE):
    """Fill polygons by the even-odd rule, as the page does, and return the pixels whose centres are inside."""
    inside = np.zeros((size, size), bool)
    for flat in polygons:
        steps = np.array(flat).reshape(-1, 2)
        corners = np.cumsum(steps, axis=0) / GRAIN  # x, y
        # A pixel's centre lies at one half; polygon2mask asks at whole numbers.
        inside ^= polygon2mask((size, size), corners[:, ::-1] - 0.5)
    return inside


def with_hole():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[2:10, 3:9] = True
    mask[5:7, 5:7] = False
    return mask


def speckled():
    return np.random.default_rng(3).random((SIDE, SIDE)) < 0.4


def at_the_border():
    mask = np.zeros((SIDE, SIDE), bool)
    mask[0:3, 0:SIDE] = mask[:, SIDE - 1] = True
    return mask


@pytest.mark.parametrize("make", [with_hole, speckled, at_the_border, lambda: np.ones((SIDE, SIDE), bool)])
def test_a_polygon_filled_again_is_the_mask(make):
    mask = make()
    ((polygons,),) = outlines(mask[None].astype(np.uint8), {"LV": 1}, WHOLE)
    np.testing.assert_array_equal(rasterised(polygons), mask)


def test_a_single_pixel_is_a_diamond_around_its_centre():
    masks = np.zeros((1, SIDE, SIDE), np.uint8)
    masks[0, 2, 5] = 1
    ((polygons,),) = outlines(masks, {"LV": 1}, WHOLE)
    (flat,) = polygons
    corners = np.cumsum(np.array(flat).reshape(-1, 2), axis=0)
    # In halves of pixels, x and y: around (5.5, 2.5).
    assert {tuple(corner) for corner in corners.tolist()} == {(10, 5), (12, 5), (11, 4), (11, 6)}


def test_straight_edges_cost_no_corners():
    masks = np.zeros((1, SIDE, SIDE), np.uint8)
    masks[0, 2:10, 2:10] = 1
    ((polygons,),) = outlines(masks, {"LV": 1}, WHOLE)
    assert len(polygons[0]) == 2 * 8


def test_slices_and_labels_keep_their_order_and_empty_ones_have_nothing():
    masks = np.zeros((2, SIDE, SIDE), np.uint8)
    masks[1, 4:6, 4:6] = 7
    assert outlines(masks, {"LV": 1, "RV": 7}, WHOLE)[0] == [[], []]
    first, second = outlines(masks, {"LV": 1, "RV": 7}, WHOLE)[1]
    assert first == [] and len(second) == 1


def test_outlines_are_placed_in_the_box():
    masks = np.zeros((1, SIDE, SIDE), np.uint8)
    masks[0, 4:8, 5:9] = 1
    ((polygons,),) = outlines(masks, {"LV": 1}, CropBox(y=3, x=4, size=6))
    np.testing.assert_array_equal(rasterised(polygons, 6), masks[0, 3:9, 4:10] == 1)
