import math
from functools import partial

import numpy as np
import pytest
from scipy.ndimage import binary_dilation, gaussian_filter, map_coordinates

from nnunet_temporal.datasets.image_io import Spacing
from nnunet_temporal.datasets.phantom.apical_heart import LABELS, VIEWS, ApicalHeart
from nnunet_temporal.datasets.phantom.apical_view import ApicalView
from nnunet_temporal.datasets.phantom.echo import draw_echo_study, draw_sector, pixel_points, scan_view
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat
from nnunet_temporal.datasets.phantom.moving_tissue import Dropout, MovingTissue, leaflets, valve_opening
from nnunet_temporal.datasets.phantom.scanner import Scanner
from nnunet_temporal.datasets.phantom.speckle import BeamGrid
from nnunet_temporal.datasets.phantom.tissue_levels import BLOOD_DB, tissue_db
from nnunet_temporal.datasets.study_source import IGNORE, StudySource, inspect_source
from nnunet_temporal.metrics.clinical import ejection_fraction_percent


def ed_and_es_only(ef_percent):
    # 2.5 frames per beat: the frames lie at the phases 0 and 0.4, which is the end of systole.
    return Heartbeat(frames_per_cycle=2.5, beats=0.8, ef_percent=ef_percent, systole_share=0.4, cycle_s=0.9)


def study(seed=0, size=64, heartbeat=None):
    return draw_echo_study("heart", heartbeat or ed_and_es_only(60.0), size, np.random.default_rng(seed))


def drawn_views(seed, heartbeat):
    rng = np.random.default_rng(seed)
    heart = ApicalHeart.draw(rng)
    return [ApicalView.draw(name, heart, heartbeat, rng) for name in VIEWS], rng


def discs_mm(mask, pixel_mm, n_discs=20):
    """Length of the ventricle's long axis and widths of the discs along it, from the labels of one view."""
    y, x = (index * pixel_mm for index in np.indices(mask.shape))
    annulus = (mask == LABELS["LV"]) & binary_dilation(mask == LABELS["LA"])
    base = np.array([y[annulus].mean(), x[annulus].mean()])
    points = np.stack([y[mask == LABELS["LV"]], x[mask == LABELS["LV"]]], -1) - base
    apex = points[np.argmax((points**2).sum(axis=-1))]
    along = points @ apex / np.linalg.norm(apex)
    length_mm = along.max() - along.min()
    counts = np.histogram(along, n_discs)[0]
    return length_mm, counts * pixel_mm**2 / (length_mm / n_discs)


def biplane_ml(masks, pixel_mm):
    (length_2ch, widths_2ch), (length_4ch, widths_4ch) = (discs_mm(mask, pixel_mm) for mask in masks)
    disc_mm = (length_2ch + length_4ch) / 2 / len(widths_2ch)
    return math.pi / 4 * (widths_2ch * widths_4ch).sum() * disc_mm / 1000


@pytest.mark.parametrize(("seed", "ef_percent"), [(0, 25.0), (1, 55.0), (2, 72.0)])
def test_biplane_discs_of_the_masks_give_the_stated_ejection_fraction(seed, ef_percent):
    # 256 pixels: about 0.75 mm each.
    drawn = study(seed, 256, ed_and_es_only(ef_percent))
    edv, esv = (biplane_ml([view.truth[frame] for view in drawn.sequences], drawn.pixel_mm[0]) for frame in (0, 1))
    assert ejection_fraction_percent(edv, esv) == pytest.approx(ef_percent, abs=1.0)
    assert edv == pytest.approx(drawn.volumes_ml["LV"][0], rel=0.03)


def test_the_analytic_volumes_give_the_stated_ejection_fraction():
    ed_ml, es_ml = study().volumes_ml["LV"]
    assert 100 * (ed_ml - es_ml) / ed_ml == pytest.approx(60.0)


def test_a_study_has_both_apical_views_with_images_masks_and_volumes_of_every_frame():
    heartbeat = Heartbeat(frames_per_cycle=12, beats=0.5, ef_percent=50, systole_share=0.4, cycle_s=0.9)
    drawn = study(heartbeat=heartbeat)
    assert [sequence.view for sequence in drawn.sequences] == ["2CH", "4CH"]
    assert {sequence.image.shape for sequence in drawn.sequences} == {(6, 64, 64)}
    assert {sequence.truth.shape for sequence in drawn.sequences} == {(6, 64, 64)}
    assert {name: volumes.shape for name, volumes in drawn.volumes_ml.items()} == dict.fromkeys(
        ("LV", "MYO", "LA"), (6,)
    )


