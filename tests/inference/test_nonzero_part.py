"""The part of a sequence that is kept holds every nonzero pixel, and no more than it must."""

import numpy as np
import pytest

from nnunet_temporal.inference.nonzero_part import NonzeroPart


@pytest.fixture
def part():
    """Measure two channels of 6 frames, of which frame 3 is black between others."""
    image = np.zeros((2, 6, 5, 7), np.int16)
    image[0, 2, 1, 3], image[1, 4, 3, 5] = 9, -1
    return NonzeroPart.of(image)


def test_it_reaches_from_the_first_nonzero_pixel_of_any_channel_to_the_last(part):
    assert part[:3] == (slice(2, 5), slice(1, 4), slice(3, 6))
    assert part.crop(np.ones((2, 6, 5, 7))).shape == (2, 3, 3, 3)


@pytest.mark.parametrize(("keeps_zero", "blank"), [(True, [0, 1, 3, 5]), (False, [0, 1, 5])])
def test_black_frames_within_it_are_blank_only_where_zero_stays_zero(part, keeps_zero, blank):
    assert np.flatnonzero(part.blank_frames(keeps_zero=keeps_zero)).tolist() == blank
    assert np.flatnonzero(part.black).tolist() == [0, 1, 3, 5]


def test_a_mask_gets_back_the_frames_that_were_cut_off(part):
    mask = part.with_all_frames(np.ones((3, 3, 3), bool))
    assert mask.any((1, 2)).tolist() == [False, False, True, True, True, False]
    assert part.with_all_frames(None) is None


def test_nothing_is_cut_off_a_sequence_of_zeros():
    part = NonzeroPart.of(np.zeros((1, 3, 4, 5)))
    assert part[:3] == (slice(0, 3), slice(0, 4), slice(0, 5)) and part.black.all()
    assert not part.blank_frames(keeps_zero=False).any()
