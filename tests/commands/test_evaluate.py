"""The verb ``evaluate`` on small folders."""

import csv
import json

import numpy as np
import pytest
from ellipsoid_views import Ellipsoid, draw_view
from mask_folders import IGNORE, square, write_dataset, write_masks

from nnunet_temporal.cli import main

# Three cyclic frames of two slices: large, small, middle.
SLICE = np.stack([square(2, 3, side) for side in (6, 3, 4)])
REFERENCE = {"a_z00": SLICE, "a_z01": SLICE, "b_z00": SLICE, "b_z01": SLICE}
ENTRIES = {
    f"{study}_z{z:02d}": {
        "study": study, "slice": z, "ed": 0, "es": 1, "cyclic": True, "slice_spacing_mm": 8.0, "frame_interval_s": 0.1
    }
    for study in "ab"
    for z in (0, 1)
}  # fmt: skip


@pytest.fixture
def evaluate(tmp_path):
    """Write a dataset and predictions, then run the verb; the folder it wrote to is tmp_path/pred."""

    def run(prediction, *arguments, reference=None, entries=ENTRIES):
        folder = write_dataset(tmp_path, REFERENCE if reference is None else reference, entries)
        write_masks(tmp_path / "pred", prediction)
        return main(["evaluate", "-ref", str(folder), "-pred", str(tmp_path / "pred"), "-np", "1", *arguments])

    return run


def read_table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def read_summary(tmp_path):
    return json.loads((tmp_path / "pred" / "summary.json").read_text())


def test_a_perfect_prediction_scores_perfectly_everywhere(evaluate, tmp_path, capsys):
    assert evaluate(REFERENCE) == 0
    frames = read_table(tmp_path / "pred" / "frames.csv")
    lv_frames = [row for row in frames if row["label"] == "LV"]
    assert len(lv_frames) == 4 * 3
    assert {row["dice"] for row in lv_frames} == {"1"}
    assert {row["hd_mm"] for row in lv_frames} == {"0"}
    summary = read_summary(tmp_path)
    assert (summary["cases"], summary["studies"]) == (4, 2)
    assert summary["pooled_dice"] == {"LV": 1.0, "MYO": None, "EPI": 1.0}
    assert summary["agreement"]["LV"]["ef_percent"]["bias"] == 0
    assert "LV         1.000" in capsys.readouterr().out


def test_figures_of_a_shifted_and_a_missing_mask_are_exact(evaluate, tmp_path):
    prediction = dict(REFERENCE)
    prediction["a_z00"] = np.stack([square(2, 4, 6), square(2, 3, 0), square(2, 3, 4)])
    assert evaluate(prediction) == 0
    rows = [row for row in read_table(tmp_path / "pred" / "frames.csv") if row["case"] == "a_z00"]
    shifted, missing, perfect = [row for row in rows if row["label"] == "LV"]
    # 6 x 6 pixels, 6 x 5 shared; columns are 1 mm apart.
    assert float(shifted["dice"]) == pytest.approx(60 / 72, abs=1e-5)
    assert (shifted["hd_mm"], shifted["phase"]) == ("1", "ED")
    assert (missing["dice"], missing["hd_mm"], missing["phase"]) == ("0", "inf", "ES")
    assert (perfect["dice"], perfect["phase"]) == ("1", "")
    figures = read_summary(tmp_path)["metrics"]["frames"]["LV"]
    assert figures["dice"]["mean"] == pytest.approx((60 / 72 + 0 + 10 * 1) / 12)
    assert (figures["hd_mm"]["missing"], figures["hd_mm"]["items"]) == (1, 11)
    assert figures["hd_mm"]["mean"] == pytest.approx(1 / 11)
    study = next(row for row in read_table(tmp_path / "pred" / "studies.csv") if row["study"] == "a")
    # Voxels of 2 x 1 x 8 mm: 72 at ED; at ES 18 in the reference and 9 in the prediction.
    assert float(study["edv_predicted_ml"]) == pytest.approx(72 * 0.016)
    assert float(study["esv_difference_ml"]) == pytest.approx(-9 * 0.016)
    assert float(study["ef_difference_percent"]) == pytest.approx(100 * (63 - 54) / 72)


def test_frozen_masks_do_not_flicker_but_change_nothing(evaluate, tmp_path):
    assert evaluate({case: np.stack([movie[0]] * 3) for case, movie in REFERENCE.items()}) == 0
    row = next(row for row in read_table(tmp_path / "pred" / "sequences.csv") if row["label"] == "LV")
    assert row["pixel_flicker_predicted_percent"] == "0"
    assert row["area_change_against_truth"] == "0"