@pytest.mark.parametrize("seed", range(4))
def test_every_frame_of_every_view_holds_every_label(seed):
    for sequence in study(seed).sequences:
        assert all(np.unique(mask).tolist() == [0, 1, 2, 3] for mask in sequence.truth)


@pytest.mark.parametrize("tilt_rad", [0.0, -0.3, 0.5])
def test_the_sector_is_wide_enough_for_the_cavities_in_every_frame(tilt_rad):
    heartbeat = Heartbeat(frames_per_cycle=12, beats=1, ef_percent=50, systole_share=0.4, cycle_s=0.9)
    heart = ApicalHeart.draw(np.random.default_rng(0))
    view = ApicalView("2CH", heart, heartbeat, (30.0, 0.0), tilt_rad, (3.0, 1.0), 0.3, (1.5, 1.5), 4.0)
    pixel_mm, beams = draw_sector([view], 256, np.random.default_rng(0))
    points_mm = pixel_points(256, pixel_mm)
    for phase in heartbeat.phases():
        cavity = np.isin(view.labels(points_mm, phase), (LABELS["LV"], LABELS["LA"]))
        assert beams.contains(points_mm[cavity]).all()


def test_nothing_is_labelled_outside_the_sector():
    views, rng = drawn_views(0, ed_and_es_only(60.0))
    # Far too narrow for a heart.
    beams = BeamGrid(depth_mm=150.0, half_angle_rad=0.15, pulse_mm=3.0, beam_rad=0.04)
    points_mm = pixel_points(64, 2.5)
    truth = scan_view(views[1], Scanner.draw(beams, rng), points_mm, rng).truth
    assert truth.any()
    assert not truth[:, ~beams.contains(points_mm)].any()


def test_pixels_show_the_whole_sector():
    views, rng = drawn_views(0, ed_and_es_only(60.0))
    pixel_mm, beams = draw_sector(views, 64, rng)
    points_mm = pixel_points(64, pixel_mm)
    corners_mm = points_mm[[0, 0, -1, -1], [0, -1, 0, -1]]
    lateral_mm = beams.depth_mm * math.sin(beams.half_angle_rad)
    assert (np.abs(corners_mm[:, 1]) + pixel_mm / 2 >= lateral_mm).all()
    assert corners_mm[2:, 0].min() + pixel_mm / 2 >= beams.depth_mm


def test_images_are_grey_values_and_black_outside_the_sector():
    sequence = study().sequences[0]
    assert sequence.image.dtype == np.float32
    assert np.array_equal(sequence.image, np.clip(np.rint(sequence.image), 0, 255))
    assert sequence.image[:, -1, [0, -1]].tolist() == [[0, 0], [0, 0]]
    assert sequence.image.max() > 100


@pytest.mark.parametrize("seed", range(3))
def test_the_wall_is_brighter_than_the_blood_beside_it(seed):
    for sequence in study(seed).sequences:
        wall, blood = (sequence.image[sequence.truth == LABELS[name]].mean() for name in ("MYO", "LV"))
        assert wall > 2 * blood


def test_one_seed_repeats_bit_by_bit_and_two_seeds_differ():
    first, again, other = study(5), study(5), study(6)
    for one, two, three in zip(first.sequences, again.sequences, other.sequences, strict=True):
        assert np.array_equal(one.image, two.image)
        assert np.array_equal(one.truth, two.truth)
        assert not np.array_equal(one.truth, three.truth)
    assert first.pixel_mm != other.pixel_mm


def test_an_image_too_small_for_a_heart_is_refused():
    with pytest.raises(ValueError, match="at least 32 pixels, got 31"):
        study(size=31)


def test_a_beat_that_closes_is_called_cyclic():
    whole = Heartbeat(frames_per_cycle=4, beats=1, ef_percent=50, systole_share=0.4, cycle_s=0.9)
    assert study(heartbeat=whole).cyclic
    assert not study().cyclic


@pytest.mark.parametrize("index", [0, 1])
def test_a_view_passes_the_check_of_the_converters(index):
    drawn = study()
    sequence = drawn.sequences[index]
    source = StudySource(
        study=drawn.name,
        load_image=lambda: sequence.image,
        load_labels=lambda: sequence.truth,
        spacing=Spacing(pixel_mm=drawn.pixel_mm, frame_s=drawn.heartbeat.frame_interval_s),
        view=sequence.view,
    )
    (described,) = inspect_source(source, {**LABELS, IGNORE: 4})
    assert described.labelled_frames == (0, 1)
    assert described.view == VIEWS[index]


