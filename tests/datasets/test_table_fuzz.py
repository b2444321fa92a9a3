"""Damaged tables, facts and masks: each is a named InputError or read, never another error; so are odd names."""

import gzip
import random
import zipfile
from pathlib import Path

import nibabel
import numpy as np
import pytest
from damaged_files import change_bytes, cut
from nifti_movies import save_movie
from scipy.io import savemat

from nnunet_temporal.datasets import acdc, camus_layout, echonet_dynamic, echonet_files, hmcqu, mnms, sunnybrook
from nnunet_temporal.datasets.image_io import ImageHeader, read_labels
from nnunet_temporal.datasets.nifti import NiftiLayout, find_studies
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest

DAMAGES = 75
DATASETS = 20
MASKS = np.pad(np.ones((2, 100, 90), np.uint8), ((0, 0), (60, 64), (60, 74)))
FACTS = b"ED: 1\nES: 5\nGroup: NOR\nNbFrame: 9\nFrameRate: 45.2\n"
TABLES = {
    "acdc.cfg": (FACTS, lambda path: acdc._read_phases(path, ImageHeader(path, (9, 2, 5, 6), None))),
    "camus.cfg": (FACTS, camus_layout.read_facts),
    "list.txt": (b"patient0001\npatient0002\n", camus_layout.read_patient_list),
    "FileList.csv": (
        b"FileName,EF,FPS,Split\n0X1E5,55,50,TRAIN\n0X2,60,50,TEST\n",
        lambda path: echonet_files.read_clips(path, ["TRAIN", "VAL", "TEST"]),
    ),
    "Tracings.csv": (
        b"FileName,X1,Y1,X2,Y2,Frame\n" + b"a.avi,10.5,2,30,4,5\na.avi,10,6,30,8.25,5\n" * 3,
        echonet_dynamic._read_contours,
    ),
    "mnms.csv": (
        b",External code,VendorName,ED,ES,Age\n0,A0S9V9,Siemens,0,9,50\n1,B0,GE,,,\n",
        lambda path: mnms._read_table(path.parent),
    ),
    "facts.json": (b'{"dt_s": 0.04, "ed_t": [3], "es_t": [1]}', sunnybrook._read_facts),
}


def damaged(whole, draw):
    return draw.choice([cut, change_bytes, change_bytes])(whole, draw)


def outcomes_of(path, whole, read, rebuilt=lambda content: content):
    outcomes = set()
    for seed in range(DAMAGES):
        path.write_bytes(rebuilt(damaged(whole, random.Random(seed))))
        try:
            read(path)
            outcomes.add("read")
        except InputError as error:
            assert str(path) in str(error) or str(path.parent) in str(error)
            outcomes.add("refused")
    return outcomes


@pytest.mark.parametrize("name", TABLES)
def test_a_damaged_table_is_refused_or_read(tmp_path, name):
    whole, read = TABLES[name]
    (tmp_path / name).write_bytes(whole)
    read(tmp_path / name)
    assert "refused" in outcomes_of(tmp_path / name, whole, read)


def save_sheet(path):
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(list(hmcqu._COLUMNS))
    book.active.append(["ES0001 _4CH_1", 3, 12, "ü"])
    book.save(path)
    return path.read_bytes()


def read_sheet(path):
    return [hmcqu._cycle(row, path) for row in hmcqu._read_rows(path)]


def test_a_damaged_sheet_is_refused_or_read(tmp_path):
    path = tmp_path / "A4C.xlsx"
    whole = save_sheet(path)
    assert read_sheet(path) == [(2, 12)]
    assert "refused" in outcomes_of(path, whole, read_sheet)


def test_a_sheet_that_is_damaged_before_it_is_packed_is_refused_or_read(tmp_path):
    path, packed = tmp_path / "A4C.xlsx", tmp_path / "whole.xlsx"
    save_sheet(packed)
    with zipfile.ZipFile(packed) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def rebuilt(content):
        with zipfile.ZipFile(path, "w") as archive:
            for name, part in parts.items():
                archive.writestr(name, content if name == "xl/worksheets/sheet1.xml" else part)
        return path.read_bytes()

    assert "refused" in outcomes_of(path, parts["xl/worksheets/sheet1.xml"], read_sheet, rebuilt)


