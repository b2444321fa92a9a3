"""Damaged videos: each is a named InputError or sound frames, never another error."""

import random

import numpy as np
import pytest
from damaged_files import change_bytes, change_length, cut
from echo_layouts import save_video
from PIL import Image

from nnunet_temporal.datasets.video_io import coloured_share, read_frames, read_header
from nnunet_temporal.errors import InputError

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 16, 24)).astype(np.uint8)
DAMAGES = 60
HEADER = 600


def save_gif(path, frames):
    pages = [Image.fromarray(frame) for frame in frames]
    pages[0].save(path, save_all=True, append_images=pages[1:], duration=40)
    return path


VIDEOS = {
    "jpeg.avi": lambda path: save_video(path, FRAMES),
    "raw.avi": lambda path: save_video(path, FRAMES, codec="rawvideo", pixels="gray"),
    "mpeg4.mp4": lambda path: save_video(path, FRAMES, codec="mpeg4", pixels="yuv420p"),
    "a.gif": lambda path: save_gif(path, FRAMES),
}


def damaged(whole, draw):
    kind = draw.randrange(4)
    if kind == 0:
        return cut(whole, draw)
    if kind == 1:
        return change_length(whole, draw, HEADER)
    return change_bytes(whole, draw, HEADER if kind == 2 else None)


def outcome_of(path):
    try:
        header, frames, share = read_header(path), read_frames(path), coloured_share(path)
    except InputError as error:
        assert path.stem in str(error)
        return "refused"
    assert frames.dtype == np.uint8 and frames.shape == header.shape and 0 <= share <= 1
    assert header.spacing.frame_s is None or (np.isfinite(header.spacing.frame_s) and header.spacing.frame_s > 0)
    return "read"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", VIDEOS)
def test_a_damaged_video_is_refused_or_read_soundly(tmp_path, name):
    path = VIDEOS[name](tmp_path / name)
    whole = path.read_bytes()
    assert outcome_of(path) == "read"
    outcomes = set()
    for seed in range(DAMAGES):
        path.write_bytes(damaged(whole, random.Random(seed)))
        outcomes.add(outcome_of(path))
    assert outcomes == {"refused", "read"}
