"""Holes, parts and rings in drawn masks, counted by hand."""

import numpy as np
import pytest

from nnunet_temporal.metrics.validity import count_holes, count_parts, ring_opening_share


def drawing(*rows: str) -> np.ndarray:
    """One frame from text: the characters of each pixel."""
    return np.array([list(row) for row in rows])[None]


def test_parts_are_counted_in_every_frame() -> None:
    masks = np.zeros((3, 5, 5), bool)
    masks[0, 0, 0] = masks[0, 4, 4] = masks[0, 2, 2] = True
    masks[2, 1:4, 1:4] = True
    assert count_parts(masks).tolist() == [3, 0, 1]


def test_parts_that_touch_at_a_corner_are_one() -> None:
    assert count_parts(drawing("#..", ".#.", "..#") == "#").tolist() == [1]


def test_parts_are_not_joined_across_frames() -> None:
    masks = np.zeros((2, 3, 3), bool)
    masks[0, 0, 0] = masks[1, 0, 0] = masks[1, 2, 2] = True
    assert count_parts(masks).tolist() == [1, 2]


def test_holes_are_counted_in_every_frame() -> None:
    frames = [
        drawing("#####", "#.#.#", "#####", "#...#", "#####"),
        drawing("#####", "#####", "#####", "#####", "#####"),
        drawing(".....", ".....", ".....", ".....", "....."),
    ]
    assert count_holes(np.concatenate(frames) == "#").tolist() == [3, 0, 0]


def test_a_bay_that_opens_at_the_image_border_is_no_hole() -> None:
    assert count_holes(drawing("##.##", "#...#", "#####") == "#").tolist() == [0]


def test_pixels_that_touch_at_corners_close_a_hole() -> None:
    assert count_holes(drawing(".#.", "#.#", ".#.") == "#").tolist() == [1]


def test_the_cavity_fills_its_wall() -> None:
    frame = drawing("MMMMM", "ML.LM", "MLLLM", "MMMMM")
    assert count_holes(frame == "M").tolist() == [1]
    assert count_holes((frame == "M") | (frame == "L")).tolist() == [1]
    assert count_holes(frame != " ").tolist() == [0]


def test_a_closed_ring_is_open_nowhere() -> None:
    frame = drawing(".....", ".MMM.", ".MLM.", ".MMM.", ".....")
    assert ring_opening_share(frame == "L", frame == "M").tolist() == [0.0]


def test_opening_is_the_share_of_pixel_edges_without_wall() -> None:
    frame = drawing("......", ".MMMM.", ".MLL..", ".MMMM.", "......")
    # the two pixels have 6 outer edges, one of them towards the background
    np.testing.assert_allclose(ring_opening_share(frame == "L", frame == "M"), [1 / 6])


def test_what_is_set_aside_neither_opens_nor_closes_the_ring() -> None:
    frame = drawing("......", ".MMMM.", ".MLLR.", ".M.MM.", "......")
    # 6 outer edges: 4 towards the wall, 1 towards R, 1 towards the background
    np.testing.assert_allclose(ring_opening_share(frame == "L", frame == "M"), [2 / 6])
    np.testing.assert_allclose(ring_opening_share(frame == "L", frame == "M", frame == "R"), [1 / 5])


def test_the_image_border_is_open() -> None:
    np.testing.assert_allclose(ring_opening_share(*(drawing("LM", "MM") == kind for kind in "LM")), [2 / 4])


def test_a_ring_without_a_cavity_is_nan() -> None:
    frames = np.concatenate([drawing("MM", "MM"), drawing("LM", "MM")])
    assert np.isnan(ring_opening_share(frames == "L", frames == "M")).tolist() == [True, False]


@pytest.mark.parametrize("masks", [np.ones((3, 4, 4), np.uint8), np.ones((4, 4), bool)])
def test_counts_refuse_what_is_no_boolean_movie(masks) -> None:
    for count in (count_parts, count_holes):
        with pytest.raises(ValueError, match=r"masks must be boolean \(T, Y, X\)"):
            count(masks)


def test_ring_refuses_masks_of_different_shapes() -> None:
    with pytest.raises(ValueError, match="wall must have the shape of cavity"):
        ring_opening_share(np.ones((1, 4, 4), bool), np.ones((1, 4, 5), bool))
