"""Base, middle and apex of a stack, from the area of the heart in its slices or as somebody counted them."""

from collections import Counter

import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.propagation.regions import (
    Regions,
    find_apex,
    given_regions,
    heart_slices,
    split_regions,
)

TO_LAST = [120, 100, 90, 80, 60, 30]  # the areas of a stack whose last slice is at the apex


def test_the_heart_reaches_from_the_first_slice_that_shows_it_to_the_last():
    assert heart_slices([0, 0, 50, 0, 80, 40, 0]) == range(2, 6)


def test_a_few_stray_pixels_are_no_heart():
    assert heart_slices([19, 1000, 500, 21, 20]) == range(1, 4)


@pytest.mark.parametrize("areas", [[], [0], [0, 0, 0]])
def test_where_no_slice_shows_the_heart_there_is_none(areas):
    assert len(heart_slices(areas)) == 0
    assert find_apex(areas) is None


def test_the_apex_is_at_the_end_where_the_heart_is_smaller():
    assert find_apex(TO_LAST) == "last"
    assert find_apex(TO_LAST[::-1]) == "first"


def test_slices_without_heart_do_not_tell_where_the_apex_is():
    assert find_apex([0, 0, 0, *TO_LAST]) == "last"
    assert find_apex([*TO_LAST[::-1], 0, 0, 0]) == "first"


def test_the_apex_is_unknown_where_both_ends_are_about_as_large():
    assert find_apex([100, 110, 90]) is None
    assert find_apex([100, 110, 86]) == "last"


@pytest.mark.parametrize("areas", [[100], [100, 10], [0, 100, 10, 0]])
def test_one_or_two_slices_of_the_heart_do_not_tell_where_the_apex_is(areas):
    assert find_apex(areas) is None


@pytest.mark.parametrize(
    ("slices", "counts"),
    [(1, (0, 1, 0)), (2, (0, 2, 0)), (3, (1, 1, 1)), (5, (1, 3, 1)), (8, (2, 4, 2)), (10, (3, 4, 3))],
)
def test_thirds_are_rounded_down_and_the_middle_takes_the_rest(slices, counts):
    names = ["base"] * counts[0] + ["middle"] * counts[1] + ["apex"] * counts[2]
    assert split_regions([100] * slices, "last") == Regions(tuple(names), "last")
    assert split_regions([100] * slices, "first") == Regions(tuple(names[::-1]), "first")


def test_slices_beyond_the_heart_belong_to_the_region_at_their_end():
    expected = ("base", "base", "base", "middle", "apex", "apex")
    assert split_regions([0, 0, 90, 60, 30, 0], "last").names == expected
    assert split_regions([0, 30, 60, 90, 0, 0], "first").names == expected[::-1]


def test_a_heart_of_two_slices_is_all_middle_with_what_lies_beyond():
    assert split_regions([0, 50, 40, 0], "last").names == ("middle",) * 4


@pytest.mark.parametrize("areas", [TO_LAST, [0, 0, 0]])
def test_without_a_known_apex_or_a_heart_nothing_is_apical(areas):
    regions = split_regions(areas, None)
    assert regions == Regions(("middle",) * len(areas), None)
    assert not regions.apical


def test_apical_slices_are_those_of_the_apex():
    assert split_regions(TO_LAST, "last").apical == {4, 5}
    assert split_regions(TO_LAST[::-1], "first").apical == {0, 1}


@pytest.mark.parametrize("counts", [(0, 0, 1), (0, 1, 1), (0, 0, 2)])
def test_stacks_of_one_and_two_slices_have_no_apical_ones(counts):
    regions = given_regions(counts, sum(counts), "last")
    assert "apex" in regions.names
    assert not regions.apical


def test_counted_slices_are_named_from_the_base_to_the_apex():
    expected = ("base", "base", "middle", "apex", "apex", "apex")
    assert given_regions((2, 1, 3), 6, "last") == Regions(expected, "last")
    assert given_regions((2, 1, 3), 6, "first") == Regions(expected[::-1], "first")
    assert Counter(given_regions((0, 6, 0), 6, "last").names) == {"middle": 6}


@pytest.mark.parametrize("counts", [(2, 1, 2), (-1, 4, 3), (3, 3), (2, 2, 1, 1), ()])
def test_counts_that_do_not_make_the_stack_are_refused(counts):
    found = " ".join(map(str, counts))
    with pytest.raises(InputError, match=f"found {found}, expected numbers of slices .* add up to 6"):
        given_regions(counts, 6, "last")
