from importlib.resources import files

import numpy as np
import pytest

from nnunet_temporal.datasets.heart_cycle import MIN_FRAMES, Cycle, estimate_cycle
from nnunet_temporal.datasets.image_io import read_image
from nnunet_temporal.datasets.phantom.cine import draw_cine_study
from nnunet_temporal.datasets.phantom.echo import draw_echo_study
from nnunet_temporal.datasets.phantom.heartbeat import Heartbeat

SIZE = 48


def clock(frames_per_cycle, beats, start_phase=-0.25, beat_lengths=(), ef_percent=60.0):
    return Heartbeat(frames_per_cycle, beats, ef_percent, 0.37, 0.9, start_phase, beat_lengths)


def draw(contraction, seed=0, noise=2.0):
    """Draw a bright disc of radius 16 to 10 pixels that contracts by the given shares (T,): (T, Y, X)."""
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    radius = 16 - 6 * np.asarray(contraction)[:, None, None]
    disc = 100 / (1 + np.exp(np.hypot(y, x) - radius))
    return disc + np.random.default_rng(seed).normal(0, noise, disc.shape)


def disc(*clock_arguments, seed=0, noise=2.0, **clock_options):
    heartbeat = clock(*clock_arguments, **clock_options)
    return draw((1 - heartbeat.volume_share(heartbeat.phases())) / 0.6, seed, noise)


def is_near(cycle, frames_per_cycle):
    return cycle.frames_per_cycle is not None and abs(cycle.frames_per_cycle / frames_per_cycle - 1) <= 0.1


@pytest.fixture(scope="module")
def slices():
    """Every slice (T, Y, X) of the real studies in the package, each of which covers one beat."""
    paths = [path for path in files("nnunet_temporal.demo_data").iterdir() if path.name.endswith("_cine.nii.gz")]
    images = [read_image(path) for path in sorted(paths)]
    return [image[:, z] for image in images for z in range(image.shape[1])]


@pytest.mark.parametrize("frames_per_cycle", [12, 27.4, 80])
@pytest.mark.parametrize("beats", [1.6, 2.3, 4])
@pytest.mark.parametrize("start_phase", [0.0, -0.4, -0.8])
def test_beats_that_repeat_give_their_length(frames_per_cycle, beats, start_phase):
    cycle = estimate_cycle(disc(frames_per_cycle, beats, start_phase))
    assert is_near(cycle, frames_per_cycle) and cycle.kind == "periodic"


def test_one_and_a_half_beats_give_their_length_from_most_phases():
    # Where the half that repeats is at rest, there is nothing to see.
    starts = np.linspace(-0.95, 0, 20)
    assert np.mean([is_near(estimate_cycle(disc(30, 1.5, start)), 30) for start in starts]) >= 0.85


@pytest.mark.parametrize("lengths", [(0.85, 1.15), (1.15, 0.85, 1.0), (0.9, 1.1, 1.15, 0.85)])
@pytest.mark.parametrize("beats", [2, 3.5])
def test_beats_of_differing_lengths_give_frames_per_beat_covered(lengths, beats):
    truth = clock(30, beats, beat_lengths=lengths).true_frames_per_cycle
    assert is_near(estimate_cycle(disc(30, beats, beat_lengths=lengths)), truth)


@pytest.mark.parametrize("frames_per_cycle", [12, 25, 80])
@pytest.mark.parametrize("start_phase", [0.0, -0.3, -0.6])
def test_one_closed_beat_has_all_frames(frames_per_cycle, start_phase):
    cycle = estimate_cycle(disc(frames_per_cycle, 1, start_phase))
    assert cycle.frames_per_cycle == frames_per_cycle and cycle.kind == "closed"


@pytest.mark.parametrize("frames_per_cycle", [24, 40, 80])
@pytest.mark.parametrize("start_phase", np.linspace(-0.9, 0, 7).tolist())
def test_half_a_beat_gives_none(frames_per_cycle, start_phase):
    assert estimate_cycle(disc(frames_per_cycle, 0.5, start_phase)).frames_per_cycle is None


def test_from_end_diastole_to_end_systole_gives_none():
    assert estimate_cycle(disc(40, 0.37 + 1 / 40, 0.0)).frames_per_cycle is None


@pytest.mark.parametrize("n_frames", [12, 30, 60])
def test_a_piece_that_ends_where_it_began_on_its_way_back_gives_none(n_frames):
    # In and out again at full speed: the gap is zero, only the bend at the seam tells.
    contraction = np.sin(np.linspace(0, np.pi, n_frames))
    assert estimate_cycle(draw(contraction)).frames_per_cycle is None


def test_twice_the_beat_is_not_taken_for_the_beat():
    # A whole number of beats is closed and periodic with every multiple.
    assert is_near(estimate_cycle(disc(20, 4)), 20)


def test_still_images_with_noise_give_none():
    answers = [estimate_cycle(draw(np.zeros(n), seed=n, noise=10)) for n in range(8, 40)]
    assert {cycle.frames_per_cycle for cycle in answers} == {None}


def test_images_without_any_change_give_none():
    assert estimate_cycle(np.full((20, 16, 16), 7.0)) == Cycle()


def test_pure_noise_gives_none():
    rng = np.random.default_rng(0)
    answers = [estimate_cycle(rng.normal(size=(n, SIZE, SIZE))) for n in range(8, 40)]
    assert {cycle.frames_per_cycle for cycle in answers} == {None}


def test_a_wash_in_gives_none():
    assert estimate_cycle(draw(np.zeros(30)) * np.linspace(1, 2, 30)[:, None, None]).frames_per_cycle is None