def test_sparse_labels_are_scored_where_they_are(evaluate, tmp_path):
    reference = {case: movie.copy() for case, movie in REFERENCE.items()}
    for movie in reference.values():
        movie[2] = IGNORE
    assert evaluate(REFERENCE, reference=reference) == 0
    rows = [row for row in read_table(tmp_path / "pred" / "frames.csv") if row["label"] == "LV"]
    assert [row["dice"] for row in rows[:3]] == ["1", "1", ""]


def test_merged_files_give_the_same_tables(evaluate, tmp_path):
    assert evaluate(REFERENCE, "-o", str(tmp_path / "split")) == 0
    merged = {study: np.stack([REFERENCE[f"{study}_z00"], REFERENCE[f"{study}_z01"]], axis=1) for study in "ab"}
    write_masks(tmp_path / "merged", merged)
    arguments = ["-ref", str(tmp_path / "labelsTs"), "-pred", str(tmp_path / "merged"), "-np", "1"]
    assert main(["evaluate", *arguments]) == 0
    for table in ("frames.csv", "sequences.csv", "studies.csv"):
        assert (tmp_path / "merged" / table).read_text() == (tmp_path / "split" / table).read_text()


def test_unknown_spacing_gives_pixels_and_no_volumes(evaluate, tmp_path):
    entries = {case: fields | {"pixel_spacing_known": False} for case, fields in ENTRIES.items()}
    assert evaluate(REFERENCE, entries=entries) == 0
    assert "hd_px" in read_table(tmp_path / "pred" / "frames.csv")[0]
    columns = read_table(tmp_path / "pred" / "studies.csv")[0]
    assert not [name for name in columns if name.endswith(("_ml", "_mm"))]
    assert read_summary(tmp_path)["volume_methods"] == {"none": 2}


HEARTS = (Ellipsoid(57.0, 24.0), Ellipsoid(46.0, 18.0, cut=0.45), Ellipsoid(50.0, 20.0))
"""A ventricle at ED, ES and in between."""


@pytest.mark.parametrize("view", ["A4CH", "SAX", ""])
def test_a_view_without_an_ejection_fraction_is_refused_by_name(evaluate, capsys, view):
    with pytest.raises(SystemExit, match="2"):
        evaluate(REFERENCE, "--view", view)
    assert f"--view: found {view!r}, expected one of 2CH, A2C, AP2, 4CH, A4C, AP4" in capsys.readouterr().err


def test_a_named_view_gives_the_ejection_fraction_with_or_without_a_scale(evaluate, tmp_path):
    movie = {"a": np.stack([draw_view(heart, 1.0).ventricle for heart in HEARTS]).astype(np.uint8)}
    table, summary = tmp_path / "pred" / "studies.csv", {}
    for known in (False, True):
        entries = {"a": {"study": "a", "ed": 0, "es": 1, "pixel_spacing_known": known}}
        assert evaluate(movie, "--view", "4CH", reference=movie, entries=entries) == 0
        (row,) = (row for row in read_table(table) if row["label"] == "LV")
        assert row["volume_method"] == "simpson_monoplane_4CH"
        assert ("edv_predicted_ml" in row) is known
        summary[known] = float(row["ef_predicted_percent"])
    expected = 100 * (1 - HEARTS[1].volume_ml / HEARTS[0].volume_ml)
    # Rows lie 2 mm apart where the scale is known and count as 1 where not: the same but for the discs.
    assert (summary[False], summary[True]) == pytest.approx((expected, expected), abs=2)
    assert read_summary(tmp_path)["volume_methods"] == {"simpson_monoplane_4CH": 1}


def test_without_a_manifest_the_files_tell_studies_and_phases(evaluate, tmp_path):
    assert evaluate(REFERENCE, entries=None) == 0
    summary = read_summary(tmp_path)
    assert summary["manifest_derived_from_files"] is True
    assert summary["studies"] == 2
    row = read_table(tmp_path / "pred" / "studies.csv")[0]
    assert row["phase_source"] == "reference_curve"


def test_all_problems_are_listed_before_anything_is_computed(evaluate, tmp_path, capsys):
    prediction = {"a_z00": SLICE * 7, "a_z01": SLICE, "b_z00": SLICE[:2]}
    assert evaluate(prediction) == 2
    error = capsys.readouterr().err
    assert "2 inputs cannot be used" in error
    assert "found no prediction b_z01.nii.gz; predict what is missing" in error
    assert "a_z00.nii.gz: found label values [7]" in error
    assert not list((tmp_path / "pred").glob("*.csv"))


