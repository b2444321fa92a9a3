import numpy as np
import pytest

from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat


def beat(**fields):
    usual = {"frames_per_cycle": 10.0, "beats": 1.0, "ef_percent": 60.0, "systole_share": 0.33, "cycle_s": 1.2}
    return Heartbeat(**{**usual, **fields})


def test_frames_are_the_rounded_product_of_rate_and_beats():
    # 24.6 * 1.5 = 36.9
    assert beat(frames_per_cycle=24.6, beats=1.5).n_frames == 37


def test_the_shortest_sequence_has_one_frame():
    assert beat(frames_per_cycle=1.0, beats=0.1).n_frames == 1


def test_the_frame_interval_is_the_beat_divided_by_its_frames():
    assert beat(cycle_s=1.2, frames_per_cycle=24.0).frame_interval_s == pytest.approx(0.05)


def test_phases_rise_from_the_start_by_one_beat_per_cycle():
    phases = beat(frames_per_cycle=4.0, beats=1.5, start_phase=-0.5).phases()
    assert phases == pytest.approx([-0.5, -0.25, 0.0, 0.25, 0.5, 0.75])


def test_the_ventricle_is_full_at_ed_and_holds_one_minus_ef_at_es():
    shares = beat(ef_percent=60.0, systole_share=0.33).volume_share(np.array([0.0, 0.33, 1.0, 1.33]))
    assert shares == pytest.approx([1.0, 0.4, 1.0, 0.4])


def test_no_phase_lies_outside_ed_and_es():
    shares = beat(ef_percent=60.0).volume_share(np.linspace(-1, 2, 5000))
    assert shares.min() == pytest.approx(0.4, abs=1e-5) and shares.max() == pytest.approx(1.0, abs=1e-5)


def test_the_curve_repeats_every_beat():
    phases = np.linspace(0, 1, 50, endpoint=False)
    assert beat().volume_share(phases - 2) == pytest.approx(beat().volume_share(phases))


def test_the_curve_has_no_kinks():
    step = 1e-4
    slope = np.diff(beat().volume_share(np.arange(-0.5, 1.5, step))) / step
    # A kink would change the slope, which reaches about 3, at once; a smooth curve changes it little by little.
    assert np.abs(slope).max() > 2
    assert np.abs(np.diff(slope)).max() < 0.02


def test_filling_is_an_early_wave_a_rest_and_an_atrial_kick():
    # Diastole runs from 0.4 to 1, its rest from 45 to 72 percent of it: 0.67 to 0.83. The atrium adds a quarter of 0.6.
    heartbeat = beat(systole_share=0.4, ef_percent=60.0)
    assert heartbeat.volume_share(np.array([0.67, 0.75, 0.83])) == pytest.approx([0.85, 0.85, 0.85])
    assert np.all(np.diff(heartbeat.volume_share(np.linspace(0.4, 0.67, 20))) > 0)
    assert np.all(np.diff(heartbeat.volume_share(np.linspace(0.84, 1.0, 20))) > 0)


def test_ed_and_es_are_the_nearest_frames():
    # ED is 0.23 beats after the start, frame 2.3; ES 0.33 beats later, frame 5.6.
    assert beat(start_phase=-0.23).ed_es() == (2, 6)


def test_ed_may_fall_a_little_before_the_first_frame():
    # 0.04 beats are 0.4 frames before it.
    assert beat(start_phase=0.04).ed_es() == (0, 3)


def test_the_first_ed_counts_in_a_longer_sequence():
    assert beat(start_phase=-0.5, beats=3.0).ed_es() == (5, 8)


def test_a_beat_cut_before_its_es_has_none():
    # The ES at phase -0.67 is in view, but it belongs to the beat before.
    assert beat(start_phase=-0.8).ed_es() == (8, None)


def test_a_piece_of_diastole_has_neither():
    assert beat(start_phase=0.5, beats=0.4).ed_es() == (None, None)


@pytest.mark.parametrize("limits", [((12, 80), (0.5, 4)), ((8, 9), (0.5, 0.5)), ((12, 30), (1, 1))])
def test_drawn_sequences_hold_an_ed_and_the_es_after_it(limits):
    rng = np.random.default_rng(0)
    for _ in range(300):
        ed, es = Heartbeat.draw(rng, *limits).ed_es()
        assert ed is not None and es is not None and es > ed


def test_drawn_numbers_stay_in_their_ranges():
    rng = np.random.default_rng(0)
    drawn = [Heartbeat.draw(rng, (15, 40), (0.6, 2)) for _ in range(300)]
    frames, beats = [h.frames_per_cycle for h in drawn], [h.beats for h in drawn]
    assert 15 <= min(frames) < 17 and 36 < max(frames) <= 40
    assert 0.6 <= min(beats) < 0.7 and 1.9 < max(beats) <= 2


