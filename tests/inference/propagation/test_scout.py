"""The first look at a study: its heart in every slice, the best slice and moment to begin with."""

import numpy as np
import pytest

from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.inference.propagation.scout import Profile, largest_frame, look_around

VALUES = {"RV": 1, "MYO": 2, "LV": 3}
LABELS = LabelScheme(VALUES, 4, {name: name for name in VALUES})
NAMELESS = LabelScheme({"1": 1, "2": 2, "3": 3}, None, {})
FRAME = 5


def heart(radius=4):
    """Return a disc of LV in a ring of MYO, with RV beside it, (Y, X)."""
    y, x = np.mgrid[:24, :24]
    distance = np.hypot(y - 12, x - 14)
    mask = np.where(distance < radius, 3, np.where(distance < radius + 2.5, 2, 0))
    mask[8:16, 3:6] = 1
    return mask.astype(np.uint8)


def without(mask, value):
    return np.where(mask == value, 0, mask)


def in_two_parts(mask):
    mask = mask.copy()
    mask[0, 0] = 1
    return mask


def opened(mask):
    """Cut the ring of MYO open on one side; it stays one part."""
    mask = mask.copy()
    mask[10:14, 18:] = 0
    return mask


def profile(slices, certainties=None, labels=LABELS):
    """Look around in a stack of masks; each slice is equally certain everywhere, or as an array says."""
    asked = []

    def look(z, index):
        asked.append((z, index.tolist()))
        certainty = 0.9 if certainties is None else certainties[z]
        return slices[z][None], np.broadcast_to(certainty, (1, 24, 24))

    found = look_around(look, len(slices), FRAME, labels)
    assert asked == [(z, [FRAME]) for z in range(len(slices))]  # each slice once, at this moment
    return found


def test_the_slice_in_the_middle_of_the_heart_is_best_where_all_are_flawless():
    empty = np.zeros((24, 24), np.uint8)
    found = profile([empty, empty, empty, heart(5), heart(4), heart(3)])
    assert found == Profile(tuple(int((m > 0).sum()) for m in (empty, empty, empty, heart(5), heart(4), heart(3))), 4)


@pytest.mark.parametrize(
    "flawed", [without(heart(), 1), in_two_parts(heart()), opened(heart()), without(heart(), 3), without(heart(), 2)]
)
def test_a_slice_with_a_flaw_is_not_taken_though_it_is_in_the_middle(flawed):
    assert profile([heart(), flawed, flawed]).best_slice == 0


def test_of_slices_with_flaws_the_one_with_fewest_is_taken():
    one, two = without(heart(), 1), opened(without(heart(), 1))
    assert profile([one, two, two]).best_slice == 0


def test_of_two_slices_as_near_to_the_middle_the_one_with_the_surer_structure_is_taken():
    assert profile([heart()] * 2, (0.8, 0.9)).best_slice == 1
    assert profile([heart()] * 2, (0.9, 0.8)).best_slice == 0
    # What counts is the least certain structure, not the whole.
    unsure_of_rv = np.where(heart() == 1, 0.5, 1.0)
    assert profile([heart()] * 2, (unsure_of_rv, 0.6)).best_slice == 1


def test_being_nearer_to_the_middle_counts_for_more_than_being_sure():
    assert profile([heart()] * 3, (1.0, 0.5, 1.0)).best_slice == 1


def test_rings_are_judged_only_where_labels_say_what_is_a_ring():
    assert profile([heart(), opened(heart()), heart()], labels=NAMELESS).best_slice == 1


def test_slices_without_heart_are_never_taken():
    empty = np.zeros((24, 24), np.uint8)
    poor = (heart() == 1).astype(np.uint8)
    assert profile([empty, empty, empty, poor]).best_slice == 3
    assert profile([empty, empty]) == Profile((0, 0), None)


def test_a_few_stray_pixels_are_not_taken_though_they_look_like_a_heart():
    tiny = np.zeros((24, 24), np.uint8)
    tiny[4:7, 4:7] = 2
    tiny[5, 5], tiny[5, 8] = 3, 1
    assert profile([np.ones((24, 24), np.uint8), tiny]).best_slice == 0


def movie_look(masks, slice_):
    def look(z, index):
        assert z == slice_
        return masks[index], np.ones(masks[index].shape)

    return look


def test_the_moment_of_the_largest_ventricle_is_found():
    masks = np.stack([heart(radius) for radius in (2, 4, 5, 3)])
    masks[0][:, :8] = 1  # the largest heart is elsewhere
    assert largest_frame(movie_look(masks, 7), 7, 4, LABELS) == 2
    assert largest_frame(movie_look(masks, 7), 7, 4, NAMELESS) == 0


def test_without_a_ventricle_in_any_frame_the_largest_heart_counts():
    masks = np.stack([without(heart(radius), 3) for radius in (2, 5, 3)])
    assert largest_frame(movie_look(masks, 0), 0, 3, LABELS) == 1
