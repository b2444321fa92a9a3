from dataclasses import replace

import numpy as np
import pytest

from nnunet_temporal.datasets.phantom.apical_heart import LABELS, ApicalHeart
from nnunet_temporal.datasets.phantom.apical_view import ApicalView
from nnunet_temporal.datasets.phantom.dataset import PhantomPlan, draw_study
from nnunet_temporal.datasets.phantom.echo import draw_echo_study, draw_sector, pixel_points, scan_view
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat
from nnunet_temporal.datasets.phantom.lost_segment import LostSegment
from nnunet_temporal.datasets.phantom.scanner import Scanner

PLAN = PhantomPlan("echo", 4, size=64, frames_per_cycle=(20, 24), beats=(1, 1), seed=1, lost_segment=True)
HEARTBEAT = Heartbeat(frames_per_cycle=24, beats=1, ef_percent=50, systole_share=0.375, cycle_s=0.9)
# The middle third of the right wall, lost around the phase 0.7.
RIGHT_WALL = LostSegment(middle=0.75, length=0.3, phase=0.7)


def outline():
    heart = ApicalHeart(80.0, {"2CH": 24.0, "4CH": 24.0}, 10.0, 35.0, {"2CH": 24.0, "4CH": 24.0})
    return heart.outline("2CH", 1.0)


def without(plan):
    return replace(plan, lost_segment=False)


def affected(study):
    return study.lost_segment.is_affected(study.heartbeat.phases())


@pytest.mark.parametrize("frames_per_cycle", [8, 24, 80])
@pytest.mark.parametrize("moment", ["ED", "ES", None])
def test_a_drawn_segment_is_lost_at_the_asked_moment_and_fully_visible_at_the_other(frames_per_cycle, moment):
    for seed in range(30):
        rng = np.random.default_rng(seed)
        heartbeat = Heartbeat.draw(rng, (frames_per_cycle, frames_per_cycle), (1, 3))
        lost = LostSegment.draw(rng, heartbeat, moment)
        ed, es = (float(lost.loss(heartbeat.phases()[frame])) for frame in heartbeat.ed_es())
        assert (ed, es) == pytest.approx((float(moment == "ED"), float(moment == "ES")))
        assert 0.25 <= lost.length <= 0.33
        assert 0.5 * lost.length <= lost.middle <= 1 - 0.5 * lost.length


def test_the_segment_is_lost_for_a_third_of_every_beat_and_fades_at_its_ends():
    phases = np.arange(3000) / 1000
    loss = RIGHT_WALL.loss(phases)
    assert RIGHT_WALL.is_affected(phases).mean() == pytest.approx(1 / 3, abs=0.002)
    assert RIGHT_WALL.is_affected([0.54, 0.7, 0.86, 1.7]).all()
    assert not RIGHT_WALL.is_affected([0.53, 0.87, 0.2, 1.2]).any()
    assert np.abs(np.diff(loss)).max() < 0.03
    assert (loss.min(), loss.max()) == (0.0, 1.0)


def test_the_weight_covers_the_segments_share_of_the_border_and_no_other_wall():
    shape = outline()
    level_mm = np.linspace(0, shape.length_mm, 500)
    right = np.stack([level_mm, shape.cavity_mm(level_mm)], -1)
    left = right * (1, -1)
    steps_mm = np.linalg.norm(np.diff(right, axis=0), axis=-1)
    way = 0.5 + 0.5 * np.concatenate([[0.0], np.cumsum(steps_mm)]) / steps_mm.sum()
    weight = RIGHT_WALL.weight(right, shape)
    assert (weight[np.abs(way - 0.75) < 0.12] == 1).all()
    assert (weight[np.abs(way - 0.75) > 0.18] == 0).all()
    assert not RIGHT_WALL.weight(left, shape).any()


def test_the_weight_reaches_through_the_wall_and_fades_behind_it():
    shape = outline()
    level_mm = 0.5 * shape.length_mm
    inner_mm, behind_mm = float(shape.cavity_mm(np.array(level_mm))), np.array([0.0, 10.0, 14.0, 18.0, 22.0])
    weight = RIGHT_WALL.weight(np.stack([np.full(5, level_mm), inner_mm + behind_mm], -1), shape)
    # The wall is 10 mm thick; the loss is half gone 8 mm behind it.
    assert weight == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.0], abs=0.15)