def fine_pattern(image):
    # What is wider than speckle, such as gain and shadow, stands still and must not count.
    return image - gaussian_filter(image, 1.5)


def wall_places(view):
    outline = view.outline(0.0)
    level_mm, lateral_mm = np.meshgrid(np.linspace(0.3, 0.95, 150) * outline.length_mm, np.linspace(-45, 45, 300))
    places_mm = np.stack([level_mm.ravel(), lateral_mm.ravel()], -1)
    inner_mm, outer_mm = outline.cavity_mm(places_mm[:, 0]), outline.border_mm(places_mm[:, 0])
    through_wall = (np.abs(places_mm[:, 1]) - inner_mm) / (outer_mm - inner_mm)
    return places_mm[(through_wall > 0.2) & (through_wall < 0.8)]


@pytest.mark.parametrize("index", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_speckle_correlates_along_the_motion_of_the_wall_and_not_against_it(seed, index):
    # The frames lie at the phases 0, 1/12, 2/12, ...; between the second and the fourth the wall moves 2 to 3 pixels.
    heartbeat = Heartbeat(frames_per_cycle=12, beats=0.5, ef_percent=60, systole_share=0.4, cycle_s=0.9)
    views, rng = drawn_views(seed, heartbeat)
    view, (pixel_mm, beams) = views[index], draw_sector(views, 96, rng)
    points_mm = pixel_points(96, pixel_mm)
    images = scan_view(view, Scanner.draw(beams, rng), points_mm, rng).image
    before_mm, after_mm = (view.follow(wall_places(view), phase) for phase in heartbeat.phases()[[1, 3]])
    against_mm = 2 * before_mm - after_mm
    inside = beams.contains(before_mm) & beams.contains(after_mm) & beams.contains(against_mm)

    def look(frame, places_mm):
        pixels = (places_mm[inside] - points_mm[0, 0]) / pixel_mm
        return map_coordinates(fine_pattern(images[frame]), pixels.T, order=1)

    correlate = partial(np.corrcoef, look(1, before_mm))
    assert np.linalg.norm(after_mm - before_mm, axis=-1).mean() / pixel_mm > 1.5
    assert correlate(look(3, after_mm))[0, 1] > 0.7
    assert correlate(look(3, against_mm))[0, 1] < 0.2


def test_speckle_stays_in_the_wall_and_changes_in_blood_from_frame_to_frame():
    views, rng = drawn_views(0, ed_and_es_only(60.0))
    _, beams = draw_sector(views, 96, rng)
    tissue = MovingTissue(views[0], beams, rng)
    first, second = (np.abs(tissue.signal(0.0, rng)) for _ in range(2))
    ranges_mm, angles = np.meshgrid(beams.ranges_mm, beams.angles_rad, indexing="ij")
    points_mm = np.stack([ranges_mm * np.cos(angles), ranges_mm * np.sin(angles)], -1)
    labels = views[0].labels(points_mm, 0.0)
    # Away from the borders, where pulses mix wall and blood.
    inner = {name: ~binary_dilation(labels != LABELS[name], iterations=8) for name in ("LV", "MYO")}
    assert np.corrcoef(first[inner["MYO"]], second[inner["MYO"]])[0, 1] > 0.99
    assert np.corrcoef(first[inner["LV"]], second[inner["LV"]])[0, 1] < 0.5


def test_a_dropout_is_deepest_in_its_segment_at_its_phase_and_gone_half_a_beat_later():
    outline = drawn_views(0, ed_and_es_only(60.0))[0][0].outline(0.0)
    dropout = Dropout(right=True, level_share=0.5, length_share=0.4, phase=0.3, loss_db=12.0)
    level_mm = 0.5 * outline.length_mm
    in_wall_mm = outline.cavity_mm(np.array(level_mm)) + 2.0
    # The segment's middle, the same place of the other wall, in blood, and a whole segment further on.
    places_mm = np.array(
        [[level_mm, in_wall_mm], [level_mm, -in_wall_mm], [level_mm, 0.0], [0.9 * outline.length_mm, 30.0]]
    )
    losses_db = dropout.largest_loss_db(places_mm, outline)
    assert losses_db == pytest.approx([12.0, 0.0, 0.0, 12.0 * math.exp(-4)])
    assert [dropout.strength(phase) for phase in (0.3, 0.8, 1.3)] == pytest.approx([1.0, 0.0, 1.0])


def test_a_segment_that_drops_out_sends_less():
    views, rng = drawn_views(0, ed_and_es_only(60.0))
    _, beams = draw_sector(views, 96, rng)
    tissue = MovingTissue(views[0], beams, rng)
    tissue.dropouts = [Dropout(right=True, level_share=0.5, length_share=0.4, phase=0.1, loss_db=20.0)]
    # As if the segment filled the whole view: 20 dB are a tenth of the amplitude; only the valve is spared.
    tissue.losses_db = [np.full(len(tissue.places_mm), 20.0)]
    weakest, strongest = (np.abs(tissue.signal(phase, np.random.default_rng(0))).sum() for phase in (0.1, 0.6))
    assert weakest == pytest.approx(0.1 * strongest, rel=0.3)


def test_the_valve_is_shut_in_systole_and_opens_wide_in_early_filling():
    view = drawn_views(0, ed_and_es_only(60.0))[0][0]
    # Systole ends at 0.4; early filling is fastest in the middle of the first 45 % of diastole.
    assert [valve_opening(view, phase) for phase in (0.1, 0.2, 0.3)] == [0.0, 0.0, 0.0]
    assert valve_opening(view, 0.4 + 0.6 * 0.45 / 2) == 1.0


def test_closed_leaflets_meet_in_the_annulus_and_open_ones_leave_the_way_free():
    outline = drawn_views(0, ed_and_es_only(60.0))[0][0].outline(0.0)
    closed, opened = (leaflets(outline, opening, 50) for opening in (0.0, 1.0))
    (left, right), open_tips = closed.reshape(2, 50, 2), opened.reshape(2, 50, 2)[:, -1]
    assert left[[0, -1], 1] == pytest.approx([-outline.annulus_mm, 0.14 * outline.annulus_mm], rel=0.05)
    assert right[-1, 1] < left[-1, 1]
    assert np.abs(closed[:, 0] - outline.length_mm).max() < 4.0
    assert np.abs(open_tips[:, 1]).min() > 0.6 * outline.annulus_mm
    assert (open_tips[:, 0] < outline.length_mm - 0.8 * outline.annulus_mm).all()


def test_blood_fills_both_cavities_and_in_4ch_the_right_heart():
    for view, with_right_heart in zip(drawn_views(0, ed_and_es_only(60.0))[0], (False, True), strict=True):
        outline = view.outline(0.0)
        level_mm = np.array([0.25, 0.8, 1.2]) * outline.length_mm
        axis = np.stack([level_mm, np.zeros(3)], -1)
        right_mm = np.stack([level_mm[1:], -outline.border_mm(level_mm[1:]) - 10.0], -1)
        levels_db = tissue_db(np.concatenate([axis, right_mm]), view, np.random.default_rng(0))
        assert (levels_db == BLOOD_DB).tolist() == [True, True, True, with_right_heart, with_right_heart]


def test_walls_that_face_the_probe_reflect_more_than_walls_along_the_beam():
    heart = ApicalHeart.draw(np.random.default_rng(0))
    view = ApicalView("2CH", heart, ed_and_es_only(60.0), (25.0, 0.0), 0.0, (0.0, 0.0), 0.0, (0.0, 0.0), 4.0)
    outline = view.outline(0.0)
    # At its widest level the outer border is parallel to the axis; the probe lies 25 mm above the tip of the cavity.
    widest_mm = outline.tip_mm + 0.6 * (outline.length_mm - outline.tip_mm)
    lateral_mm = outline.half_width_mm + outline.wall_mm / 2
    facing = lateral_mm / math.hypot(widest_mm + 25.0, lateral_mm)
    places_mm = np.array([[outline.tip_mm + 0.1, 0.01], [widest_mm, lateral_mm]])
    levels_db = np.mean([tissue_db(places_mm, view, np.random.default_rng(seed)) for seed in range(300)], axis=0)
    # -6 dB along the beam, 1 dB when facing it; the unevenness of 2 dB averages out to 2 / sqrt(300).
    assert levels_db == pytest.approx([1.0, -6.0 + 7.0 * facing], abs=0.5)


def test_clutter_lies_over_the_image_and_stands_still():
    views, _ = drawn_views(0, ed_and_es_only(60.0))
    beams = BeamGrid(depth_mm=150.0, half_angle_rad=0.6, pulse_mm=3.0, beam_rad=0.04)
    # 80 dB above the tissue it hides everything, at both phases.
    scanner = Scanner(beams, 15.0, 50.0, 0.0, 1.0, 0.0, -30.0, 80.0)
    image = scan_view(views[0], scanner, pixel_points(64, 2.5), np.random.default_rng(0)).image
    near = image[:, 6:20]
    assert near[:, beams.contains(pixel_points(64, 2.5)[6:20])].min() > 200
    assert np.abs(near[0] - near[1]).max() <= 20