def test_masks_under_other_names_are_named_when_predictions_are_missing(evaluate, capsys):
    assert evaluate({f"{case.replace('_z', '_cine_z')}": movie for case, movie in REFERENCE.items()}) == 2
    error = capsys.readouterr().err
    assert "found no prediction a_z00.nii.gz, a_z01.nii.gz, b_z00.nii.gz, b_z01.nii.gz; predict" in error
    assert "Found masks of other names: a_cine_z00, a_cine_z01, b_cine_z00, b_cine_z01 (see split" in error


def test_studies_with_missing_predictions_are_left_out_and_named_on_request(evaluate, tmp_path, capsys):
    prediction = {case: movie for case, movie in REFERENCE.items() if case != "b_z01"}
    assert evaluate(prediction, "--allow-missing") == 0
    summary = read_summary(tmp_path)
    assert (summary["cases"], summary["left_out_studies"]) == (2, ["b"])
    assert summary["missing_predictions"] == ["b_z01.nii.gz"]
    assert "Left out, predictions missing: b" in capsys.readouterr().out


def test_no_complete_study_is_an_error(evaluate, capsys):
    assert evaluate({"a_z00": SLICE}, "--allow-missing") == 2
    assert "found no study whose predictions are complete" in capsys.readouterr().err


def test_two_predictions_are_compared(evaluate, tmp_path, capsys):
    shifted = {case: np.roll(movie, 1, axis=2) for case, movie in REFERENCE.items()}
    write_masks(tmp_path / "other", shifted)
    assert evaluate(REFERENCE, "--compare", str(tmp_path / "other")) == 0
    rows = {
        (row["table"], row["label"], row["metric"]): row for row in read_table(tmp_path / "pred" / "comparison.csv")
    }
    # A square of side s that moves by one column keeps 1 - 1/s of itself: sides 6, 3, 4.
    assert float(rows["frames", "LV", "dice"]["difference"]) == pytest.approx((1 / 6 + 1 / 3 + 1 / 4) / 3, abs=1e-5)
    assert rows["frames", "LV", "hd_mm"]["second"] == "1"
    assert "first minus second" in capsys.readouterr().out
    assert len(read_summary(tmp_path)["comparison"]) == len(rows)


def test_compatibility_modes_add_their_columns(evaluate, tmp_path):
    assert evaluate(REFERENCE, "--compat", "pooled_dice", "medpy_pooled", "rowwise_dice") == 0
    frame = read_table(tmp_path / "pred" / "frames.csv")[0]
    assert {"hd95_medpy_pooled_mm", "dice_rowwise", "iou_rowwise"} <= set(frame)
    assert read_table(tmp_path / "pred" / "sequences.csv")[0]["dice_pooled"] == "1"


def test_roles_may_be_given(evaluate, tmp_path):
    assert evaluate(REFERENCE, "--roles", "LV=2", "MYO=1") == 0
    assert read_summary(tmp_path)["roles"] == {"LV": "MYO", "MYO": "LV"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--nsd-tolerance", "-1"], "--nsd-tolerance"),
        (["--seed", "-1"], "--seed -1"),
        (["--compare", "nowhere"], "--compare nowhere: the folder does not exist"),
        (["-manifest", "nowhere.json"], "nowhere.json"),
    ],
)
def test_wrong_arguments_are_refused(evaluate, capsys, arguments, complaint):
    assert evaluate(REFERENCE, *arguments) == 2
    assert complaint in capsys.readouterr().err


def test_a_missing_dataset_json_is_asked_for(evaluate, tmp_path, capsys):
    evaluate(REFERENCE)
    (tmp_path / "dataset.json").unlink()
    arguments = ["-ref", str(tmp_path / "labelsTs"), "-pred", str(tmp_path / "pred")]
    assert main(["evaluate", *arguments]) == 2
    assert "name it with -djfile" in capsys.readouterr().err


def test_the_summary_of_nnunet_is_not_replaced(evaluate, tmp_path, capsys):
    (tmp_path / "pred").mkdir()
    (tmp_path / "pred" / "summary.json").write_text('{"foreground_mean": {}}')
    assert evaluate(REFERENCE) == 2
    assert "choose a folder with -o" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_write_the_same_as_one(evaluate, tmp_path):
    assert evaluate(REFERENCE, "-o", str(tmp_path / "one")) == 0
    assert evaluate(REFERENCE, "-o", str(tmp_path / "two"), "-np", "2") == 0
    for name in ("frames.csv", "sequences.csv", "studies.csv", "summary.json"):
        assert (tmp_path / "one" / name).read_text() == (tmp_path / "two" / name).read_text()
