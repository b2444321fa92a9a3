"""Triplets of labelled frames: their kinds, and exactly which frames they are made of."""

import numpy as np
import pytest

from nnunet_temporal.sequences import Sequence
from nnunet_temporal.training.triplets import FARTHEST_SLICE, Place, TripletSampler


def sampler_of(labelled, study="s", view=None):
    """Sample from one stack: {slice: labelled frames}."""
    return TripletSampler(stack(labelled, study, view))


def stack(labelled, study="s", view=None):
    return [Sequence(f"{study}{z}", study, 20, tuple(frames), slice=z, view=view) for z, frames in labelled.items()]


def names(triplets):
    """Write triplets as (slice, frame) pairs."""
    return {tuple((int(place.case[1:]), place.frame) for place in triplet) for triplet in triplets}


def draws(sampler, case, frame, number=60):
    rng = np.random.default_rng(0)
    return names(sampler.sample(Place(case, frame), rng) for _ in range(number))


STACK = {0: (0, 8), 1: (0, 8), 2: (0, 8)}


@pytest.mark.parametrize(("first", "other"), [(0, 8), (8, 0)])
def test_along_time_ed_and_es_alternate(first, other):
    assert names(sampler_of(STACK).along_time(Place("s1", first))) == {((1, first), (1, other), (1, first))}


def test_along_time_of_many_labelled_frames_neighbours_in_a_triplet_differ():
    triplets = names(sampler_of({0: (1, 4, 7)}).along_time(Place("s0", 4)))
    frames = {tuple(frame for _, frame in triplet) for triplet in triplets}
    assert frames == {(4, 1, 4), (4, 1, 7), (4, 7, 4), (4, 7, 1)}


@pytest.mark.parametrize(("start", "expected"), [(0, {(0, 1, 2)}), (1, set()), (2, {(2, 1, 0)})])
def test_along_slices_three_slices_follow_in_one_direction_at_one_moment(start, expected):
    triplets = names(sampler_of(STACK).along_slices(Place(f"s{start}", 8)))
    assert triplets == {tuple((z, 8) for z in slices) for slices in expected}


def test_along_slices_gaps_are_allowed_and_the_whole_triplet_stays_near():
    triplets = names(sampler_of({z: (0,) for z in range(0, 12, 2)}).along_slices(Place("s4", 0)))
    assert {tuple(z for z, _ in triplet) for triplet in triplets} == {(4, 6, 8), (4, 2, 0)}
    assert FARTHEST_SLICE == 5


def test_around_the_corner_time_comes_first_and_then_a_slice_at_that_moment():
    expected = {((1, 0), (1, 8), (z, 8)) for z in (0, 2)}
    assert names(sampler_of(STACK).around_corner(Place("s1", 0))) == expected


def test_slices_that_are_not_labelled_at_the_moment_have_no_part():
    sampler = sampler_of({0: (0, 8), 1: (0,), 2: (8,)})
    assert names(sampler.around_corner(Place("s0", 0))) == {((0, 0), (0, 8), (2, 8))}
    assert sampler.along_slices(Place("s0", 0)) == []


def test_other_studies_and_other_views_are_no_siblings():
    sampler = TripletSampler([*stack({0: (0,)}), *stack({1: (0,)}, "o"), *stack({2: (0,)}, "s", "LAX")])
    assert sampler.around_corner(Place("s0", 0)) == sampler.along_slices(Place("s0", 0)) == []


def test_a_triplet_is_of_every_kind_the_study_has_sooner_or_later():
    sampler, first = sampler_of(STACK), Place("s0", 0)
    kinds = [names(kind(first)) for kind in (sampler.along_time, sampler.along_slices, sampler.around_corner)]
    assert all(kinds)
    assert draws(sampler, "s0", 0) == set().union(*kinds)


def test_each_kind_is_as_likely_however_many_triplets_it_has():
    sampler, rng = sampler_of({z: (0, 8) for z in range(6)}), np.random.default_rng(0)
    drawn = [sampler.sample(Place("s0", 0), rng) for _ in range(900)]
    along_time = sum(triplet[1].frame == 8 and triplet[2].case == "s0" for triplet in drawn)
    assert len(sampler.along_slices(Place("s0", 0))) > 5
    assert 250 < along_time < 350


@pytest.mark.parametrize(
    ("labelled", "case", "frame", "expected"),
    [
        ({0: (5,)}, "s0", 5, {((0, 5),) * 3}),
        ({0: (5,), 9: (5,)}, "s0", 5, {((0, 5),) * 3}),
        ({0: (5,), 1: (5,), 2: (5,)}, "s0", 5, {((0, 5), (1, 5), (2, 5))}),
        ({0: (5, 9)}, "s0", 9, {((0, 9), (0, 5), (0, 9))}),
    ],
    ids=["one frame", "a far slice", "one moment", "no siblings"],
)
def test_what_a_study_lacks_falls_back_to_what_it_has(labelled, case, frame, expected):
    assert draws(sampler_of(labelled), case, frame) == expected


def test_a_sequence_that_is_no_slice_has_triplets_along_time_only():
    sequence = Sequence("echo_4CH", "echo", 20, (3, 9), view="4CH")
    sampler = TripletSampler([sequence, Sequence("echo_2CH", "echo", 20, (3, 9), view="2CH")])
    triplet = sampler.sample(Place("echo_4CH", 3), np.random.default_rng(0))
    assert triplet == (Place("echo_4CH", 3), Place("echo_4CH", 9), Place("echo_4CH", 3))
