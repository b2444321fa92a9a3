"""Damaged DICOM files: each folder is a named InputError or sound movies, never another error."""

import random
import re
import struct

import numpy as np
import pydicom
import pytest
from damaged_files import WORDS, change_bytes, cut
from dicom_layout import cine_pixels, clip_pixels, save_cine, save_clip, save_enhanced_cine

from nnunet_temporal.datasets.dicom import find_studies
from nnunet_temporal.datasets.study_source import inspect_source
from nnunet_temporal.errors import InputError

LABELS = {"background": 0, "LV": 1, "ignore": 2}
PREAMBLE = 132
ELEMENT = re.compile(rb"(?s)[\x02-\x60]\0..(?:AE|AS|CS|DA|DS|DT|FD|FL|IS|LO|PN|SH|SL|SS|TM|UI|UL|US|AT)")
NUMBERS = {
    b"FD": ("<d", [0.0, -1.0, float("nan"), float("inf")]),
    b"FL": ("<f", [0.0, -1.0, float("nan"), float("inf")]),
    b"US": ("<H", [0, 1, 7, 65535]),
    b"UL": ("<I", [0, 1, 7, 2**32 - 1]),
}


def save_packed_clip(path, syntax):
    save_clip(path)
    dataset = pydicom.dcmread(path)
    if syntax == pydicom.uid.RLELossless:
        dataset.compress(syntax)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path)
    return path


FOLDERS = {
    "clip": (100, lambda folder: save_clip(folder / "a.dcm")),
    "colour": (60, lambda folder: save_clip(folder / "a.dcm", np.repeat(clip_pixels()[..., None], 3, -1))),
    "rle": (60, lambda folder: save_packed_clip(folder / "a.dcm", pydicom.uid.RLELossless)),
    "deflated": (60, lambda folder: save_packed_clip(folder / "a.dcm", pydicom.uid.DeflatedExplicitVRLittleEndian)),
    "cine": (80, lambda folder: save_cine(folder, cine_pixels(3, 2))[1, 1]),
    "enhanced": (60, lambda folder: save_enhanced_cine(folder / "a.dcm", cine_pixels(3, 2), np.ones((3, 2)))),
}


def damaged(whole, draw):
    kind = draw.randrange(5)
    if kind < 2:
        return (cut, change_bytes)[kind](whole, draw)
    element = draw.choice(list(ELEMENT.finditer(whole, PREAMBLE)))
    start, representation = element.end() + 2, whole[element.end() - 2 : element.end()]
    (length,) = struct.unpack_from("<H", whole, element.end())
    if kind == 2:
        return whole[: element.start()] + whole[start + length :]
    if representation in NUMBERS:
        code, values = NUMBERS[representation]
        value = struct.pack(code, draw.choice(values))
        return whole[:start] + value + whole[start + len(value) :]
    word = draw.choice(WORDS)
    # In its own length, or with what was there in place of it.
    word = (word + b" " * length)[:length] if kind == 3 else word + b" " * (len(word) % 2)
    return whole[: element.end()] + struct.pack("<H", len(word)) + word + whole[start + length :]


def outcome_of(folder):
    try:
        sources = find_studies(folder, ignore=2)
        for source in sources:
            inspect_source(source, LABELS)
    except InputError:
        return "refused"
    for source in sources:
        lengths = [*source.spacing.pixel_mm, source.spacing.slice_mm or 1.0, source.spacing.frame_s or 1.0]
        assert np.isfinite(lengths).all() and min(lengths) > 0 and "/" not in source.study and "." not in source.study
    return "read"


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", FOLDERS)
def test_a_damaged_dicom_file_is_refused_or_read_soundly(tmp_path, kind):
    n_damages, save = FOLDERS[kind]
    path = save(tmp_path)
    whole = path.read_bytes()
    assert outcome_of(tmp_path) == "read"
    outcomes = set()
    for seed in range(n_damages):
        path.write_bytes(damaged(whole, random.Random(seed)))
        outcomes.add(outcome_of(tmp_path))
    assert outcomes == {"refused", "read"}