def test_one_drawn_beat_is_cyclic():
    heartbeat = Heartbeat.draw(np.random.default_rng(0), (12.3, 30.7), (1, 1))
    assert heartbeat.is_cyclic and heartbeat.n_frames == heartbeat.frames_per_cycle


def test_other_lengths_are_not_cyclic():
    assert not beat(beats=2.0).is_cyclic and not beat(frames_per_cycle=10.4).is_cyclic


def test_one_seed_draws_the_same_and_two_seeds_differ():
    first, again, other = (Heartbeat.draw(np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first == again and first != other


@pytest.mark.parametrize(
    ("field", "value"),
    [("frames_per_cycle", 0.0), ("beats", -1.0), ("ef_percent", 100.0), ("systole_share", 1.0), ("cycle_s", 0.0)],
)
def test_impossible_fields_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        beat(**{field: value})


@pytest.mark.parametrize("limits", [(30, 20), (7, 20), (12, float("inf")), (float("nan"), 20)])
def test_impossible_ranges_are_refused(limits):
    with pytest.raises(ValueError, match="frames_per_cycle_range"):
        Heartbeat.draw(np.random.default_rng(0), limits)


def test_the_phase_runs_faster_in_shorter_beats():
    # Beats of 4, 8 and, over again, 4 frames.
    phases = beat(frames_per_cycle=8.0, beats=2.5, beat_lengths=(0.5, 1.0)).phases()
    assert phases == pytest.approx([0, 0.25, 0.5, 0.75, *(1 + np.arange(8) / 8), 2.0, 2.25])


def test_the_first_length_is_that_of_the_beat_the_first_frame_is_in():
    # Phase -0.5 is half way through a beat of 4 frames, two before the next one.
    phases = beat(frames_per_cycle=8.0, beats=1.0, start_phase=-0.5, beat_lengths=(0.5, 1.0)).phases()
    assert phases == pytest.approx([-0.5, -0.25, 0.0, 0.125, 0.25, 0.375])


def test_true_frames_per_cycle_are_frames_over_the_beats_they_cover():
    assert beat(frames_per_cycle=8.0, beats=2.0, beat_lengths=(0.5, 1.0)).true_frames_per_cycle == pytest.approx(6.0)
    assert beat(frames_per_cycle=24.6, beats=1.5).true_frames_per_cycle == pytest.approx(24.6)


def test_ed_and_es_are_the_nearest_frames_in_beats_of_any_length():
    # ED after 0.5 beats of 8 frames, ES 0.33 of 16 frames later, 9.28.
    heartbeat = beat(frames_per_cycle=8.0, beats=2.0, start_phase=-0.5, beat_lengths=(1.0, 2.0))
    assert heartbeat.ed_es() == (4, 9)


def test_an_irregular_beat_is_cyclic_only_where_its_frames_are_one_beat():
    assert beat(frames_per_cycle=8.0, beats=1.0, beat_lengths=(0.5, 1.0)).is_cyclic
    assert not beat(frames_per_cycle=8.0, beats=2.0, beat_lengths=(0.5, 1.0)).is_cyclic


def test_drawn_jitter_stays_in_its_range_and_keeps_everything_else():
    regular, jittered = (Heartbeat.draw(np.random.default_rng(3), (20, 30), (2, 4), j) for j in (0.0, 0.15))
    assert regular.beat_lengths == () and len(jittered.beat_lengths) >= 3
    assert 0.85 <= min(jittered.beat_lengths) < max(jittered.beat_lengths) <= 1.15
    assert (regular.frames_per_cycle, regular.ef_percent) == (jittered.frames_per_cycle, jittered.ef_percent)


def test_jitter_keeps_the_beats_that_the_frames_cover():
    rng = np.random.default_rng(0)
    for _ in range(200):
        heartbeat = Heartbeat.draw(rng, (12, 80), (0.5, 4), 0.15)
        covered = heartbeat.n_frames / heartbeat.true_frames_per_cycle
        # Half a frame of the shortest beat.
        assert abs(covered - heartbeat.beats) <= 0.5 / (0.85 * heartbeat.frames_per_cycle) + 1e-9


def test_sequences_with_jitter_hold_an_ed_and_the_es_after_it():
    rng = np.random.default_rng(0)
    for _ in range(500):
        ed, es = Heartbeat.draw(rng, (8, 80), (0.5, 4), 0.5).ed_es()
        assert ed is not None and es is not None and es > ed


def test_one_drawn_beat_has_no_jitter():
    assert Heartbeat.draw(np.random.default_rng(0), (12, 30), (1, 1), 0.15).is_cyclic


@pytest.mark.parametrize("jitter", [-0.1, 0.6, float("nan")])
def test_impossible_jitter_is_refused(jitter):
    with pytest.raises(ValueError, match="jitter"):
        Heartbeat.draw(np.random.default_rng(0), jitter=jitter)


@pytest.mark.parametrize("length", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_beat_lengths_are_refused(length):
    with pytest.raises(ValueError, match="beat_lengths"):
        beat(beat_lengths=(1.0, length))
