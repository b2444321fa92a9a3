"""Which frames make a clip: forwards in time, around labelled frames, padded at the end."""

import numpy as np
import pytest

from nnunet_temporal.training.clip_sampling import ClipSampler, WindowSampler

DRAWS = 50


def draw(n_frames=30, labelled=(4, 12, 20), cyclic=False, required=None, sampler=None, seed=0):
    """Draw many clips; the sequence's frames of each are ``frames[frames >= 0]``."""
    sampler = sampler or ClipSampler(clip_length=6, decoded_frames=2, frame_stride=2)
    rng = np.random.default_rng(seed)
    return [sampler.sample(n_frames, np.array(labelled), cyclic, rng, required) for _ in range(DRAWS)]


def real(clip):
    return clip.frames[clip.frames >= 0]


# name: arguments of draw()
SITUATIONS = {
    "usual": {},
    "cyclic": {"cyclic": True},
    "short": {"n_frames": 4, "labelled": (1, 3)},
    "short and cyclic": {"n_frames": 4, "labelled": (1, 3), "cyclic": True},
    "one frame": {"n_frames": 1, "labelled": (0,)},
    "one cyclic frame": {"n_frames": 1, "labelled": (0,), "cyclic": True},
    "one labelled": {"labelled": (7,)},
    "exactly as long": {"n_frames": 6, "labelled": (0, 5)},
    "required": {"required": 12},
    "only the required one is labelled": {"labelled": (12,), "required": 12},
    "every frame labelled": {"n_frames": 8, "labelled": tuple(range(8))},
    "everything decoded": {"n_frames": 3, "labelled": (0, 1, 2), "sampler": ClipSampler(4, 4, 1)},
}


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_clip_has_the_planned_size_and_shows_no_frame_twice(name):
    arguments = SITUATIONS[name]
    decoded = 4 if "sampler" in arguments else 2
    for clip in draw(**arguments):
        assert clip.frames.dtype == clip.decoded.dtype == np.int64
        assert clip.frames.shape == (4 if "sampler" in arguments else 6,)
        assert clip.decoded.shape == (decoded,)
        assert len(set(real(clip))) == len(real(clip))
        assert real(clip).max() < arguments.get("n_frames", 30)


@pytest.mark.parametrize("name", SITUATIONS)
def test_time_never_runs_backwards(name):
    for clip in draw(**SITUATIONS[name]):
        steps = np.diff(real(clip))
        backwards = (steps < 0).sum()
        assert backwards <= (1 if SITUATIONS[name].get("cyclic") else 0)
        if backwards:  # once around the cycle and not past where it began
            assert real(clip)[-1] < real(clip)[0]


@pytest.mark.parametrize("name", SITUATIONS)
def test_padding_is_at_the_end_and_only_where_the_sequence_has_no_more_frames(name):
    arguments = SITUATIONS[name]
    for clip in draw(**arguments):
        n_padding = (clip.frames == -1).sum()
        assert (clip.frames[len(clip.frames) - n_padding :] == -1).all()
        assert n_padding >= len(clip.frames) - arguments.get("n_frames", 30)
        if len(arguments.get("labelled", (4, 12, 20))) >= len(clip.decoded):
            assert n_padding == max(0, len(clip.frames) - arguments.get("n_frames", 30))


@pytest.mark.parametrize("name", SITUATIONS)
def test_decoded_positions_ascend_and_hold_labelled_frames_or_padding(name):
    labelled = SITUATIONS[name].get("labelled", (4, 12, 20))
    for clip in draw(**SITUATIONS[name]):
        decoded = clip.frames[clip.decoded]
        assert (np.diff(clip.decoded) > 0).all()
        assert set(decoded) <= {*labelled, -1}
        assert (decoded >= 0).sum() == min(len(labelled), len(clip.decoded))


@pytest.mark.parametrize("cyclic", [False, True])
def test_a_required_frame_is_decoded_in_every_clip(cyclic):
    for clip in draw(required=12, cyclic=cyclic):
        assert 12 in clip.frames[clip.decoded]


def test_every_labelled_frame_is_decoded_sooner_or_later():
    assert {frame for clip in draw() for frame in clip.frames[clip.decoded]} == {4, 12, 20}


def test_context_stays_within_reach_of_the_decoded_frames_and_fills_it():
    margin = 2 * 3  # the stride times half the clip length
    clips = draw(n_frames=60, labelled=(25, 30))
    seen = np.concatenate([real(clip) for clip in clips])
    assert seen.min() >= 25 - margin and seen.max() <= 30 + margin
    assert len(set(seen)) > 0.9 * (5 + 2 * margin + 1)


