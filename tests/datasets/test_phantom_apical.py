import math

import numpy as np
import pytest

from nnunet_temporal.datasets.phantom.apical_heart import LABELS, VIEWS, ApicalHeart, move
from nnunet_temporal.datasets.phantom.apical_view import ApicalView
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat

HEART = ApicalHeart(
    length_mm=90.0,
    half_width_mm={"2CH": 24.0, "4CH": 26.0},
    wall_mm=10.0,
    atrium_length_mm=40.0,
    atrium_half_width_mm={"2CH": 25.0, "4CH": 23.0},
)
REST, CONTRACTED = HEART.outline("4CH", 1.0), HEART.outline("4CH", 0.4)
HEARTBEAT = Heartbeat(frames_per_cycle=20, beats=1, ef_percent=60, systole_share=0.4, cycle_s=0.8)


def drawn_view(name="4CH", seed=0):
    return ApicalView.draw(name, HEART, HEARTBEAT, np.random.default_rng(seed))


def places_in_the_heart(n=2000):
    rng = np.random.default_rng(0)
    places_mm = np.stack([rng.uniform(REST.tip_mm, REST.roof_mm, n), rng.uniform(-40, 40, n)], -1)
    return places_mm[np.abs(places_mm[:, 1]) < REST.border_mm(places_mm[:, 0])]


def discs_ml(width_of, share, start, end):
    """Volume of a stack of elliptic discs whose half widths in the two views are known, with 4000 discs."""
    level_mm = start + (np.arange(4000) + 0.5) / 4000 * (end - start)
    half_2ch, half_4ch = (width_of(HEART.outline(view, share), level_mm) for view in VIEWS)
    return math.pi * (half_2ch * half_4ch).mean() * (end - start) / 1000


@pytest.mark.parametrize("share", [1.0, 0.7, 0.3])
def test_discs_of_both_views_add_up_to_the_volume_of_the_ventricle(share):
    outline = HEART.outline("4CH", share)
    discs = discs_ml(lambda shape, level: shape.cavity_mm(level), share, 0.0, outline.length_mm)
    assert discs == pytest.approx(HEART.volumes_ml(np.array([share]))["LV"][0], rel=1e-4)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.3])
def test_discs_of_both_views_add_up_to_the_volume_of_the_atrium(share):
    outline = HEART.outline("4CH", share)
    discs = discs_ml(lambda shape, level: shape.cavity_mm(level), share, outline.length_mm, outline.roof_mm)
    assert discs == pytest.approx(HEART.volumes_ml(np.array([share]))["LA"][0], rel=1e-4)


@pytest.mark.parametrize("share", [1.0, 0.7, 0.3])
def test_the_wall_keeps_its_volume_while_the_ventricle_empties(share):
    outline = HEART.outline("4CH", share)
    outer = discs_ml(lambda shape, level: shape.border_mm(level), share, outline.tip_mm, outline.length_mm)
    inner = discs_ml(lambda shape, level: shape.cavity_mm(level), share, 0.0, outline.length_mm)
    assert outer - inner == pytest.approx(HEART.volumes_ml(np.array([share]))["MYO"][0], rel=1e-3)


def test_the_volume_of_a_ventricle_of_known_size():
    # Profile squared, integrated: 2 * 0.6 / 3 + 0.4 * (1 - 2 * 0.14 / 3 + 0.14 ** 2 / 5) = 0.4 + 0.4 * 0.910587.
    # pi * 24 mm * 26 mm * 90 mm * 0.764235 = 134.84 ml.
    assert HEART.volumes_ml(np.array([1.0]))["LV"][0] == pytest.approx(134.84, abs=0.01)


def test_the_annulus_comes_towards_the_apex_the_wall_thickens_and_the_roof_of_the_atrium_stays():
    # 0.22 * (1 - 0.4) = 13.2 % of 90 mm.
    assert CONTRACTED.length_mm == pytest.approx(90.0 - 11.88)
    assert CONTRACTED.wall_mm > 1.2 * REST.wall_mm
    assert CONTRACTED.roof_mm == pytest.approx(REST.roof_mm)


def test_the_atrium_fills_while_the_ventricle_empties():
    # 1 + 0.2 * (1 - 0.4) = 1.12 of 23 mm, and longer by what the ventricle shortens.
    assert CONTRACTED.atrium_half_width_mm == pytest.approx(25.76)
    assert CONTRACTED.atrium_length_mm == pytest.approx(40.0 + 11.88)


def test_labels_along_the_axis_and_across_the_ventricle():
    # The tip of the outer border is 7 mm above that of the cavity; at 54 mm the half widths are largest.
    places_mm = np.array([[-8, 0], [-6, 0], [1, 0], [89, 0], [91, 0], [129, 0], [131, 0]])
    assert REST.labels(places_mm).tolist() == [0, 2, 1, 1, 3, 3, 0]
    places_mm = np.array([[54.0, side * lateral] for side in (-1, 1) for lateral in (25.9, 26.1, 35.9, 36.1)])
    assert REST.labels(places_mm).tolist() == [1, 2, 2, 0, 1, 2, 2, 0]


def test_beside_the_atrium_nothing_is_labelled():
    assert REST.labels(np.array([[110.0, 27.0], [110.0, -27.0], [91.0, 30.0]])).tolist() == [0, 0, 0]


