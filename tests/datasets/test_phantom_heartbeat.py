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