def test_context_of_a_cyclic_sequence_comes_from_the_whole_cycle():
    seen = {frame for clip in draw(n_frames=30, labelled=(0,), cyclic=True) for frame in real(clip)}
    assert seen == set(range(30))


def test_a_cyclic_clip_starts_at_any_phase_and_another_does_not():
    starts = {cyclic: {real(clip)[0] for clip in draw(6, (0, 3), cyclic)} for cyclic in (False, True)}
    assert starts == {False: {0}, True: set(range(6))}


def test_the_same_generator_state_gives_the_same_clips():
    for one, other in zip(draw(seed=3), draw(seed=3), strict=True):
        assert np.array_equal(one.frames, other.frames) and np.array_equal(one.decoded, other.decoded)
    assert any(not np.array_equal(a.frames, b.frames) for a, b in zip(draw(seed=3), draw(seed=4), strict=True))


def draw_windows(n_frames=30, cyclic=False, window=4, context=3, stride=2, seed=0):
    """Draw many clips around windows."""
    rng = np.random.default_rng(seed)
    return [WindowSampler(window, context, stride).sample(n_frames, cyclic, rng) for _ in range(DRAWS)]


# name: arguments of draw_windows()
WINDOWS = {
    "usual": {},
    "cyclic": {"cyclic": True},
    "shorter than the clip": {"n_frames": 5},
    "shorter than the clip and cyclic": {"n_frames": 5, "cyclic": True},
    "as long as the window": {"n_frames": 4},
    "as long as the window and cyclic": {"n_frames": 4, "cyclic": True},
    "shorter than the window": {"n_frames": 3},
    "shorter than the window and cyclic": {"n_frames": 3, "cyclic": True},
    "one frame": {"n_frames": 1},
    "no context": {"context": 0},
    "one frame per window": {"window": 1},
}


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_is_decoded_whole_and_its_frames_follow_each_other(name):
    arguments = WINDOWS[name]
    n_frames, length = arguments.get("n_frames", 30), arguments.get("window", 4)
    for clip in draw_windows(**arguments):
        assert clip.frames.shape == (length + arguments.get("context", 3),)
        assert clip.decoded.shape == (length,) and (np.diff(clip.decoded) > 0).all()
        assert clip.frames.dtype == clip.decoded.dtype == np.int64
        shown = clip.frames[clip.decoded]
        n_shown = min(length, n_frames)
        assert (shown[n_shown:] == -1).all() and (shown[:n_shown] >= 0).all()
        assert (np.diff(shown[:n_shown]) % n_frames == 1 % n_frames).all()
        if not arguments.get("cyclic"):
            assert (np.diff(shown[:n_shown]) == 1).all()


@pytest.mark.parametrize("name", WINDOWS)
def test_a_clip_around_a_window_runs_forwards_shows_no_frame_twice_and_ends_in_padding(name):
    n_frames = WINDOWS[name].get("n_frames", 30)
    for clip in draw_windows(**WINDOWS[name]):
        frames = real(clip)
        assert len(frames) == min(len(clip.frames), n_frames) == len(set(frames))
        assert (clip.frames[len(frames) :] == -1).all()
        backwards = (np.diff(frames) < 0).sum()
        assert backwards <= (1 if WINDOWS[name].get("cyclic") else 0)
        assert not backwards or frames[-1] < frames[0]


def first_frames(**arguments):
    return {int(clip.frames[clip.decoded[0]]) for clip in draw_windows(**arguments)}


def test_a_window_starts_anywhere_but_wraps_only_around_a_cycle():
    assert first_frames(n_frames=8) == set(range(5))
    assert first_frames(n_frames=8, cyclic=True) == set(range(8))


def test_the_place_of_a_window_in_a_cyclic_clip_varies():
    assert {int(clip.decoded[0]) for clip in draw_windows(cyclic=True)} == {0, 1, 2, 3}


def test_context_of_a_window_reaches_as_far_as_that_of_labelled_frames():
    clips = draw_windows(n_frames=100, window=3, context=3, stride=2)
    distances = [abs(frame - clip.frames[clip.decoded]).min() for clip in clips for frame in real(clip)]
    assert max(distances) == 2 * 3
    assert {len(real(clip)) for clip in clips} == {6}


def test_the_same_generator_state_gives_the_same_windows():
    same = [np.array_equal(a.frames, b.frames) for a, b in zip(draw_windows(seed=3), draw_windows(seed=3), strict=True)]
    other = [
        np.array_equal(a.frames, b.frames) for a, b in zip(draw_windows(seed=3), draw_windows(seed=4), strict=True)
    ]
    assert all(same) and not all(other)
