"""Pictures of a stack inside a page: within their budget, and what stands on them."""

import base64
import io
import json

import numpy as np
import pytest
from mask_folders import SCHEME
from PIL import Image
from segmented_hearts import beating, drawn_at, segmented

from nnunet_temporal.report.film import make_film

FRAMES = 12
HEART = beating((5, 4, 3) * (FRAMES // 3))


def picture(address):
    kind, content = address.split(",")
    assert kind == "data:image/webp;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_with_room_all_frames_are_shown_at_their_own_size():
    film = make_film(segmented(HEART), SCHEME, 1_000_000)
    assert film.frames == tuple(range(FRAMES))
    assert len(film.pictures) == len(film.outlines) == FRAMES
    # Masks of 14 pixels with 35 % room on both sides: the 24 pixels of the image; small ones are enlarged.
    assert (film.box.size, film.columns, film.panel_px) == (24, 2, 56)
    assert picture(film.pictures[0]).size == (2 * 56, 56)
    assert film.truth == {}


def test_pictures_show_their_own_frame_and_slice():
    stack = segmented(HEART)
    stack.image[:] = 0
    stack.image[3, 1] = np.linspace(0, 255, 24)
    shown = np.asarray(picture(make_film(stack, SCHEME, 1_000_000).pictures[3]).convert("L")).astype(int)
    assert shown[:, :56].max() < 20
    assert shown[28, 60] < 40 and shown[28, 108] > 200


def test_outlines_are_by_slice_and_label_and_the_experts_only_where_they_drew():
    film = make_film(segmented(HEART, drawn_at(HEART, 2, 5)), SCHEME, 1_000_000)
    assert sorted(film.truth) == [2, 5]
    slices = json.loads(film.outlines[2])
    assert [[len(polygons) for polygons in labels] for labels in slices] == [[1, 2], [1, 2]]
    assert film.truth[2] == film.outlines[2]


@pytest.mark.parametrize("share", [0.9, 0.6, 0.45, 0.3])
def test_a_film_keeps_to_its_budget_by_losing_sharpness_and_then_frames(share):
    whole = make_film(segmented(HEART, ed=1, es=6), SCHEME, 1_000_000).n_bytes
    film = make_film(segmented(HEART, ed=1, es=6), SCHEME, int(share * whole))
    assert film.n_bytes <= share * whole
    assert {1, 6} <= set(film.frames)
    assert list(film.frames) == sorted(set(film.frames))


def test_a_film_keeps_to_its_budget_where_ed_is_smaller_than_the_other_frames():
    stack = segmented(HEART, ed=0, es=6)
    stack.image[1:] = np.random.default_rng(0).integers(0, 256, stack.image[1:].shape)
    stack.image[0] = 0
    budget = int(0.8 * make_film(stack, SCHEME, 1_000_000).n_bytes)
    assert make_film(stack, SCHEME, budget).n_bytes <= budget


@pytest.mark.parametrize(("fields", "frames"), [({"ed": 1, "es": 6}, (1, 6)), ({}, (0, 2))])
def test_without_room_ed_and_es_are_left(fields, frames):
    film = make_film(segmented(HEART, **fields), SCHEME, 100)
    assert film.frames == frames


def test_without_room_and_phases_the_first_and_the_middle_frame_are_left():
    assert make_film(segmented(np.zeros_like(HEART)), SCHEME, 100).frames == (0, FRAMES // 2)


def test_large_slices_are_made_smaller():
    wide = np.zeros((2, 1, 400, 420), np.uint8)
    wide[:, :, 5:395, 8:398] = 1
    film = make_film(segmented(wide), SCHEME, 1_000_000)
    assert film.panel_px == 256 and film.box.size == 400


def test_one_frame_without_any_mask_is_a_film():
    film = make_film(segmented(np.zeros_like(HEART[:1, 0])), SCHEME, 1_000_000)
    assert film.frames == (0,)
    assert json.loads(film.outlines[0]) == [[[], []]]
