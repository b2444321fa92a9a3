"""Which studies a 2D model has seen, by its dataset's splits or by its validations, and what must not be."""

import json

import pytest

from nnunet_temporal.errors import InputError
from nnunet_temporal.sequences import Manifest, Sequence
from nnunet_temporal.training.seen_studies import SeenCases, check_study_fold, seen_cases
from nnunet_temporal.training.stock_model import CHECKPOINT, StockModel

FRAMES = [f"patient{patient}_frame{frame:02d}" for patient in (1, 2, 10) for frame in (1, 12)]
VALIDATED = ({"patient1_frame01", "patient1_frame12"}, {"patient2_frame01", "patient2_frame12"}, set(FRAMES[4:]))


def manifest_of(*studies):
    """Return a manifest of two slices per study."""
    cases = [(study, z) for study in studies for z in (0, 1)]
    return Manifest({f"{study}_z{z:02d}": Sequence(f"{study}_z{z:02d}", study, 8, (0,), slice=z) for study, z in cases})


MANIFEST = manifest_of("patient1", "patient2", "patient10")


def split_of(*validated):
    """Return a fold of MANIFEST."""
    val = [case for case, sequence in MANIFEST.items() if sequence.study in validated]
    return {"train": [case for case in MANIFEST if case not in val], "val": val}


def seen_of(trained=(), held_out=(), complete=True):
    return SeenCases(frozenset(trained), frozenset(held_out), complete)


@pytest.fixture
def model(tmp_path):
    """Write the validations of a 2D model of single frames."""
    for fold, cases in enumerate(VALIDATED):
        validation = tmp_path / "model" / f"fold_{fold}" / "validation"
        validation.mkdir(parents=True)
        (validation.parent / CHECKPOINT).touch()
        (validation / "summary.json").touch()
        for case in cases:
            (validation / f"{case}.nii.gz").touch()
    return StockModel(tmp_path / "model", {}, {"file_ending": ".nii.gz", "numTraining": 6}, {})


@pytest.fixture
def splits_file(tmp_path):
    """Write the splits the model was trained with; training lists also hold a case that no fold validates."""
    splits = [
        {"train": sorted({*FRAMES, "patient3_frame01"} - validated), "val": sorted(validated)}
        for validated in VALIDATED
    ]
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps(splits))
    return path


def check(seen, split=None, manifest=MANIFEST, assume_unseen=False):
    check_study_fold(seen, split or split_of("patient1"), manifest, assume_unseen=assume_unseen)


def test_the_splits_of_the_models_dataset_come_first(model, splits_file):
    seen = seen_cases(model, 1, splits_file)
    assert seen == seen_of({*FRAMES, "patient3_frame01"} - VALIDATED[1], VALIDATED[1])


def test_splits_that_the_models_validation_contradicts_are_not_believed(model, splits_file):
    splits_file.write_text(json.dumps(json.loads(splits_file.read_text())[::-1]))
    assert seen_cases(model, 0, splits_file) == seen_of(set(FRAMES) - VALIDATED[0], VALIDATED[0])


def test_without_splits_other_folds_validations_are_what_a_fold_was_trained_on(model, tmp_path):
    assert seen_cases(model, 2, tmp_path / "nowhere.json") == seen_of(set(FRAMES) - VALIDATED[2], VALIDATED[2])


def test_a_fold_that_the_splits_do_not_have_is_not_looked_up_there(model, splits_file):
    splits_file.write_text(json.dumps(json.loads(splits_file.read_text())[:2]))
    assert seen_cases(model, 2, splits_file).trained == frozenset(FRAMES) - VALIDATED[2]


def test_the_record_is_incomplete_when_cases_were_never_validated(model, tmp_path):
    model.dataset["numTraining"] = 7
    assert not seen_cases(model, 0, tmp_path / "nowhere.json").complete


def test_equal_folds_of_frames_and_of_sequences_agree(model, splits_file):
    for fold, study in enumerate(("patient1", "patient2", "patient10")):
        check(seen_cases(model, fold, splits_file), split_of(study))


def test_sequences_that_the_model_was_trained_on_under_the_same_names_agree():
    split = split_of("patient2")
    check(seen_of(split["train"], split["val"]), split)


@pytest.mark.parametrize("trained", ["patient1_frame12", "patient1_z01", "patient1", "patient1-ed"])
def test_one_case_of_a_validated_study_in_the_models_training_is_too_much(trained):
    with pytest.raises(InputError, match=r"trained on 1 of the studies that this fold validates on: patient1\."):
        check(seen_of([trained], ["patient1_frame01"]), assume_unseen=True)


def test_a_study_whose_name_only_starts_alike_is_another(model):
    check(seen_of(["patient10_frame01", "patient2_frame01"], ["patient1_frame01"]))


def test_of_several_names_the_longest_counts():
    manifest = manifest_of("heart", "heart_2")
    split = {"train": ["heart_2_z00"], "val": ["heart_z00"]}
    check(seen_of(["heart_2_frame01"], ["heart_frame01"]), split, manifest)


def test_a_study_that_the_model_holds_out_is_not_trained_on():
    with pytest.raises(InputError, match=r"holds out 1 of the studies that this fold trains on: patient2\."):
        check(seen_of(["patient10_frame01"], ["patient2_frame01"]), assume_unseen=True)


def test_an_incomplete_record_needs_the_users_word():
    seen = seen_of(["patient2_frame01"], ["patient1_frame01"], complete=False)
    with pytest.raises(InputError, match="nothing tells which cases"):
        check(seen)
    check(seen, assume_unseen=True)


def test_names_that_have_nothing_in_common_need_the_users_word():
    seen = seen_of(["ACDC_002"], ["ACDC_001"])
    with pytest.raises(InputError, match=r"no case of the 2D model \(such as ACDC_002\)"):
        check(seen)
    check(seen, assume_unseen=True)
