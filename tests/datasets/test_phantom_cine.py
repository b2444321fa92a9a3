import math
from dataclasses import replace

import numpy as np
import pytest

from nnunet_temporal.datasets.phantom import left_ventricle, right_ventricle
from nnunet_temporal.datasets.phantom.cine import draw_cine_study
from nnunet_temporal.datasets.phantom.cine_image import receive, slice_painter
from nnunet_temporal.datasets.phantom.cine_look import Waves, draw_cine_look
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat
from nnunet_temporal.datasets.phantom.short_axis import LABELS, Heart, cross_section, slice_coordinates


def ed_and_es(ef_percent=60.0, share=0.35):
    # Two frames, one exactly at ED and one exactly at ES.
    return Heartbeat(1 / share, 2 * share, ef_percent, share, 1.0)


def draw_heart(heartbeat, seed):
    rng = np.random.default_rng(seed)
    left = left_ventricle.beat_left_ventricle(left_ventricle.draw_left_ventricle(heartbeat.ef_percent, rng), heartbeat)
    right = right_ventricle.draw_right_ventricle(left, heartbeat.ef_percent, rng)
    return Heart(left, right_ventricle.beat_right_ventricle(right, left))


def square_grid(pixel_mm, half_mm):
    centres = np.arange(-half_mm, half_mm, pixel_mm) + pixel_mm / 2
    y, x = np.meshgrid(centres, centres, indexing="ij")
    return x, y


def draw(seed=0, size=64, heartbeat=None):
    return draw_cine_study("s", heartbeat or Heartbeat(12, 1, 55, 0.35, 1.0), size, np.random.default_rng(seed))


def summed_volumes_ml(study):
    voxel_ml = math.prod(study.pixel_mm) * study.slice_mm / 1000
    truth = np.stack([sequence.truth for sequence in study.sequences], axis=1)
    return {name: (truth == LABELS[name]).sum(axis=(1, 2, 3)) * voxel_ml for name in ("RV", "MYO", "LV")}


@pytest.fixture(scope="module")
def study():
    return draw()


def test_a_study_is_a_stack_of_slices_from_base_to_apex(study):
    assert [sequence.slice for sequence in study.sequences] == list(range(len(study.sequences)))
    assert 8 <= len(study.sequences) <= 12
    for sequence in study.sequences:
        assert sequence.view is None
        assert sequence.image.shape == sequence.truth.shape == (12, 64, 64)
        assert sequence.image.dtype == np.float32 and sequence.truth.dtype == np.uint8


def test_grey_values_are_whole_numbers_of_0_and_more(study):
    image = study.sequences[3].image
    assert image.min() >= 0 and np.array_equal(image, np.rint(image)) and len(np.unique(image)) > 100


def test_every_class_is_there_in_every_frame(study):
    truth = np.stack([sequence.truth for sequence in study.sequences], axis=1)
    for frame in truth:
        assert set(np.unique(frame)) == {0, 1, 2, 3}


def test_the_heart_stays_inside_the_image():
    for seed in range(4):
        truth = np.stack([sequence.truth for sequence in draw(seed, heartbeat=ed_and_es()).sequences])
        border = np.ones(truth.shape[-2:], bool)
        border[1:-1, 1:-1] = False
        assert not truth[..., border].any()


@pytest.mark.parametrize("seed", range(6))
def test_slice_summation_gives_the_stated_ejection_fraction_within_one_point(seed):
    # 128 pixels of about 1.2 mm; slices 8 to 10 mm apart, as in a patient.
    ef_percent = 20 + 10 * seed
    edv_ml, esv_ml = summed_volumes_ml(draw(seed, 128, ed_and_es(ef_percent)))["LV"]
    assert 100 * (1 - esv_ml / edv_ml) == pytest.approx(ef_percent, abs=1.0)


def test_slice_summation_gives_the_stated_volumes_in_every_frame(study):
    for name, volumes_ml in summed_volumes_ml(study).items():
        assert volumes_ml == pytest.approx(study.volumes_ml[name], rel=0.04), name


@pytest.mark.parametrize("seed", range(3))
def test_the_closed_forms_of_the_volumes_agree_with_counting_small_cubes(seed):
    heart = draw_heart(ed_and_es(30 + 20 * seed), seed)
    at = slice_coordinates(*square_grid(1.0, 90.0), np.zeros((2, 2)), heart)
    counts = np.zeros((2, 4))
    for z_mm in np.arange(-20.0, 120.0, 1.0):
        truth = cross_section(at, float(z_mm), heart).truth()
        counts += [np.bincount(frame.ravel(), minlength=4) for frame in truth]
    # Cubes of 1 mm, 1000 to the ml.
    assert counts[:, LABELS["LV"]] / 1000 == pytest.approx(heart.left.volume_ml, rel=0.003)
    assert counts[:, LABELS["MYO"]] / 1000 == pytest.approx([heart.left.shape.wall_ml] * 2, rel=0.003)
    assert counts[:, LABELS["RV"]] / 1000 == pytest.approx(heart.right.volume_ml, rel=0.003)


def test_valve_planes_lie_where_the_ventricles_do_not_narrow():
    # The closed forms of the volumes rest on it.
    for seed in range(200):
        heart = draw_heart(ed_and_es(np.random.default_rng(seed).uniform(20, 75)), seed)
        left, right, straight = heart.left, heart.right, left_ventricle.STRAIGHT_SHARE
        cavity_reach_mm = left.shape.tilt * (left.cavity_radius_mm * 1.1 + left.cavity_offset_mm)
        assert np.all(cavity_reach_mm < straight * left.cavity_length_mm)
        assert np.all(left.shape.tilt * left.outer_radius_mm * 1.1 < straight * left.outer_length_mm)
        assert np.all(right.shape.tilt_mm < straight * (right.shape.end_mm - right.base_mm))


