"""Damaged movies: each is a named InputError or a sound movie, never another error, and never much memory."""

import gzip
import random
import re
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest
import SimpleITK

from nnunet_temporal.datasets.movie_io import movie_header, read_movie
from nnunet_temporal.errors import InputError

MOVIE = np.random.default_rng(0).integers(0, 1000, (5, 2, 4, 3)).astype(np.int16)  # (T, Z, Y, X)
DAMAGES = 90
AT_MOST_BYTES = 20_000_000
FLOATS_OF_NIFTI = (76, 80, 84, 88, 92, 108, 112, 116)  # pixdim, vox_offset, scl_slope, scl_inter


def whole_movie(tmp_path, ending, compressed):
    path = tmp_path / f"a{ending}"
    if ending.startswith(".nii"):
        image = nibabel.Nifti1Image(MOVIE.T, np.diag([1.5, 1.25, 8.0, 1.0]))
        image.header.set_xyzt_units("mm", "msec")
        nibabel.save(image, path)
    else:
        image = SimpleITK.GetImageFromArray(MOVIE, isVector=False)
        image.SetSpacing((1.5, 1.25, 8.0, 0.04))
        SimpleITK.WriteImage(image, str(path), useCompression=compressed)
    return path


def damage_nifti_header(content, draw):
    kind = draw.randrange(3)
    if kind == 0:
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(352)] = draw.randrange(256)
    elif kind == 1:
        for _ in range(draw.randrange(1, 5)):
            struct.pack_into("<h", content, 40 + 2 * draw.randrange(8), draw.choice([32767, -32768, -1, 0, 7, 300]))
    else:
        value = draw.choice([float("nan"), float("inf"), -1.0, 0.0, 1e30, 1e-40])
        struct.pack_into("<f", content, draw.choice(FLOATS_OF_NIFTI), value)


def damage_text_header(content, draw):
    end = re.search(rb"\n\n|LOCAL|\Z", content).start()
    if draw.randrange(2):
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(end)] = draw.randrange(256)
        return
    # One number becomes another: sizes beyond any memory, negative ones, none at all.
    number = draw.choice(list(re.finditer(rb"(?<= )[\d.]+", content[:end])))
    other = draw.choice([b"0", b"-4", b"nan", b"-inf", b"1e400", b"99999", b"99999999999999999999", b"", b"x"])
    content[number.start() : number.end()] = other


def damaged(whole, ending, draw):
    """Return a damaged file, and whether its bytes were damaged as they are stored, not those of its header."""
    unpacked = bytearray(gzip.decompress(whole) if ending == ".nii.gz" else whole)
    kind = draw.randrange(4)
    if kind == 0:
        return whole[: draw.randrange(len(whole))], True
    if kind == 1:
        content = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        return bytes(content), True
    (damage_nifti_header if ending.startswith(".nii") else damage_text_header)(unpacked, draw)
    return gzip.compress(bytes(unpacked)) if ending == ".nii.gz" else bytes(unpacked), False


def outcome_of(path):
    """Return None for a movie that was refused, else its pixels, after a check that those are sound."""
    try:
        header = movie_header(path)
        pixels, spacing = read_movie(path)
    except InputError as error:
        assert path.stem in str(error)
        return None
    lengths = [*spacing.pixel_mm, *(length for length in (spacing.slice_mm, spacing.frame_s) if length is not None)]
    assert pixels.dtype == np.float32 and np.isfinite(pixels).all() and pixels.shape == header.shape
    assert pixels.ndim in (3, 4) and header.spacing == spacing
    assert all(np.isfinite(length) and length > 0 for length in lengths)
    return pixels


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # what nibabel multiplies by a damaged scale
@pytest.mark.parametrize(
    ("ending", "compressed"),
    [
        (".nii", False),
        (".nii.gz", True),
        (".nrrd", False),
        (".nrrd", True),
        (".mha", False),
        (".mha", True),
        (".mhd", False),
        (".mhd", True),
    ],
)
def test_a_damaged_movie_is_refused_or_read_soundly(tmp_path, ending, compressed):
    path = whole_movie(tmp_path, ending, compressed)
    assert np.array_equal(read_movie(path)[0], MOVIE)
    whole, outcomes = path.read_bytes(), set()
    tracemalloc.start()
    try:
        for seed in range(DAMAGES):
            content, is_stored = damaged(whole, ending, random.Random(seed))
            path.write_bytes(content)
            pixels = outcome_of(path)
            # All of a .nii.gz is under one check sum: what was damaged after it was packed is noticed, or harmless.
            if ending == ".nii.gz" and is_stored and pixels is not None:
                assert np.array_equal(pixels, MOVIE)
            outcomes.add("refused" if pixels is None else "read")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < AT_MOST_BYTES
    assert outcomes == {"refused", "read"}