def test_a_panning_view_gives_none():
    still = draw(np.zeros(1), noise=0)[0]
    panned = np.stack([np.roll(still, t // 2, axis=1) for t in range(40)])
    noisy = panned + np.random.default_rng(0).normal(0, 2, panned.shape)
    assert estimate_cycle(noisy).frames_per_cycle is None


def test_frames_in_disorder_give_none():
    rng = np.random.default_rng(0)
    answers = [estimate_cycle(draw(rng.uniform(0, 1, n), seed=n)) for n in range(8, 40)]
    # Eight frames fall into a cycle by chance.
    assert np.mean([cycle.frames_per_cycle is None for cycle in answers]) >= 0.95


@pytest.mark.parametrize("n_frames", [1, 2, MIN_FRAMES - 1])
def test_too_few_frames_give_none(n_frames):
    assert estimate_cycle(disc(n_frames, 1)) == Cycle()


def test_the_fewest_frames_may_be_a_beat():
    assert estimate_cycle(disc(MIN_FRAMES, 1)).frames_per_cycle == MIN_FRAMES


def test_only_an_answer_has_a_confidence_of_a_half_or_more():
    sequences = [disc(30, beats, start) for beats in np.arange(0.4, 3, 0.15) for start in (0, -0.3, -0.6)]
    answers = [estimate_cycle(sequence) for sequence in sequences]
    assert {cycle.kind for cycle in answers} == {"periodic", "closed", None}
    for cycle in answers:
        assert 0 <= cycle.confidence <= 1
        assert (cycle.confidence >= 0.5) == (cycle.frames_per_cycle is not None) == (cycle.kind is not None)


def test_noise_lowers_the_confidence():
    clean, noisy = (estimate_cycle(disc(20, 2.5, noise=noise)) for noise in (0.5, 40))
    assert noisy.confidence < clean.confidence


def test_grey_values_of_any_scale_give_the_same():
    frames = disc(20, 2.5)
    expected = estimate_cycle(frames)
    scaled = estimate_cycle(1e-3 * frames - 5)
    assert scaled.frames_per_cycle == pytest.approx(expected.frames_per_cycle, rel=0.01)
    assert scaled.confidence == pytest.approx(expected.confidence, abs=0.01)


def test_whole_numbers_are_accepted_and_left_as_they_are():
    frames = np.clip(disc(20, 2.5), 0, 255).astype(np.uint8)
    before = frames.copy()
    assert is_near(estimate_cycle(frames), 20)
    assert np.array_equal(frames, before)


def test_one_channel_is_a_sequence_and_a_still_channel_does_no_harm():
    frames = disc(20, 2.5)
    assert estimate_cycle(frames[None]) == estimate_cycle(frames)
    assert is_near(estimate_cycle(np.stack([np.zeros_like(frames), frames])), 20)


def test_a_channel_counts_whatever_its_scale():
    # A still channel with strong noise, and one a thousand times weaker that beats.
    still = draw(np.zeros(50), seed=1)
    assert is_near(estimate_cycle(np.stack([still, 1e-3 * disc(20, 2.5)])), 20)


def test_narrow_frames_are_accepted():
    assert is_near(estimate_cycle(disc(20, 2.5)[:, 20:23]), 20)


@pytest.mark.parametrize("shape", [(10, 10), (0, 8, 8), (10, 0, 8), (1, 1, 10, 8, 8)])
def test_other_axes_are_refused(shape):
    with pytest.raises(ValueError, match="expected frames"):
        estimate_cycle(np.zeros(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    frames = disc(20, 1)
    frames[3, 5, 5] = value
    with pytest.raises(ValueError, match="finite"):
        estimate_cycle(frames)


def test_real_beats_have_all_frames(slices):
    answers = [estimate_cycle(beat) for beat in slices]
    right = [cycle.frames_per_cycle == len(beat) for cycle, beat in zip(answers, slices, strict=True)]
    assert np.mean(right) >= 0.95


def test_pieces_of_real_beats_give_none(slices):
    rng = np.random.default_rng(0)
    lengths = rng.uniform(0.4, 0.7, len(slices)) * 20
    pieces = [np.roll(b, -rng.integers(20), 0)[: round(n)] for b, n in zip(slices, lengths, strict=True)]
    assert np.mean([estimate_cycle(piece).frames_per_cycle is None for piece in pieces]) >= 0.95


def test_real_beats_repeated_from_a_random_start_give_their_length(slices):
    rng = np.random.default_rng(0)
    repeated = [
        np.take(beat, rng.integers(20) + np.arange(rng.integers(40, 61)), axis=0, mode="wrap") for beat in slices
    ]
    assert np.mean([is_near(estimate_cycle(sequence), 20) for sequence in repeated]) >= 0.95


@pytest.mark.parametrize("draw_study", [draw_cine_study, draw_echo_study])
@pytest.mark.parametrize("beats", [1, 2.4])
def test_phantoms_give_the_frames_they_were_drawn_with(draw_study, beats):
    lengths = () if beats == 1 else (1.1, 0.9, 1.1)
    heartbeat = clock(16, beats, beat_lengths=lengths)
    sequences = draw_study("s", heartbeat, 48, np.random.default_rng(1)).sequences
    near = [is_near(estimate_cycle(s.image), heartbeat.true_frames_per_cycle) for s in sequences]
    assert np.mean(near) >= 0.8


@pytest.mark.parametrize("draw_study", [draw_cine_study, draw_echo_study])
def test_contracting_phantoms_give_none(draw_study):
    sequences = draw_study("s", clock(40, 0.4, 0.0), 48, np.random.default_rng(1)).sequences
    assert {estimate_cycle(s.image).frames_per_cycle for s in sequences} == {None}
