"""The verb ``report`` from folders to a page, and what it refuses."""

import contextlib
import csv
import html
import os
import re
import shutil
import sys

import numpy as np
import pytest
from ellipsoid_views import Ellipsoid, draw_view
from mask_folders import write_masks
from PIL import Image
from segmented_hearts import beating, drawn_at, film_of, write_folders

from nnunet_temporal.cli import main
from nnunet_temporal.inference.propagation.study_records import FrameRecord, write_records

HEART = beating((5, 4, 3, 4))
FIELDS = {"ed": 0, "es": 2, "cyclic": True, "slice_spacing_mm": 300.0, "frame_interval_s": 0.04}
EVIL = "<img src=x onerror=alert(1)> \"'& Müller"


def split(study, heart=HEART):
    """Return the sequences of a study and their entries in the manifest."""
    slices = {f"{study}_z{z:02d}": heart[:, z] for z in range(heart.shape[1])}
    return slices, {case: {"study": study, "slice": z, **FIELDS} for z, case in enumerate(slices)}


def cells(page, study):
    """Return the values of a study's row."""
    rows = re.findall(r"<tr data-study.*?</tr>", page, re.DOTALL)
    values = [re.findall(r'data-value="(.*?)"', row) for row in rows]
    return next(found[1:] for found in values if html.unescape(found[0]) == study)