def test_the_cavity_stays_inside_the_wall():
    for seed in range(200):
        left = draw_heart(ed_and_es(np.random.default_rng(seed).uniform(20, 75)), seed).left
        thinnest_mm = left.outer_radius_mm - left.cavity_radius_mm - left.cavity_offset_mm
        assert np.all(thinnest_mm > 3)


def test_volumes_follow_the_heart_beat_and_both_ventricles_eject_the_same(study):
    share = study.heartbeat.volume_share(study.heartbeat.phases())
    left, right = study.volumes_ml["LV"], study.volumes_ml["RV"]
    assert left / share == pytest.approx([left[0] / share[0]] * 12)
    assert right - left == pytest.approx([right[0] - left[0]] * 12)


def test_muscle_keeps_its_volume(study):
    assert study.volumes_ml["MYO"] == pytest.approx([study.volumes_ml["MYO"][0]] * 12)


def test_the_wall_thickens_in_systole():
    left = draw_heart(ed_and_es(60), 0).left
    at_ed, at_es = left.outer_radius_mm - left.cavity_radius_mm
    assert at_es > 1.25 * at_ed


def test_the_base_moves_down_and_takes_the_ventricle_out_of_the_basal_slices():
    study = draw(1, heartbeat=ed_and_es(60))
    areas = np.array([(sequence.truth == LABELS["LV"]).sum(axis=(1, 2)) for sequence in study.sequences])  # (Z, T)
    first_at_ed, first_at_es = (areas > 0).argmax(axis=0)
    assert first_at_es > first_at_ed


def test_blood_is_brighter_than_muscle_in_every_frame(study):
    middle = study.sequences[len(study.sequences) // 2]
    for image, truth in zip(middle.image, middle.truth, strict=True):
        assert image[truth == LABELS["LV"]].mean() > 1.8 * image[truth == LABELS["MYO"]].mean()


def test_papillary_muscles_are_dark_but_belong_to_the_cavity(study):
    middle = study.sequences[len(study.sequences) // 2]
    blood = middle.image[0][middle.truth[0] == LABELS["LV"]]
    share_of_dark = (blood < 0.6 * np.median(blood)).mean()
    assert 0.02 < share_of_dark < 0.4


def test_a_thick_slice_mixes_what_lies_above_and_below():
    heart = draw_heart(ed_and_es(60), 0)
    at = slice_coordinates(*square_grid(1.0, 60.0), np.zeros((2, 2)), heart)
    look = draw_cine_look(heart, np.random.default_rng(0))
    near_apex_mm = 0.93 * heart.left.shape.length_mm
    painter = slice_painter(look, heart, at, 1.0, near_apex_mm)
    thin, thick = (painter.paint_slice(np.zeros((120, 120)), near_apex_mm, width)[0] for width in (0.1, 10.0))
    mixed = [np.count_nonzero((image > 0.45) & (image < 0.75) & (at.outer_radius[0] < 12)) for image in (thin, thick)]
    assert mixed[1] > 1.5 * mixed[0]


def test_noise_of_nothing_has_the_mean_of_a_rayleigh_distribution():
    heart = draw_heart(ed_and_es(), 0)
    look = replace(draw_cine_look(heart, np.random.default_rng(0)), noise=0.05, gain=1000.0)
    image = receive(look, np.zeros((2, 100, 100), np.float32), np.random.default_rng(1))
    # 0.05 * 1000 * sqrt(pi / 2) = 62.7
    assert image.mean() == pytest.approx(62.7, rel=0.02)


def test_waves_have_mean_0_and_standard_deviation_1():
    around = np.linspace(0, 2 * math.pi, 360, endpoint=False)
    values = Waves((1, 3), (0.4, 1.0), (0.1, 0.0)).at(around, 5.0)
    assert values.mean() == pytest.approx(0.0, abs=1e-9) and values.std() == pytest.approx(1.0)


def test_the_movie_of_one_beat_closes(study):
    def change(first, second):
        return np.mean([np.mean(s.truth[first] != s.truth[second]) for s in study.sequences])

    neighbours = [change(frame, frame + 1) for frame in range(11)]
    assert study.cyclic and change(11, 0) <= max(neighbours)


def test_only_one_whole_beat_is_cyclic():
    assert not draw(size=32, heartbeat=Heartbeat(4, 1.5, 55, 0.35, 1.0)).cyclic


def test_pixels_shrink_as_the_image_grows():
    small, large = (draw(size=size, heartbeat=ed_and_es()) for size in (32, 64))
    assert small.pixel_mm[0] == pytest.approx(2 * large.pixel_mm[0])


def test_one_seed_repeats_bit_by_bit_and_two_seeds_differ():
    first, again, other = (draw(seed, 32, ed_and_es()) for seed in (3, 3, 4))
    for one, two in zip(first.sequences, again.sequences, strict=True):
        assert np.array_equal(one.image, two.image) and np.array_equal(one.truth, two.truth)
    assert not np.array_equal(first.sequences[4].image, other.sequences[4].image)
    assert not np.array_equal(first.sequences[4].truth, other.sequences[4].truth)
