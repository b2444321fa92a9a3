"""Which frames are segmented in which order, and what each recalls: CSTM's rules, told once more in plain loops."""

import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.propagation.route import Place, Recall, Route, last_uses

SLICES, FRAMES = 7, 6
SEED = Place(3, 0)
APICAL = frozenset({5, 6})


def route(seeds=(SEED,), **options):
    return Route(SLICES, FRAMES, frozenset(seeds), **{"apical": APICAL, **options})


def visits_of(route):
    """Return every visit with its slice, in order, as (slice, wave, visit)."""
    return [(row.slice, n, visit) for row in route.rows() for n, wave in enumerate(row.waves) for visit in wave]


def memory_of(route, z, t, way=None):
    """Return the places that a frame recalls."""
    (visit,) = [v for s, _, v in visits_of(route) if (s, v.frame) == (z, t) and way in (None, v.way)]
    return [recall.place for recall in visit.recalls]


def test_the_middle_slice_recalls_the_seed_and_the_frame_before():
    for t in range(1, FRAMES):
        assert memory_of(route(), 3, t) == list(dict.fromkeys([SEED, Place(3, t - 1)]))


@pytest.mark.parametrize(("z", "nearer"), [(2, 3), (1, 2), (0, 1), (4, 3)])
def test_slices_towards_base_and_middle_recall_the_seed_and_the_slice_nearer_to_it(z, nearer):
    for t in range(FRAMES):
        assert memory_of(route(), z, t) == list(dict.fromkeys([SEED, Place(nearer, t)]))
    assert len({n for s, n, _ in visits_of(route()) if s == z}) == 1  # all at once


@pytest.mark.parametrize("z", APICAL)
def test_apical_slices_recall_the_frame_before_as_well(z):
    assert memory_of(route(), z, 0) == [SEED, Place(z - 1, 0)]
    for t in range(1, FRAMES):
        assert memory_of(route(), z, t) == [SEED, Place(z - 1, t), Place(z, t - 1)]


def test_slices_are_visited_from_the_seed_outwards_one_end_after_the_other():
    assert [row.slice for row in route().rows()] == [3, 2, 1, 0, 4, 5, 6]
    assert [row.neighbour for row in route().rows()] == [None, 3, 2, 1, 3, 4, 5]
    assert last_uses(route().rows()) == {3: 4, 2: 1, 1: 0, 4: 5, 5: 6}


@pytest.mark.parametrize("cyclic", [True, False])
@pytest.mark.parametrize("direction", ["forward", "both"])
@pytest.mark.parametrize("continuity", ["both", "time", "slices"])
@pytest.mark.parametrize("capacity", [2, 3, 5, 10])
@pytest.mark.parametrize(
    "seeds", [[(3, 0)], [(3, 2)], [(0, 5)], [(6, 0), (6, 3)], [(z, 1) for z in range(7)], [(1, 1), (5, 4)]]
)
def test_every_frame_is_segmented_from_what_was_segmented_before(seeds, capacity, continuity, direction, cyclic):
    places = [Place(*seed) for seed in seeds]
    way = route(places, capacity=capacity, continuity=continuity, direction=direction, cyclic=cyclic)
    known = {Recall(place, 0) for place in places}
    weights: dict[Place, float] = {}
    for row in way.rows():
        new = set()
        for wave in row.waves:
            for visit in wave:
                assert set(visit.recalls) <= known | new, (row.slice, visit)
                assert 1 <= len(visit.recalls) <= max(2, capacity) and len(set(visit.recalls)) == len(visit.recalls)
                place = Place(row.slice, visit.frame)
                weights[place] = weights.get(place, 0) + visit.weight
            new |= {Recall(Place(row.slice, visit.frame), visit.way) for visit in wave}
        known |= {Recall(Place(row.slice, t), 0) for t in range(FRAMES)}
    expected = {Place(z, t): 1.0 for z in range(SLICES) for t in range(FRAMES) if Place(z, t) not in places}
    assert {place: weight for place, weight in weights.items() if place not in places} == pytest.approx(expected)


def test_frames_before_the_seed_are_reached_backwards_where_the_movie_does_not_close():
    way = route([Place(3, 2)], direction="forward")
    assert memory_of(way, 3, 1) == [Place(3, 2)]
    assert memory_of(way, 3, 0) == [Place(3, 2), Place(3, 1)]
    assert memory_of(way, 3, 4) == [Place(3, 2), Place(3, 3)]


