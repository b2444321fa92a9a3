"""The command: errors before any work, what is preprocessed, splits, and the next steps it prints."""

import json
import multiprocessing
import multiprocessing.dummy
import os
import re
import shutil

import pytest
from batchgenerators.utilities.file_and_folder_operations import join, load_json
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.paths import nnUNet_preprocessed
from phantom_dataset import PLANS, plan_phantom

from nnunet_temporal.cli import main
from nnunet_temporal.commands import plan_and_preprocess
from nnunet_temporal.sequences import MANIFEST_NAME, Manifest, Sequence, study_splits

LIGHT = ("-pl", "LightTemporalPlanner")


@pytest.fixture(autouse=True)
def one_planning_thread(monkeypatch):
    """nnU-Net's planning takes this for a number of threads, which must not be 0."""
    monkeypatch.setenv("nnUNet_n_proc_DA", "1")


@pytest.fixture(autouse=True)
def planning_without_networks(monkeypatch):
    """Let nnU-Net's part of planning, which builds network after network, return what it found for the phantom."""

    def plan_experiment(planner):
        planner.save_plans(load_json(join(nnUNet_preprocessed, planner.dataset_name, f"{PLANS}.json")))

    monkeypatch.setattr(ExperimentPlanner, "plan_experiment", plan_experiment)


@pytest.fixture
def preprocessed_configurations(monkeypatch):
    """Keep nnU-Net from preprocessing; return what it is asked to preprocess, and with how many processes."""
    asked = []
    monkeypatch.setattr(
        plan_and_preprocess,
        "preprocess_dataset",
        lambda dataset, plans, configurations, processes, *others, **options: asked.append((configurations, processes)),
    )
    return asked


@pytest.mark.parametrize("missing", ["nnUNet_raw", "nnUNet_preprocessed"])
def test_missing_nnunet_folders_are_named_with_the_line_that_sets_them(nnunet_folders, monkeypatch, capsys, missing):
    monkeypatch.delenv(missing)
    assert main(["plan_and_preprocess", "-d", "777"]) == 2
    assert "export nnUNet_raw=/data/nnUNet_raw nnUNet_preprocessed=" in capsys.readouterr().err


def test_an_unknown_dataset_id_is_named(nnunet_folders, capsys):
    assert main(["plan_and_preprocess", "-d", "778"]) == 2
    assert "-d 778" in capsys.readouterr().err


def test_an_unknown_planner_is_refused_with_the_known_ones(nnunet_folders, capsys):
    with pytest.raises(SystemExit):
        main(["plan_and_preprocess", "-d", "777", "-pl", "ExperimentPlanner"])
    assert "TemporalPlanner" in capsys.readouterr().err


def test_an_unknown_configuration_is_refused_with_the_known_ones(phantom, capsys):
    code, _ = plan_phantom(*LIGHT, "-c", "2dt", "4d_fullres")
    assert code == 2
    message = capsys.readouterr().err
    assert "-c 4d_fullres" in message
    assert "2dt" in message


def test_a_broken_dataset_is_refused_before_the_fingerprint(phantom, capsys):
    os.remove(phantom.preprocessed / "dataset_fingerprint.json")
    os.remove(phantom.raw / "labelsTr" / "study_a_z00.nii.gz")
    code, _ = plan_phantom(*LIGHT)
    assert code == 2
    assert "study_a_z00.nii.gz is missing" in capsys.readouterr().err
    assert not (phantom.preprocessed / "dataset_fingerprint.json").exists()


def test_2d_and_2dt_are_preprocessed_once(planned_phantom):
    folders = [path.name for path in planned_phantom.preprocessed.iterdir() if path.is_dir()]
    assert sorted(folders) == ["gt_segmentations", f"{PLANS}_2d"]
    assert len(list((planned_phantom.preprocessed / f"{PLANS}_2d").glob("*.pkl"))) == 8


@pytest.mark.parametrize("order", [("2d", "2dt", "3d_fullres"), ("3d_fullres", "2dt", "2d")])
def test_3d_has_data_of_its_own(phantom, preprocessed_configurations, order):
    assert plan_phantom(*LIGHT, "-c", *order)[0] == 0
    ((configurations, _),) = preprocessed_configurations
    assert len(configurations) == 2
    assert "3d_fullres" in configurations


def test_processes_belong_to_the_configuration_they_were_given_for(phantom, preprocessed_configurations):
    assert plan_phantom(*LIGHT, "-c", "2dt", "2d", "3d_fullres", "-np", "2", "2", "1")[0] == 0
    ((configurations, processes),) = preprocessed_configurations
    assert dict(zip(configurations, processes, strict=True))["3d_fullres"] == 1


@pytest.mark.parametrize("processes", [("1", "2"), ("1", "2", "3", "4")])
def test_a_list_of_processes_of_the_wrong_length_is_refused(phantom, preprocessed_configurations, capsys, processes):
    assert plan_phantom(*LIGHT, "-c", "2dt", "2d", "3d_fullres", "-np", *processes)[0] == 2
    assert "-np" in capsys.readouterr().err


def test_planning_alone_preprocesses_nothing(phantom, preprocessed_configurations):
    assert plan_phantom(*LIGHT, "--no_pp")[0] == 0
    assert not preprocessed_configurations