def test_numbers_on_the_page_are_those_of_evaluate(tmp_path, capsys):
    predicted, entries = {}, {}
    for study, halves in (("a", (5, 4, 3, 4)), ("b", (5, 5, 4, 4))):
        slices, fields = split(study, beating(halves))
        predicted |= slices
        entries |= fields
    truth = {case: drawn_at(split("x", beating((5, 4, 4, 4)))[0]["x_z00"], 0, 2) for case in predicted}
    arguments = write_folders(tmp_path, predicted, truth, entries)
    assert main(["report", *arguments, "--title", "Two hearts"]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<title>Two hearts</title>" in page
    assert main(["evaluate", "-ref", str(tmp_path / "labelsTs"), "-pred", str(tmp_path / "masks"), "-np", "1"]) == 0
    with (tmp_path / "masks" / "studies.csv").open() as file:
        rows = {row["study"]: row for row in csv.DictReader(file) if row["label"] == "LV"}
    names = ("ef_predicted_percent", "ef_reference_percent", "edv_predicted_ml", "esv_predicted_ml")
    for study in "ab":
        measured = [float(rows[study][name]) for name in names]
        assert [float(value) for value in cells(page, study)[:4]] == pytest.approx(measured, rel=1e-3)
    printed = capsys.readouterr().out
    assert f"2 studies, 1 of them with flags: {tmp_path / 'page.html'}" in printed


def test_whole_movies_without_expert_and_manifest(tmp_path, capsys):
    arguments = write_folders(tmp_path, {"a": HEART, "b": HEART})
    (tmp_path / "masks" / "b.nii.gz").unlink()
    assert main(["report", *arguments]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h1>1 segmented heart study</h1>" in page
    # 100 and 36 pixels of 2 x 1 mm, 8 mm apart: 3.2 and 1.152 ml.
    assert cells(page, "a")[:4] == ["64", "", "3.2", "1.152"]
    assert "<dt>Movies without masks, not in this report</dt><dd>b</dd>" in page
    assert "no masks: 1 movies or sequences" in capsys.readouterr().out


def read_table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_figures_of_the_page_may_be_had_as_a_table(tmp_path, capsys):
    slices, entries = split("a")
    truth = {case: drawn_at(masks, 0, 2) for case, masks in slices.items()}
    arguments = write_folders(tmp_path, slices, truth, entries)
    assert main(["report", *arguments, "--table", str(tmp_path / "deep" / "ef.csv")]) == 0
    (row,) = read_table(tmp_path / "deep" / "ef.csv")
    # 100 and 36 pixels of 2 x 1 mm in two slices 300 mm apart.
    assert (row["study"], row["ef_predicted_percent"], row["ef_reference_percent"]) == ("a", "64", "64")
    assert (row["edv_predicted_ml"], row["esv_predicted_ml"], row["area_change_predicted_percent"]) == (
        "120",
        "43.2",
        "",
    )
    assert (row["ed_frame"], row["es_frame"], row["volume_method"]) == ("0", "2", "slice_summation")
    assert (row["phase_source"], row["dice_LV"], row["dice_MYO"]) == ("manifest", "1", "1")
    assert f"Figures as a table: {tmp_path / 'deep' / 'ef.csv'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--table", "."), "--table .*: found a folder"),
        (("--table", "images/../page.html"), "--table .*: found the same name as that of the page"),
        (("--table", "dataset.json/ef.csv"), "--table .*: found the file .*dataset.json, expected a folder"),
        (("--movies", "dataset.json"), "--movies .*: found the file .*dataset.json, expected a folder"),
        (("-o", "dataset.json/page.html"), "-o .*: found the file .*dataset.json, expected a folder"),
    ],
)
def test_names_under_which_nothing_can_be_written_are_refused_first(tmp_path, capsys, options, message):
    arguments = write_folders(tmp_path, {"a": HEART})
    assert main(["report", *arguments, options[0], str(tmp_path / options[1])]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes there only")
def test_a_name_that_is_no_text_is_in_the_table_too(tmp_path):
    name = os.fsdecode(b"a\xff")
    arguments = write_folders(tmp_path, {name: HEART})
    assert main(["report", *arguments, "--table", str(tmp_path / "ef.csv")]) == 0
    assert [row["study"] for row in read_table(tmp_path / "ef.csv")] == ["a?"]


def test_confidence_is_found_where_the_view_is_named(tmp_path):
    arguments = write_folders(tmp_path, {"a": HEART[:, 0]})
    records = [FrameRecord(0, frame, "middle", "time", confidence=0.1) for frame in range(len(HEART))]
    write_records(records, tmp_path / "masks" / "a_frames.csv")
    table = tmp_path / "ef.csv"
    assert main(["report", *arguments, "--table", str(table), "--view", "a4c"]) == 0
    assert "low confidence" in read_table(table)[0]["flags"]


def test_a_named_view_gives_an_ejection_fraction_without_any_scale(tmp_path):
    hearts = (Ellipsoid(57.0, 24.0), Ellipsoid(50.0, 20.0), Ellipsoid(46.0, 18.0, cut=0.45), Ellipsoid(50.0, 20.0))
    movie = np.stack([draw_view(heart, 1.0).ventricle for heart in hearts]).astype(np.uint8)
    entries = {"a": {"study": "a", "pixel_spacing_known": False}}
    arguments = write_folders(tmp_path, {"a": movie}, None, entries)
    table = str(tmp_path / "ef.csv")
    assert main(["report", *arguments, "--table", table]) == 0
    (row,) = read_table(tmp_path / "ef.csv")
    assert (row["ef_predicted_percent"], row["volume_method"]) == ("", "area")
    assert main(["report", *arguments, "--table", table, "--view", "4CH"]) == 0
    (row,) = read_table(tmp_path / "ef.csv")
    expected = 100 * (1 - hearts[2].volume_ml / hearts[0].volume_ml)
    assert float(row["ef_predicted_percent"]) == pytest.approx(expected, abs=3)
    assert (row["edv_predicted_ml"], row["volume_method"]) == ("", "simpson_monoplane_4CH")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Ejection fraction" in page and "10³ px³" in page
    assert "no millilitres" in page


def test_movies_are_written_beside_the_page(tmp_path):
    arguments = write_folders(tmp_path, {"a b": HEART, "a_b": HEART})
    assert main(["report", *arguments, "--movies", str(tmp_path / "deep" / "movies")]) == 0
    assert sorted(path.name for path in (tmp_path / "deep" / "movies").iterdir()) == ["a b.gif", "a_b.gif"]
    with Image.open(tmp_path / "deep" / "movies" / "a b.gif") as movie:
        assert movie.n_frames == 4


def test_movies_may_be_mp4(tmp_path):
    pytest.importorskip("av")
    arguments = write_folders(tmp_path, {"a": HEART[:2]})
    assert main(["report", *arguments, "--movies", str(tmp_path / "movies"), "--movie-format", "mp4"]) == 0
    assert (tmp_path / "movies" / "a.mp4").read_bytes()[4:8] == b"ftyp"


@pytest.mark.skipif(sys.platform == "win32", reason="these names are no file names there")
def test_odd_names_of_files_and_labels_stay_text(tmp_path):
    labels = {"background": 0, "</script><b>": 1, EVIL: 2, "ignore": 9}
    arguments = write_folders(tmp_path, {EVIL: HEART}, labels=labels)
    write_folders(tmp_path, {EVIL: HEART}, {EVIL: drawn_at(HEART, 0, 2)}, labels=labels)
    assert main(["report", *arguments, "--title", EVIL, "--roles", "LV=1", "--movies", str(tmp_path / "movies")]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and "</script><b>" not in page
    assert film_of(page)[0][0]["name"] == EVIL
    assert (tmp_path / "movies" / f"{EVIL}.gif").is_file()


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_names_that_are_no_text_have_a_page(tmp_path):
    arguments = write_folders(tmp_path, {"a": HEART})
    for folder in ("images", "masks"):
        os.rename(tmp_path / folder / "a.nii.gz", os.path.join(os.fsencode(tmp_path / folder), b"a\xff.nii.gz"))
    assert main(["report", *arguments]) == 0
    assert "a?" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_one_frame_and_a_single_slice_have_a_page(tmp_path):
    arguments = write_folders(tmp_path, {"frame": HEART[:1, 0], "slice": HEART[:, 0]})
    assert main(["report", *arguments]) == 0
    assert [film[0]["n"] for film in film_of((tmp_path / "page.html").read_text(encoding="utf-8"))] == [1, 4]


def test_views_of_one_study_stand_together(tmp_path):
    entries = {f"e_{view}": {"study": "e", "view": view, "ed": 0, "es": 2} for view in ("2CH", "4CH")}
    arguments = write_folders(tmp_path, {case: HEART[:, 0] for case in entries}, entries=entries)
    assert main(["report", *arguments, "--movies", str(tmp_path / "movies")]) == 0
    ((first, second),) = film_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert (first["name"], second["name"]) == ("e 2CH", "e 4CH")
    assert sorted(path.name for path in (tmp_path / "movies").iterdir()) == ["e 2CH.gif", "e 4CH.gif"]


def lose_movie(root):
    (root / "images" / "a.nii.gz").rename(root / "images" / "other.nii.gz")


def spoil_masks(root):
    (root / "masks" / "a.nii.gz").write_bytes(b"nothing")


def reshape_masks(root):
    write_masks(root / "masks", {"a": HEART[:, :, :-1]})


def add_label(root):
    write_masks(root / "masks", {"a": np.where(HEART == 1, 7, HEART)})


def lose_labels(root):
    (root / "dataset.json").unlink()


def lose_masks(root):
    shutil.rmtree(root / "masks")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lose_movie, "have no movie"),
        (spoil_masks, "a.nii.gz"),
        (reshape_masks, "found the shape"),
        (add_label, "found label values"),
        (lose_labels, "-djfile"),
        (lose_masks, "does not exist"),
    ],
)
def test_faults_are_named_and_an_existing_page_survives_them(tmp_path, capsys, harm, message):
    arguments = write_folders(tmp_path, {"a": HEART, "b": HEART})
    (tmp_path / "page.html").write_text("older")
    harm(tmp_path)
    assert main(["report", *arguments]) != 0
    assert message in capsys.readouterr().err
    assert (tmp_path / "page.html").read_text() == "older"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".partial")]