def test_a_cyclic_movie_goes_on_over_its_end():
    way = route([Place(3, 2)], direction="forward", cyclic=True)
    assert memory_of(way, 3, 0) == [Place(3, 2), Place(3, 5)]
    assert memory_of(way, 3, 1) == [Place(3, 2), Place(3, 0)]


def test_two_passes_are_blended_by_their_distances_from_where_they_started():
    way = route([Place(3, 0), Place(3, 4)], cyclic=False)
    weights = {(v.frame, v.way): v.weight for z, _, v in visits_of(way) if z == 3}
    assert weights == {(1, 1): 0.75, (1, -1): 0.25, (2, 1): 0.5, (2, -1): 0.5, (3, 1): 0.25, (3, -1): 0.75, (5, 1): 1.0}
    around = {(v.frame, v.way): v.weight for z, _, v in visits_of(route(cyclic=True)) if z == 3 and v.frame}
    assert around == pytest.approx(
        {(t, way): 1 - (t if way > 0 else 6 - t) / 6 for t in range(1, 6) for way in (1, -1)}
    )


def test_once_around_the_only_seed_is_found_again_without_being_shown():
    again = [v for z, _, v in visits_of(route(cyclic=True)) if (z, v.frame) == SEED]
    assert [(v.weight, v.recalls) for v in again] == [(0.0, (Recall(Place(3, 5), 1),))]
    assert not [v for z, _, v in visits_of(route(cyclic=False)) if (z, v.frame) == SEED]


@pytest.mark.parametrize(("capacity", "middle", "apical"), [(2, 1, 0), (3, 1, 1), (5, 3, 3), (10, 4, 5)])
def test_a_larger_memory_holds_more_frames_of_the_same_slice(capacity, middle, apical):
    way = route(capacity=capacity)
    assert [p for p in memory_of(way, 3, 5) if p.slice == 3 and p != SEED] == [
        Place(3, 5 - n) for n in range(1, middle + 1)
    ]
    assert [p.frame for p in memory_of(way, 6, 5) if p.slice == 6] == [5 - n for n in range(1, apical + 1)]


def test_a_slice_with_a_seed_of_its_own_is_linked_along_time_and_to_its_neighbour():
    way = route([Place(z, 0) for z in range(SLICES)])
    assert memory_of(way, 1, 2) == [Place(1, 0), Place(2, 2), Place(1, 1)]


@pytest.mark.parametrize("z", [0, 3, 6])
def test_each_continuity_can_be_had_alone(z):
    assert {place.slice for place in memory_of(route(continuity="time"), z, 4)} == {3, z}
    assert {place.frame for place in memory_of(route(continuity="slices"), z, 4)} == {0, 4} - ({4} if z == 3 else set())


def test_a_single_slice_is_propagated_along_time_alone():
    way = Route(1, 4, frozenset({Place(0, 0)}))
    assert [(z, v.frame) for z, _, v in visits_of(way)] == [(0, 1), (0, 2), (0, 3)]


def test_a_single_moment_is_propagated_through_the_slices_alone():
    way = Route(3, 1, frozenset({Place(1, 0)}), apical=frozenset({2}), cyclic=True)
    assert [(z, [r.place for r in v.recalls]) for z, _, v in visits_of(way)] == [(0, [Place(1, 0)]), (2, [Place(1, 0)])]


def test_the_nearest_seed_is_of_the_nearest_slice():
    way = route([Place(1, 0), Place(5, 1), Place(5, 5)], cyclic=True)
    assert way.nearest_seed(Place(4, 0)) in (Place(5, 1), Place(5, 5))
    assert way.nearest_seed(Place(6, 4)) == Place(5, 5)
    assert way.nearest_seed(Place(0, 5)) == Place(1, 0)


@pytest.mark.parametrize("seeds", [[], [Place(7, 0)], [Place(0, 6)]])
def test_seeds_must_lie_in_the_study(seeds):
    with pytest.raises(InputError, match="seeds"):
        route(seeds)


def test_a_memory_of_one_frame_is_refused():
    with pytest.raises(InputError, match="tmax"):
        route(capacity=1)