def test_the_outer_border_has_no_step_at_the_annulus():
    above_mm, below_mm = REST.border_mm(np.array([90.0, 90.0 + 1e-6]))
    assert above_mm == pytest.approx(below_mm, abs=1e-4)


def test_tissue_that_moves_there_and_back_is_where_it_was():
    places_mm = places_in_the_heart()
    there_mm = move(places_mm, REST, CONTRACTED, 20.0)
    assert np.abs(there_mm - places_mm).max() > 10
    assert move(there_mm, CONTRACTED, REST, 20.0) == pytest.approx(places_mm, abs=1e-6)


def test_tissue_keeps_its_label_when_it_moves():
    places_mm = places_in_the_heart()
    assert np.array_equal(CONTRACTED.labels(move(places_mm, REST, CONTRACTED, 20.0)), REST.labels(places_mm))


def test_tissue_at_the_annulus_moves_with_it_and_halves_of_the_ventricle_stay_halves():
    places_mm = np.array([[90.0, 0.0], [45.0, 0.0], [0.0, 0.0]])
    assert move(places_mm, REST, CONTRACTED, 20.0)[:, 0] == pytest.approx([78.12, 39.06, 0.0])


def test_the_motion_fades_to_a_third_within_the_reach():
    border_mm = REST.border_mm(np.array(90.0))
    places_mm = np.array([[90.0, border_mm], [90.0, border_mm + 20.0], [90.0, border_mm + 200.0]])
    moved_mm = places_mm[:, 0] - move(places_mm, REST, CONTRACTED, 20.0)[:, 0]
    # 11.88 mm of shortening, then exp(-1) of it, then nothing.
    assert moved_mm == pytest.approx([11.88, 11.88 * math.exp(-1), 0.0], abs=1e-3)


def test_what_touches_the_heart_from_outside_keeps_touching_it():
    places_mm = np.array([[50.0, side * (REST.border_mm(np.array(50.0)) + 1e-6)] for side in (-1, 1)])
    moved_mm = move(places_mm, REST, CONTRACTED, 20.0)
    assert np.abs(moved_mm[:, 1]) == pytest.approx(CONTRACTED.border_mm(moved_mm[:, 0]), abs=1e-4)
    assert np.sign(moved_mm[:, 1]).tolist() == [-1, 1]


def test_an_unbent_view_turns_and_shifts_only():
    view = ApicalView("2CH", HEART, HEARTBEAT, (25.0, 5.0), math.pi / 6, (0.0, 0.0), 0.0, (0.0, 0.0), 4.0)
    # 10 mm along the axis and 4 mm across it, at 30 degrees: (10 cos - 4 sin, 10 sin + 4 cos) = (6.660, 8.464).
    assert view.to_scan(np.array([10.0, 4.0]), 0.0) == pytest.approx([31.660, 13.464], abs=1e-3)


def test_breathing_moves_the_heart_and_returns_it():
    view = ApicalView("2CH", HEART, HEARTBEAT, (25.0, 5.0), 0.0, (0.0, 0.0), 0.0, (2.0, -1.0), 4.0)
    apex_mm = [view.to_scan(np.zeros(2), phase).tolist() for phase in (0.0, 2.0, 4.0)]
    assert np.allclose(apex_mm, [[25.0, 5.0], [27.0, 4.0], [25.0, 5.0]])


@pytest.mark.parametrize("name", VIEWS)
def test_points_and_places_are_each_other_s_inverse(name):
    view, places_mm = drawn_view(name), places_in_the_heart()
    assert view.to_heart(view.to_scan(places_mm, 1.3), 1.3) == pytest.approx(places_mm, abs=1e-9)


def test_the_masks_follow_the_tissue():
    view, places_mm = drawn_view(), places_in_the_heart()
    labels = view.labels(view.follow(places_mm, 0.4), 0.4)
    assert np.array_equal(labels, REST.labels(places_mm))
    assert set(labels.tolist()) == set(LABELS.values()) - {0} | {0}


def test_a_bent_axis_keeps_the_width_of_the_ventricle():
    bent = ApicalView("4CH", HEART, HEARTBEAT, (25.0, 0.0), 0.0, (4.0, 2.0), 0.3, (0.0, 0.0), 4.0)
    x_mm = np.arange(-60, 60, 0.1)
    row_mm = np.stack([np.full(x_mm.shape, 25.0 + 30.0), x_mm], -1)
    # 30 mm below the tip at end systole; the half width there, twice.
    width_mm = 0.1 * (bent.labels(row_mm, 0.4) == LABELS["LV"]).sum()
    assert width_mm == pytest.approx(2 * bent.outline(0.4).cavity_mm(np.array(30.0)), abs=0.2)


def test_one_wall_moves_more_than_the_other_in_a_swaying_heart():
    still, swaying = (
        ApicalView("4CH", HEART, HEARTBEAT, (25.0, 0.0), 0.0, (0.0, 0.0), sway, (0.0, 0.0), 4.0) for sway in (0.0, 0.3)
    )
    base_mm = np.array([REST.length_mm, 0.0])
    narrowing_mm = 26.0 - swaying.outline(0.4).half_width_mm
    along = swaying.outline(0.4).length_mm / 90.0
    shift_mm = swaying.follow(base_mm[None], 0.4) - still.follow(base_mm[None], 0.4)
    assert shift_mm[0] == pytest.approx([0.0, 0.3 * narrowing_mm * along])


def test_one_seed_draws_one_heart_and_two_seeds_draw_two():
    first, again, other = (ApicalHeart.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other
