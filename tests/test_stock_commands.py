"""nnU-Net's commands on sequences that the road to a challenge does not take: its models go through them here."""

import json
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from challenge_road import (
    DATASET,
    FOLDS,
    FRAMEWISE,
    HELD_OUT,
    PLANS,
    TEMPORAL,
    TO_BE_KILLED,
    UNLABELLED,
    check_grids,
    mask_paths,
    pixels,
)
from command_workspace import ON_CPU
from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing_to_folder

from nnunet_temporal.cli import main
from nnunet_temporal.commands.steps import find_program
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.study import merge_studies

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folders(road, tmp_path_factory) -> dict[str, Path]:
    """Predict the test patient by both stock models, and average both by nnU-Net's command and by ours."""
    root = tmp_path_factory.mktemp("stock")
    found = {name: root / name for name in ("2dt", "2d", "stock ensemble", "our ensemble")}
    for configuration, trainer in (("2dt", TEMPORAL), ("2d", FRAMEWISE)):
        model = ("-d", DATASET, "-c", configuration, "-tr", trainer, "-p", PLANS, "-f", *FOLDS)
        options = ("--disable_tta", "--save_probabilities", "-npp", 0, "-nps", 0, *ON_CPU)
        road.stock("nnUNetv2_predict", "-i", road.new, "-o", found[configuration], *model, *options)
    members = ("-i", found["2dt"], found["2d"], "-o")
    road.stock("nnUNetv2_ensemble", *members, found["stock ensemble"], "-np", 1, "--save_npz")
    assert main(["ensemble", *map(str, members), str(found["our ensemble"]), "--save_npz"]) == 0
    return found


@pytest.fixture(scope="module")
def best(road) -> str:
    """Search for the best configuration of one trainer; return what was printed."""
    arguments = ("-c", "2dt", "-tr", TEMPORAL, "-p", PLANS, "-f", *FOLDS, "-np", 1)
    return road.stock("nnUNetv2_find_best_configuration", DATASET, *arguments)


def started_epochs(printed: str) -> list[int]:
    return [int(number) for number in re.findall(r": Epoch (\d+)\n", printed)]


def test_a_fold_can_be_validated_again_for_its_probabilities_without_training(road):
    fold = road.temporal / "fold_1"
    checkpoints = {path: path.stat().st_mtime_ns for path in fold.glob("*.pth")}
    assert {path.name for path in checkpoints} == {"checkpoint_best.pth", "checkpoint_final.pth"}
    probabilities = {path: np.load(path)["probabilities"] for path in fold.glob("validation/*.npz")}
    for path in probabilities:
        path.unlink()
    road.train("2dt", TEMPORAL, 1, "--val", "--npz")
    assert len(probabilities) == 2
    for path, before in probabilities.items():
        # Not bit by bit: the first time the network ran with more threads.
        np.testing.assert_allclose(np.load(path)["probabilities"], before, atol=0.01)
    assert {path: path.stat().st_mtime_ns for path in fold.glob("*.pth")} == checkpoints


def test_a_fold_beyond_the_splits_ends_the_stock_command_with_our_message(road):
    with pytest.raises(InputError, match=r"Fold 2 does not exist.*defines 2 folds"):
        road.train("2dt", TEMPORAL, 2)
    shutil.rmtree(road.temporal / "fold_2")


def test_a_killed_training_resumes_without_losing_a_tenth_of_its_epochs(road, tmp_path):
    log = tmp_path / "killed.txt"
    command = (find_program("nnUNetv2_train"), DATASET, "2dt", "0", "-tr", TO_BE_KILLED, "-p", PLANS, *ON_CPU)
    environment = {**road.environment, "PYTHONUNBUFFERED": "1"}
    with (
        log.open("w") as output,
        subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT) as training,
    ):
        try:
            # Every second of the 20 epochs is saved; epoch 7 begins when epoch 6 is over and not saved yet.
            while training.poll() is None and 7 not in started_epochs(log.read_text()):
                time.sleep(0.05)
        finally:
            training.kill()
    assert training.returncode == -signal.SIGKILL, log.read_text()[-3000:]
    killed_in = started_epochs(log.read_text())[-1]
    assert 7 <= killed_in < 19
    resumed = started_epochs(road.train("2dt", TO_BE_KILLED, 0, "--c"))
    assert resumed == list(range(resumed[0], 20))
    assert killed_in - resumed[0] < 20 // 10
    checkpoint = road.results / f"{TO_BE_KILLED}__{PLANS}__2dt" / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    assert content["current_epoch"] == len(content["logging"]["train_losses"]) == 20


def test_every_frame_of_a_new_sequence_gets_a_mask_on_its_grid(road, folders):
    for folder in folders.values():
        check_grids(road.new, folder)