def test_a_manifest_of_other_sequences_is_refused(tmp_path, capsys):
    slices, entries = split("other")
    write_folders(tmp_path / "other", slices, None, entries)
    arguments = write_folders(tmp_path, {"a": HEART})
    assert main(["report", *arguments, "-manifest", str(tmp_path / "other" / "sequences.json")]) != 0
    assert "sequences.json does not know" in capsys.readouterr().err


def test_a_folder_is_no_page(tmp_path, capsys):
    arguments = write_folders(tmp_path, {"a": HEART})
    arguments[arguments.index("-o") + 1] = str(tmp_path)
    assert main(["report", *arguments]) != 0
    assert "found a folder" in capsys.readouterr().err


def test_a_page_may_lie_in_a_new_folder(tmp_path):
    arguments = write_folders(tmp_path, {"a": HEART})
    arguments[arguments.index("-o") + 1] = str(tmp_path / "new" / "deep" / "page.html")
    assert main(["report", *arguments]) == 0
    assert (tmp_path / "new" / "deep" / "page.html").stat().st_mode & 0o044 == 0o044


def test_a_page_that_cannot_be_finished_leaves_the_older_one_alone(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("the disk is full")

    arguments = write_folders(tmp_path, {"a": HEART})
    (tmp_path / "page.html").write_text("older")
    monkeypatch.setattr("nnunet_temporal.atomic.os.replace", fail)
    with contextlib.suppress(OSError):
        assert main(["report", *arguments]) != 0
    assert (tmp_path / "page.html").read_text() == "older"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".partial")]
