"""The overlay movie: what is in the file, and that every stack can be painted."""

import numpy as np
import pytest
from mask_folders import IGNORE, LV_ONLY, SCHEME
from PIL import Image
from segmented_hearts import beating, drawn_at, segmented

from nnunet_temporal.errors import InputError
from nnunet_temporal.evaluation.label_scheme import LabelScheme
from nnunet_temporal.report.colours import EXPERT_COLOUR, LABEL_COLOURS
from nnunet_temporal.report.curves import measure_curves
from nnunet_temporal.report.overlay_movie import LINE, TEXT, Painter, write_overlay_movie

HEART = beating((5, 4, 3, 4, 5))


def write(stack, path, labels=SCHEME):
    write_overlay_movie(stack, measure_curves(stack, labels)[0], labels, path)
    return path


def has_colour(picture, colour):
    """Return whether some pixels of the mosaic are nearly of a colour."""
    mosaic = np.asarray(picture.convert("RGB"))[50:-90].astype(int)
    return int((np.abs(mosaic - colour).max(axis=-1) < 40).sum()) > 20


def test_the_movie_has_all_frames_and_shows_the_expert_where_they_drew(tmp_path):
    stack = segmented(HEART, drawn_at(HEART, 0, 2), ed=0, es=2, frame_interval_s=0.04)
    durations, expert_seen = [], []
    with Image.open(write(stack, tmp_path / "movie.gif")) as movie:
        assert movie.n_frames == 5
        for frame in range(5):
            movie.seek(frame)
            assert has_colour(movie, LABEL_COLOURS[0]) and has_colour(movie, LABEL_COLOURS[1])
            durations.append(movie.info["duration"])
            expert_seen.append(has_colour(movie, EXPERT_COLOUR))
        assert movie.info.get("loop") == 0
    assert expert_seen == [True, False, True, False, False]
    assert durations == [900, 90, 900, 90, 90]


def test_a_movie_that_is_drawn_throughout_does_not_rest(tmp_path):
    with Image.open(write(segmented(HEART, HEART), tmp_path / "movie.gif")) as movie:
        movie.seek(1)
        assert movie.info["duration"] == 90


def test_an_mp4_has_the_frames_and_the_rests(tmp_path):
    av = pytest.importorskip("av")
    stack = segmented(HEART, drawn_at(HEART, 0, 2), ed=0, es=2)
    with av.open(str(write(stack, tmp_path / "movie.mp4"))) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    # Two frames rest ten times as long.
    assert len(frames) == 3 + 2 * 10
    assert all(side % 2 == 0 for side in frames[0].shape[:2])
    # Compressed twice as coarsely in colour: some pixels are still near.
    blue = np.abs(frames[0].astype(int) - LABEL_COLOURS[0]).max(axis=-1) < 60
    assert blue.sum() > 20


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_a_failure_leaves_an_older_movie_alone(tmp_path, suffix, monkeypatch):
    if suffix == ".mp4":
        pytest.importorskip("av")
    path = tmp_path / f"movie{suffix}"
    path.write_bytes(b"older")
    stack = segmented(HEART)
    stack.truth[:] = 0
    monkeypatch.setattr("nnunet_temporal.report.overlay_movie.draw_outline", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write(stack, path)
    assert path.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [path]


def test_a_long_value_does_not_run_into_the_curve():
    movie = np.zeros((2, 150, 150), np.uint8)
    for frame, half in enumerate((30, 24)):
        movie[frame, 20:130, 75 - half : 75 + half] = 1
    stack = segmented(movie, labels=LV_ONLY, view="4CH", pixel_mm=None, ed=0, es=1)
    (curve,) = measure_curves(stack, LV_ONLY)
    painted = np.asarray(Painter(stack, curve, LV_ONLY).paint(1))[-80:]
    axis, text = ((painted == colour).all(axis=-1) for colour in (LINE, TEXT))
    left = np.flatnonzero(axis[axis.sum(axis=1).argmax()])[0]
    # The ring around the second of two frames, in the colour of the text, is at the right end.
    letters = np.flatnonzero(text[:, : painted.shape[1] // 2].any(axis=0))
    assert 84 < letters[-1] < left


def test_another_ending_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"found the ending '\.webm', expected gif or mp4"):
        write(segmented(HEART), tmp_path / "movie.webm")


@pytest.mark.parametrize(
    "stack",
    [
        lambda: segmented(HEART[:1, 0]),
        lambda: segmented(beating((4, 3), slices=3)),
        lambda: segmented(np.zeros_like(HEART)),
        lambda: segmented(HEART[:, 0], view="4CH", pixel_mm=None),
        lambda: segmented(HEART, name="<Müller> " * 20),
    ],
    ids=["frame", "few frames", "empty", "view", "long name"],
)
def test_odd_stacks_are_painted(tmp_path, stack):
    with Image.open(write(stack(), tmp_path / "movie.gif")) as movie:
        assert movie.width >= 620


def test_labels_without_roles_are_painted(tmp_path):
    labels = LabelScheme({"a": 1, "b": 2}, IGNORE, {})
    with Image.open(write(segmented(HEART, labels=labels), tmp_path / "movie.gif", labels)) as movie:
        assert has_colour(movie, LABEL_COLOURS[1])
