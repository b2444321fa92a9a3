"""Where a report comes from: hashes, and what prediction recorded."""

import hashlib
import json

import pytest
from mask_folders import write_masks
from segmented_hearts import beating, write_folders

from nnunet_temporal.errors import InputError
from nnunet_temporal.hashing import hash_files
from nnunet_temporal.inference.prediction_record import RECORD_NAME, write_record
from nnunet_temporal.report.cohort import find_cohort
from nnunet_temporal.report.provenance import find_provenance

HEART = beating()


@pytest.fixture
def facts(tmp_path):
    """Write two movies, masks of one of them, and return what finds the facts of them."""
    write_folders(tmp_path, {"p": HEART, "q": HEART})
    (tmp_path / "masks" / "q.nii.gz").unlink()

    def find(truth=None):
        cohort = find_cohort(tmp_path / "images", tmp_path / "masks", truth, None)
        return dict(find_provenance(cohort, tmp_path / "masks"))

    return find


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_the_hash_of_files_depends_on_names_and_content_and_not_on_places(tmp_path):
    first, second = (tmp_path / folder for folder in "ab")
    for folder in (first, second):
        folder.mkdir()
        (folder / "x").write_bytes(b"1")
        (folder / "y").write_bytes(b"2")
    expected = sha256(f"x {sha256(b'1')}\ny {sha256(b'2')}".encode())
    assert hash_files([second / "y", second / "x"]) == hash_files([first / "x", first / "y"]) == expected
    (second / "y").write_bytes(b"3")
    assert hash_files([second / "x", second / "y"]) != expected


def test_files_are_counted_and_hashed_and_what_was_left_out_is_named(facts, tmp_path):
    found = facts(write_masks(tmp_path / "drawn", {"p": HEART}))
    assert found["Movies"] == f"1 files, SHA-256 {hash_files([tmp_path / 'images' / 'p.nii.gz'])}"
    assert found["Masks"] == f"1 files, SHA-256 {hash_files([tmp_path / 'masks' / 'p.nii.gz'])}"
    assert found["Expert's masks"].startswith("1 files")
    assert found["Movies without masks, not in this report"] == "q"
    assert "nnunetv2 2." in found["Programs"] and "nnunet_temporal " in found["Programs"]


def test_masks_without_a_record_say_so(facts):
    found = facts()
    assert "not recorded" in found["Trained on"] and "not recorded" in found["Model"]
    assert "Expert's masks" not in found


def test_plans_beside_the_masks_tell_what_they_know(facts, tmp_path):
    plans = {"dataset_name": "Dataset042_Hearts", "plans_name": "ourPlans"}
    (tmp_path / "masks" / "plans.json").write_text(json.dumps(plans))
    found = facts()
    assert found["Trained on"] == "Dataset042_Hearts"
    assert found["Model"].startswith("plans ourPlans; the rest is not recorded")


def test_the_record_of_a_prediction_is_shown(facts, tmp_path):
    write_record(
        tmp_path / "masks",
        dataset="Dataset042_Hearts",
        trainer="nnUNetTrainerGDKVM",
        plans="ourPlans",
        configuration="2dt",
        folds=[0, 1],
        checkpoint="checkpoint_final.pth",
        options={"disable_tta": True, "seed": None, "both_ways": False},
    )
    found = facts()
    assert found["Model"] == "nnUNetTrainerGDKVM / ourPlans / 2dt, folds 0, 1, checkpoint_final.pth"
    assert found["Predicted with"] == "disable_tta True"


def test_chosen_models_are_shown_by_their_names_alone(facts, tmp_path):
    write_record(tmp_path / "masks", dataset="D", trainer="A__p__2d and B__p__2dt", folds=[0, 1], options={})
    assert facts()["Model"] == "A__p__2d and B__p__2dt, folds 0, 1"


@pytest.mark.parametrize("name", [RECORD_NAME, "plans.json"])
def test_a_damaged_record_is_refused(facts, tmp_path, name):
    (tmp_path / "masks" / name).write_text("{")
    with pytest.raises(InputError, match=name):
        facts()


def test_names_of_many_movies_without_masks_are_cut_short(tmp_path):
    frame = HEART[:1, 0, :4, :4]
    write_folders(tmp_path, {f"n{number:02d}": frame for number in range(25)})
    for number in range(1, 25):
        (tmp_path / "masks" / f"n{number:02d}.nii.gz").unlink()
    cohort = find_cohort(tmp_path / "images", tmp_path / "masks", None, None)
    left_out = dict(find_provenance(cohort, tmp_path / "masks"))["Movies without masks, not in this report"]
    assert left_out.startswith("n01, n02") and left_out.endswith("n20 and 4 more")