def test_the_search_tells_the_plans_that_postprocessing_needs(road, best):
    result = json.loads((road.results / "inference_information.json").read_text())["best_model_or_ensemble"]
    chosen = {"configuration": "2dt", "trainer": TEMPORAL, "plans_identifier": PLANS}
    assert result["selected_model_or_models"] == [chosen]
    assert 0 < result["result_on_crossval_pre_pp"] <= 1
    (command,) = [line for line in best.splitlines() if line.startswith("nnUNetv2_apply_postprocessing")]
    for flag, file in (("-plans_json", result["some_plans_file"]), ("-pp_pkl_file", result["postprocessing_file"])):
        assert f"{flag} {file}" in command
        assert Path(file).is_file()


def test_postprocessing_and_evaluation_follow_the_search(road, best, folders, tmp_path):
    known = road.temporal / "crossval_results_folds_0_1"
    plans, dataset = known / "plans.json", known / "dataset.json"
    learnt = ("-pp_pkl_file", known / "postprocessing.pkl", "-plans_json", plans)
    road.stock("nnUNetv2_apply_postprocessing", "-i", folders["2dt"], "-o", tmp_path, "-np", 1, *learnt)
    check_grids(road.new, tmp_path)
    labels = road.raw / "labelsTs"
    road.stock("nnUNetv2_evaluate_folder", labels, tmp_path, "-djfile", dataset, "-pfile", plans, "-np", 1)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [Path(case["prediction_file"]).name for case in summary["metric_per_case"]] == [
        path.name for path in mask_paths(labels)
    ]
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1


def test_the_stock_ensemble_averages_both_methods(folders):
    files = sorted(folders["stock ensemble"].glob("*.npz"))
    assert [file.name for file in files] == [f"{HELD_OUT}_z00.npz", f"{HELD_OUT}_z01.npz"]
    for path in files:
        parts = [np.load(folders[name] / path.name)["probabilities"] for name in ("2dt", "2d")]
        mean, mask = np.load(path)["probabilities"], pixels(path.with_suffix(".nii.gz"))
        assert mean.shape == (4, *mask.shape)
        assert np.abs(parts[0] - parts[1]).max() > 0.1
        np.testing.assert_allclose(mean, (parts[0] + parts[1]) / 2, atol=1e-6)
        np.testing.assert_array_equal(mask, mean.argmax(0))


def test_our_ensemble_of_predictions_is_the_stock_one(folders):
    for stock in mask_paths(folders["stock ensemble"]):
        np.testing.assert_array_equal(pixels(folders["our ensemble"] / stock.name), pixels(stock))
    for stock in folders["stock ensemble"].glob("*.npz"):
        ours = np.load(folders["our ensemble"] / stock.name)["probabilities"]
        np.testing.assert_allclose(ours, np.load(stock)["probabilities"], atol=1e-6)


def test_only_our_ensemble_is_postprocessed_without_naming_plans(road, folders, tmp_path):
    with pytest.raises(RuntimeError, match="Expected plans file missing"):
        apply_postprocessing_to_folder(str(folders["stock ensemble"]), str(tmp_path), [], [], num_processes=1)
    road.stock("nnUNetv2_apply_postprocessing", "-i", folders["our ensemble"], "-o", tmp_path, "-np", 1,
               "-pp_pkl_file", road.root / "best" / "postprocessing.pkl")  # fmt: skip
    check_grids(road.new, tmp_path)


def test_our_ensemble_is_merged_without_naming_sequences(folders, tmp_path):
    (merged,) = merge_studies(folders["our ensemble"], tmp_path)
    masks = [pixels(path) for path in mask_paths(folders["our ensemble"])]
    np.testing.assert_array_equal(pixels(merged), np.stack(masks, axis=1))  # (T, Z, Y, X)


def test_an_ensemble_across_methods_is_scored_by_cross_validation(road, tmp_path):
    labels, models = road.raw / "labelsTr", (str(road.temporal), str(road.framewise))
    assert main(["ensemble", "-i", *models, "-f", *map(str, FOLDS), "-o", str(tmp_path)]) == 0
    described = ("-djfile", tmp_path / "dataset.json", "-pfile", tmp_path / "plans.json")
    road.stock("nnUNetv2_evaluate_folder", labels, tmp_path, *described, "-np", 1, "--chill")
    summary = json.loads((tmp_path / "summary.json").read_text())
    scored = {Path(case["prediction_file"]).name for case in summary["metric_per_case"]}
    assert scored == {path.name for path in mask_paths(labels) if not path.name.startswith(UNLABELLED)}
    assert 0 < summary["foreground_mean"]["Dice"] <= 1


def test_pictures_of_all_training_sequences_are_drawn(road, tmp_path):
    road.stock("nnUNetv2_plot_overlay_pngs", "-d", DATASET, "-o", tmp_path, "-p", PLANS, "-c", "2dt", "-np", 1)
    drawn = {f"{path.stem}.nii.gz" for path in tmp_path.glob("*.png")}
    assert drawn == {path.name for path in mask_paths(road.raw / "labelsTr")}