def test_the_default_configuration_is_2dt(phantom, preprocessed_configurations):
    assert plan_phantom()[0] == 0
    assert preprocessed_configurations[0][0] == ["2dt"]


def test_the_next_steps_name_every_fold_and_the_plans(planned_phantom):
    assert f"nnUNetv2_train 777 2dt FOLD -tr nnUNetTrainerGDKVM -p {PLANS}" in planned_phantom.printed
    assert "for each of the 4 folds (0 1 2 3; split by study)" in planned_phantom.printed
    assert re.search(rf"nnUNetv2_predict -d 777 -c 2dt .*-p {PLANS} -f 0 1 2 3 -i", planned_phantom.printed)


def test_the_reasons_of_the_planner_are_printed(planned_phantom):
    assert "Choices about time:\n  Clips span a heart beat of " in planned_phantom.printed


def test_the_next_steps_name_the_users_plans(phantom):
    _, printed = plan_phantom(*LIGHT, "--no_pp", "-overwrite_plans_name", "MyPlans")
    assert "-p MyPlans -f 0 1 2 3" in printed
    assert (phantom.preprocessed / "MyPlans.json").is_file()


def test_the_raw_datasets_own_splits_are_used(phantom):
    for folder in (phantom.raw, phantom.preprocessed):
        (folder / "splits_final.json").write_text(json.dumps(phantom.splits()[:2]))
    assert "-f 0 1 -i" in plan_phantom(*LIGHT, "--no_pp")[1]


def test_a_dataset_without_splits_is_split_by_study(phantom):
    for folder in (phantom.raw, phantom.preprocessed):
        os.remove(folder / "splits_final.json")
    assert plan_phantom(*LIGHT, "--no_pp")[0] == 0
    assert phantom.splits() == study_splits(Manifest.load(phantom.preprocessed))


def test_a_dataset_with_neither_splits_nor_manifest_is_split_by_study(phantom):
    for name in ("splits_final.json", MANIFEST_NAME):
        os.remove(phantom.raw / name)
        os.remove(phantom.preprocessed / name)
    assert plan_phantom(*LIGHT, "--no_pp")[0] == 0
    for split in phantom.splits():
        train, val = ({case.rpartition("_z")[0] for case in split[side]} for side in ("train", "val"))
        assert not train & val


def test_splits_with_a_study_on_both_sides_are_refused(phantom, capsys):
    splits = phantom.splits()
    splits[0]["train"].append(splits[0]["val"][0])
    for folder in (phantom.raw, phantom.preprocessed):
        (folder / "splits_final.json").write_text(json.dumps(splits))
    assert plan_phantom(*LIGHT, "--no_pp")[0] == 2
    assert "both train and val" in capsys.readouterr().err


def test_splits_that_differ_from_the_raw_datasets_are_refused_in_words(phantom, capsys):
    (phantom.preprocessed / "splits_final.json").write_text(json.dumps(phantom.splits()[::-1]))
    assert plan_phantom(*LIGHT, "--no_pp")[0] == 2
    assert "splits_final.json" in capsys.readouterr().err


@pytest.fixture
def unlabelled(phantom, monkeypatch):
    """Add two sequences without label files to the planned phantom: of a new study, and a third slice of study_a."""
    # Threads for nnU-Net's pools: spawned processes would import torch for seconds each.
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: multiprocessing.dummy)
    added = [Sequence("study_e_z00", "study_e", 8, (), slice=0), Sequence("study_a_z02", "study_a", 8, (), slice=2)]
    for sequence in added:
        images = phantom.raw / "imagesTr"
        shutil.copy(images / "study_a_z00_0000.nii.gz", images / f"{sequence.case}_0000.nii.gz")
    Manifest({**Manifest.load(phantom.raw), **{s.case: s for s in added}}).write(phantom.raw / MANIFEST_NAME)
    return phantom


def test_images_without_labels_get_all_ignore_ones_and_are_trained_on(unlabelled):
    before = unlabelled.splits()
    code, printed = plan_phantom(*LIGHT, "--no_pp")
    assert code == 0, printed
    assert "2 all-ignore labels for images without: study_a_z02, study_e_z00" in printed
    assert printed.count("added 2 unlabelled sequences to training: study_a_z02, study_e_z00") == 2
    manifest = Manifest.load(unlabelled.preprocessed)
    assert manifest["study_e_z00"].labelled_frames == manifest["study_a_z02"].labelled_frames == ()
    assert json.loads((unlabelled.raw / "splits_final.json").read_text()) == unlabelled.splits()
    for fold, old in zip(unlabelled.splits(), before, strict=True):
        assert fold["val"] == old["val"]
        assert set(fold["train"]) - set(old["train"]) == (
            {"study_e_z00"} if "study_a_z00" in old["val"] else {"study_e_z00", "study_a_z02"}
        )
    assert json.loads((unlabelled.raw / "dataset.json").read_text())["numTraining"] == 10
    again = plan_phantom(*LIGHT, "--no_pp")
    assert again[0] == 0 and "unlabelled sequences" not in again[1] and "all-ignore" not in again[1]


def test_splits_that_cannot_be_written_are_named(unlabelled, monkeypatch, capsys):
    def refuse(*arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(plan_and_preprocess, "write_json", refuse)
    assert plan_phantom(*LIGHT, "--no_pp")[0] == 2
    assert "splits_final.json: unlabelled sequences cannot be added" in capsys.readouterr().err