def test_damaged_masks_of_matlab_are_refused_or_read(tmp_path):
    savemat(tmp_path / "a.mat", {"predicted": MASKS})
    whole = (tmp_path / "a.mat").read_bytes()
    assert "refused" in outcomes_of(tmp_path / "a.mat", whole[:400], lambda path: hmcqu._read_masks(path, (2, 60, 80)))
    labels = []
    read = lambda path: labels.append(hmcqu._read_masks(path, (2, 60, 80)))  # noqa: E731
    outcomes_of(tmp_path / "a.mat", whole, read)
    assert all(found.shape == (2, 60, 80) and found.max() <= 2 for found in labels)


def test_damaged_masks_in_nifti_are_refused_or_hold_small_whole_numbers(tmp_path):
    path = tmp_path / "a.nii.gz"
    nibabel.save(nibabel.Nifti1Image(MASKS[:, :9, :8].T.astype(np.float32), np.eye(4)), path)
    whole = gzip.decompress(path.read_bytes())[:600]
    labels = []
    outcomes_of(path, whole, lambda path: labels.append(read_labels(path)), gzip.compress)
    assert all(found.dtype.kind == "u" and found.dtype.itemsize <= 2 for found in labels)


def test_a_damaged_movie_gives_a_whole_dataset_or_none(tmp_path):
    info = DatasetInfo(7, "Hearts", {"background": 0, "LV": 1}, "cineMRI")
    for name in ("a", "b"):
        image = save_movie(tmp_path / "in", name)
    whole, raw = gzip.decompress(image.read_bytes()), tmp_path / "raw"
    raw.mkdir()
    n_written = 0
    for seed in range(DATASETS):
        image.write_bytes(gzip.compress(damaged(whole, random.Random(seed)), 1))
        try:
            sources = find_studies(tmp_path / "in", NiftiLayout(), 2)
            folder = write_raw_dataset(sources, info, raw, workers=1, overwrite=True).folder
        except InputError:
            assert len(list(raw.iterdir())) == (n_written > 0)
            continue
        n_written += 1
        cases = set(Manifest.load(folder))
        for kind, ending in (("imagesTr", "_0000.nii.gz"), ("labelsTr", ".nii.gz")):
            assert {path.name.removesuffix(ending) for path in (folder / kind).iterdir()} == cases
    assert 0 < n_written < DATASETS


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "..", "a/b", "a\\b", "a\0b", "x" * 240, "x" * 5000, "", " ", "con\n", "\udcff", "."]
)
def test_a_clip_with_a_name_that_leads_elsewhere_writes_nothing(tmp_path, name):
    (tmp_path / "in").mkdir()
    with (tmp_path / "in" / "FileList.csv").open("w", newline="", errors="surrogateescape") as file:
        file.write(f'FileName,Split\n"{name}",TRAIN\n')
    (tmp_path / "in" / "VolumeTracings.csv").write_text("FileName,X1,Y1,X2,Y2,Frame\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError):
        echonet_dynamic.find_studies(tmp_path / "in")
    assert sorted(tmp_path.rglob("*")) == before


def test_files_behind_links_are_read_and_links_to_nowhere_or_to_themselves_are_passed_over(tmp_path):
    for name in ("a", "b"):
        save_movie(tmp_path / "elsewhere", name)
    (tmp_path / "in").mkdir()
    for kind in ("images", "labels"):
        (tmp_path / "in" / kind).symlink_to(tmp_path / "elsewhere" / kind)
    for name, target in (("gone", "nowhere"), ("loop", "loop.nii.gz")):
        (tmp_path / "in" / "images" / f"{name}.nii.gz").symlink_to(Path(target))
    assert [source.study for source in find_studies(tmp_path / "in", NiftiLayout(), 2)] == ["a", "b"]