def test_a_segment_at_the_apex_takes_both_sides_of_the_tip():
    shape = outline()
    tip = np.array([[-5.0, -3.0], [-5.0, 0.0], [-5.0, 3.0], [60.0, 24.0]])
    assert LostSegment(0.5, 0.3, 0.0).weight(tip, shape) == pytest.approx([1, 1, 1, 0])


def test_half_of_the_studies_lose_it_at_a_labelled_frame_and_half_at_none():
    covered = []
    for index in range(8):
        study = draw_study(replace(PLAN, size=32), "labelled", index)
        covered.append(affected(study)[list(study.heartbeat.ed_es())].tolist())
    neither, ed, es = [False, False], [True, False], [False, True]
    assert covered == [ed, neither, es, neither] * 2


def test_masks_and_clock_are_those_of_the_whole_heart():
    for index in range(3):
        lost, whole = (draw_study(plan, "labelled", index) for plan in (PLAN, without(PLAN)))
        assert lost.heartbeat == whole.heartbeat
        for one, two in zip(lost.sequences, whole.sequences, strict=True):
            assert np.array_equal(one.truth, two.truth)


@pytest.mark.parametrize("seed", range(3))
def test_the_lost_wall_is_as_dark_as_the_cavity_and_bright_in_the_other_frames(seed):
    # The heart hardly moves, so that the segment's places stay where they are at end diastole.
    still, rng = replace(HEARTBEAT, ef_percent=1.0), np.random.default_rng(seed)
    view = ApicalView("2CH", ApicalHeart.draw(rng), still, (30.0, 0.0), 0.0, (0.0, 0.0), 0.0, (0.0, 0.0), 4.0)
    pixel_mm, beams = draw_sector([view], 96, rng)
    points_mm = pixel_points(96, pixel_mm)
    # Without clutter, which lies over the wall and stays when its echoes are lost.
    sequence = scan_view(view, Scanner(beams, 15.0, 50.0, 0.0, 1.0, 0.0, -30.0, -80.0), points_mm, rng, RIGHT_WALL)
    weight = RIGHT_WALL.weight(view.to_heart(points_mm.reshape(-1, 2), 0.0), view.outline(0.0)).reshape(96, 96)
    wall, cavity = (weight == 1) & (sequence.truth[0] == LABELS["MYO"]), sequence.truth[0] == LABELS["LV"]
    contrast = sequence.image[:, wall].mean(1) - sequence.image[:, cavity].mean(1)
    loss = RIGHT_WALL.loss(still.phases())
    # Darker than the cavity, into which the side lobes of the bright walls reach.
    assert contrast[loss == 1].max() < 0
    assert contrast[loss == 0].min() > 0.8 * contrast[loss == 0].mean()


def test_the_rest_of_the_image_stays_as_it_is():
    drawn = [
        draw_echo_study("heart", HEARTBEAT, 64, np.random.default_rng(0), replace(RIGHT_WALL, phase=phase))
        for phase in (0.2, 0.7)
    ]
    # Frames in which neither has lost anything are equal bit by bit.
    both_visible = [frame for frame in range(24) if not sum(s.lost_segment.loss(frame / 24) for s in drawn)]
    assert len(both_visible) > 3
    one, two = (study.sequences[0].image for study in drawn)
    assert np.array_equal(one[both_visible], two[both_visible])
    assert not np.array_equal(one, two)


def test_a_heartbeat_without_end_systole_is_refused():
    short = replace(HEARTBEAT, beats=0.2)
    with pytest.raises(ValueError, match="must include an ED and an ES, got 0 and None"):
        LostSegment.draw(np.random.default_rng(0), short, "ED")


def test_a_beat_too_short_for_the_moment_is_refused():
    hasty = replace(HEARTBEAT, systole_share=0.05)
    with pytest.raises(ValueError, match="no third of the beat holds ED"):
        LostSegment.draw(np.random.default_rng(0), hasty, "ED")
