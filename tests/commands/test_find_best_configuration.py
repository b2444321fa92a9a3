"""What ``find_best_configuration`` gives to nnU-Net's search, and what it refuses; the road to a challenge runs it."""

import json

import pytest
from trained_models import DATASET, make_plans

from nnunet_temporal.cli import main
from nnunet_temporal.commands import find_best_configuration

STOCK, GDKVM = "nnUNetTrainer__plans__2d", "nnUNetTrainerGDKVM__plans__2dt"
FOLDS = {0: ("a_z00", "a_z01"), 1: ("b_z00",)}


def write_validated(results, name, folds=FOLDS):
    """Write a trained model whose folds were validated with probabilities."""
    for fold, cases in folds.items():
        validation = results / name / f"fold_{fold}" / "validation"
        validation.mkdir(parents=True)
        (validation.parent / "checkpoint_final.pth").touch()
        for case in cases:
            (validation / f"{case}.nii.gz").touch()
            (validation / f"{case}.npz").touch()
    (results / name / "plans.json").write_text(json.dumps(make_plans()))
    (results / name / "dataset.json").write_text(json.dumps(DATASET))
    return results / name


@pytest.fixture
def results(nnunet_folders):
    """Write two models of one dataset; return the folder they are in."""
    preprocessed = nnunet_folders.preprocessed / "Dataset777_Phantom"
    preprocessed.mkdir()
    (preprocessed / "plans.json").write_text("{}")
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": [], "val": []}] * 2))
    for name in (GDKVM, STOCK):
        write_validated(nnunet_folders.results / "Dataset777_Phantom", name)
    return nnunet_folders.results / "Dataset777_Phantom"


@pytest.fixture
def searched(results, monkeypatch):
    """Put a recorder in the place of nnU-Net's search; return what it was given."""
    given = {}

    def search(dataset, models, **options):
        given.update(dataset=dataset, models=["__".join(model.values()) for model in models], **options)
        file = results / "postprocessing.pkl"
        file.touch()
        names = ("trainer", "plans_identifier", "configuration")
        best = {
            "selected_model_or_models": [dict(zip(names, models[-1].values(), strict=True))],
            "result_on_crossval_pre_pp": 0.5, "result_on_crossval_post_pp": 0.6, "postprocessing_file": str(file),
        }  # fmt: skip
        return {"folds": options["folds"], "best_model_or_ensemble": best}

    monkeypatch.setattr(find_best_configuration, "find_best_configuration", search)
    return given


def test_all_models_and_folds_are_searched_without_naming_them(results, searched, capsys):
    assert main(["find_best_configuration", "-d", "777", "-np", "3"]) == 0
    assert searched == {
        "dataset": "Dataset777_Phantom", "models": [GDKVM, STOCK], "folds": [0, 1], "num_processes": 3,
        "allow_ensembling": True,
    }  # fmt: skip
    assert json.loads((results / "best" / "choice.json").read_text())["models"] == [STOCK]
    assert "nnunet_temporal predict_best -i SEQUENCES -o MASKS -d 777" in capsys.readouterr().out


def test_predict_best_is_not_promised_for_a_model_of_volumes(results, searched, capsys):
    plans = make_plans()
    plans["configurations"]["2d"]["spacing"] = [10.0, 1.25, 1.25]
    (results / STOCK / "plans.json").write_text(json.dumps(plans))
    assert main(["find_best_configuration", "-d", "777"]) == 0
    assert "predict_best -i" not in (printed := capsys.readouterr().out) and "nnU-Net's commands above" in printed


def test_damaged_folds_are_named(results, nnunet_folders, searched, capsys):
    file = nnunet_folders.preprocessed / "Dataset777_Phantom" / "splits_final.json"
    file.write_text("[{")
    assert main(["find_best_configuration", "-d", "777"]) == 2
    assert f"{file}: expected a list of folds" in capsys.readouterr().err and not searched


def test_models_and_folds_can_be_named(results, searched):
    assert main(["find_best_configuration", "-d", "777", "-m", STOCK, str(results / GDKVM), GDKVM, "-f", "1"]) == 0
    assert searched["models"] == [STOCK, GDKVM] and searched["folds"] == [1]


def test_a_model_without_all_folds_is_left_out_and_named(results, searched, capsys):
    (results / STOCK / "fold_1" / "checkpoint_final.pth").unlink()
    assert main(["find_best_configuration", "-d", "777"]) == 0
    assert searched["models"] == [GDKVM] and not searched["allow_ensembling"]
    assert f"not all of the folds 0 1 are trained: {STOCK}" in capsys.readouterr().out


def test_probabilities_are_asked_for_only_where_models_are_averaged(results, searched, capsys):
    (results / STOCK / "fold_1" / "validation" / "b_z00.npz").unlink()
    assert main(["find_best_configuration", "-d", "777"]) == 2
    error = capsys.readouterr().err
    assert "fold_1/validation: found no probabilities of b_z00" in error
    assert "'nnUNetv2_train Dataset777_Phantom 2d 1 -tr nnUNetTrainer -p plans --val --npz'" in error
    assert not searched
    assert main(["find_best_configuration", "-d", "777", "--disable_ensembling"]) == 0
    assert not searched["allow_ensembling"]


def test_models_that_validated_different_cases_are_not_compared(results, searched, capsys):
    write_validated(results, "nnUNetTrainerCSTM__plans__2dt", {0: ("a_z00",), 1: ("b_z00",)})
    assert main(["find_best_configuration", "-d", "777"]) == 2
    assert f"{'nnUNetTrainerCSTM__plans__2dt'} and {GDKVM}: cases that only one of them" in capsys.readouterr().err
    assert not searched


def remove_checkpoint(results):
    (results / STOCK / "fold_1" / "checkpoint_final.pth").unlink()
    return ("-m", STOCK), "fold 1 is not trained"


def remove_validation(results):
    for file in (results / STOCK / "fold_0" / "validation").iterdir():
        file.unlink()
    return (), "fold_0/validation: found no masks; write them by 'nnUNetv2_train"


def ask_for_a_fold_that_nobody_trained(results):
    return ("-f", "0", "4"), "no model has the folds 0 4; train them"


def name_no_model(results):
    return ("-m", "nnUNetTrainer"), "TRAINER__PLANS__CONFIGURATION"


@pytest.mark.parametrize(
    "spoil", [remove_checkpoint, remove_validation, ask_for_a_fold_that_nobody_trained, name_no_model]
)
def test_what_cannot_be_searched_is_refused_with_what_to_do(results, searched, capsys, spoil):
    words, message = spoil(results)
    assert main(["find_best_configuration", "-d", "777", *words]) == 2
    assert message in capsys.readouterr().err
    assert not searched and not (results / "best").exists()


@pytest.mark.parametrize(("name", "message"), [("plans.json", "nnU-Net looks there"), ("splits_final.json", "with -f")])
def test_missing_files_of_planning_are_named(results, nnunet_folders, searched, capsys, name, message):
    (nnunet_folders.preprocessed / "Dataset777_Phantom" / name).unlink()
    assert main(["find_best_configuration", "-d", "777"]) == 2
    error = capsys.readouterr().err
    assert name in error and message in error


def test_an_unknown_dataset_and_missing_folders_are_refused(results, capsys, monkeypatch):
    assert main(["find_best_configuration", "-d", "778"]) == 2
    assert "-d 778: Could not find a dataset" in capsys.readouterr().err
    monkeypatch.delenv("nnUNet_raw")
    assert main(["find_best_configuration", "-d", "777"]) == 2
    assert "nnUNet_raw and nnUNet_preprocessed must be set" in capsys.readouterr().err
