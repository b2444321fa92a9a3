"""Every command of an unmodified nnU-Net on sequences, run as processes, and an ensemble across methods by ours."""

import json
import re
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_workspace import ON_CPU, Workspace
from nnunetv2.evaluation.find_best_configuration import (
    dumb_trainer_config_plans_to_trained_models_dict,
    filter_available_models,
)
from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing_to_folder
from phantom_dataset import HEIGHT, PLANS, WIDTH
from stock_matrix import (
    DATASET,
    FOLDS,
    FRAMES,
    FRAMEWISE,
    TEMPORAL,
    TO_BE_KILLED,
    UNLABELLED,
    VALIDATED,
    Matrix,
    grid,
    mask_paths,
    pixels,
    predict,
)

from nnunet_temporal.commands.steps import find_program
from nnunet_temporal.inference.study import merge_studies

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def matrix(planned_phantom, tmp_path_factory) -> Matrix:
    """Train two folds of both models, one temporal fold without probabilities; predict a new study with both."""
    work = Matrix(tmp_path_factory.mktemp("matrix"), planned_phantom)
    work.train("2dt", TEMPORAL, 0, "--npz")
    work.train("2dt", TEMPORAL, 1)
    for fold in FOLDS:
        work.train("2d", FRAMEWISE, fold, "--npz")
    predict(work, work.new, work.masks, "2dt", TEMPORAL, "--save_probabilities")
    predict(work, work.new, work.framewise_masks, "2d", FRAMEWISE, "--save_probabilities")
    return work


@pytest.fixture(scope="module")
def validated_again(matrix) -> dict[str, dict[str, int]]:
    """Validate the fold that has no probabilities again; return when its files were written, before and after."""
    fold = matrix.temporal / "fold_1"

    def times() -> dict[str, int]:
        return {path.name: path.stat().st_mtime_ns for path in (*fold.glob("*.pth"), *fold.glob("validation/*.npz"))}

    before = times()
    matrix.train("2dt", TEMPORAL, 1, "--val", "--npz")
    return {"before": before, "after": times()}


@pytest.fixture(scope="module")
def best(matrix, validated_again) -> str:
    """Search for the best configuration; return what was printed."""
    arguments = ("-c", "2dt", "-tr", TEMPORAL, "-p", PLANS, "-f", *FOLDS, "-np", 1)
    return matrix.run("nnUNetv2_find_best_configuration", DATASET, *arguments)


@pytest.fixture(scope="module")
def stock_ensemble(matrix) -> Path:
    """Average the predictions of both models by nnU-Net's own command."""
    folder, members = matrix.root / "stock_ensemble", (matrix.masks, matrix.framewise_masks)
    matrix.run("nnUNetv2_ensemble", "-i", *members, "-o", folder, "-np", 1, "--save_npz")
    return folder


@pytest.fixture(scope="module")
def our_ensemble(matrix) -> Path:
    """Average the predictions of both models by our command."""
    folder, members = matrix.root / "our_ensemble", (matrix.masks, matrix.framewise_masks)
    matrix.run("nnunet_temporal", "ensemble", "-i", *members, "-o", folder, "--save_npz")
    return folder


def check_grids(matrix: Matrix, folder: Path) -> None:
    """Assert that the masks in ``folder`` lie on the grids of the new sequences."""
    images, masks = mask_paths(matrix.new), mask_paths(folder)
    assert [path.name.replace("_0000", "") for path in images] == [path.name for path in masks]
    for image, mask in zip(images, masks, strict=True):
        expected, found = grid(image), grid(mask)
        assert found["size"] == expected["size"] == (WIDTH, HEIGHT, FRAMES)
        for name in ("spacing", "origin", "direction"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def started_epochs(printed: str) -> list[int]:
    return [int(number) for number in re.findall(r": Epoch (\d+)\n", printed)]


def test_every_fold_of_both_models_is_trained_and_validated_on_its_own_studies(matrix):
    for model in (matrix.temporal, matrix.framewise):
        for fold, studies in zip(FOLDS, VALIDATED, strict=True):
            folder = model / f"fold_{fold}"
            assert (folder / "checkpoint_final.pth").is_file()
            assert {path.name.rpartition("_z")[0] for path in mask_paths(folder / "validation")} == studies
            assert 0 < json.loads((folder / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"] <= 1


def test_probabilities_of_the_validation_are_written_on_request(matrix):
    for model, fold in ((matrix.temporal, 0), (matrix.framewise, 0), (matrix.framewise, 1)):
        folder = model / f"fold_{fold}" / "validation"
        assert {f"{path.stem}.nii.gz" for path in folder.glob("*.npz")} == {path.name for path in mask_paths(folder)}


def test_a_fold_can_be_validated_again_for_its_probabilities_without_training(validated_again):
    before, after = validated_again["before"], validated_again["after"]
    assert set(before) == {"checkpoint_best.pth", "checkpoint_final.pth"}
    assert set(after) - set(before) == {"study_b_z00.npz", "study_b_z01.npz", "study_d_z00.npz"}
    assert {name: after[name] for name in before} == before


def test_a_fold_beyond_the_splits_ends_the_stock_command_with_our_message(matrix):
    with pytest.raises(AssertionError, match=r"Fold 2 does not exist.*defines 2 folds"):
        matrix.train("2dt", TEMPORAL, 2)


def test_a_killed_training_resumes_without_losing_a_tenth_of_its_epochs(matrix):
    log = matrix.root / "killed.txt"
    command = (find_program("nnUNetv2_train"), DATASET, "2dt", "0", "-tr", TO_BE_KILLED, "-p", PLANS, *ON_CPU)
    environment = {**matrix.environment, "PYTHONUNBUFFERED": "1"}
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
    resumed = started_epochs(matrix.train("2dt", TO_BE_KILLED, 0, "--c"))
    assert resumed == list(range(resumed[0], 20))
    assert killed_in - resumed[0] < 20 // 10
    checkpoint = matrix.results / f"{TO_BE_KILLED}__{PLANS}__2dt" / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    assert content["current_epoch"] == len(content["logging"]["train_losses"]) == 20


def test_every_frame_of_a_new_sequence_gets_a_mask_on_its_grid(matrix):
    for folder in (matrix.masks, matrix.framewise_masks):
        check_grids(matrix, folder)
        for path in mask_paths(folder):
            assert pixels(path).any(axis=(1, 2)).all()


def test_the_search_tells_the_plans_that_postprocessing_needs(matrix, best):
    result = json.loads((matrix.results / "inference_information.json").read_text())["best_model_or_ensemble"]
    chosen = {"configuration": "2dt", "trainer": TEMPORAL, "plans_identifier": PLANS}
    assert result["selected_model_or_models"] == [chosen]
    assert 0 < result["result_on_crossval_pre_pp"] <= 1
    (command,) = [line for line in best.splitlines() if line.startswith("nnUNetv2_apply_postprocessing")]
    for flag, file in (("-plans_json", result["some_plans_file"]), ("-pp_pkl_file", result["postprocessing_file"])):
        assert f"{flag} {file}" in command
        assert Path(file).is_file()


def test_postprocessing_and_evaluation_follow_the_search(matrix, best):
    folder, known = matrix.root / "postprocessed", matrix.temporal / "crossval_results_folds_0_1"
    plans, dataset = known / "plans.json", known / "dataset.json"
    learnt = ("-pp_pkl_file", known / "postprocessing.pkl", "-plans_json", plans)
    matrix.run("nnUNetv2_apply_postprocessing", "-i", matrix.masks, "-o", folder, "-np", 1, *learnt)
    check_grids(matrix, folder)
    labels = matrix.raw / "labelsTs"
    matrix.run("nnUNetv2_evaluate_folder", labels, folder, "-djfile", dataset, "-pfile", plans, "-np", 1)
    summary = json.loads((folder / "summary.json").read_text())
    assert [Path(case["prediction_file"]).name for case in summary["metric_per_case"]] == [
        path.name for path in mask_paths(labels)
    ]
    assert 0 < summary["foreground_mean"]["Dice"] <= 1


def test_the_stock_search_pairs_all_trainers_and_configurations_and_stops_where_one_is_missing(matrix, monkeypatch):
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, matrix.environment[name])
    models = dumb_trainer_config_plans_to_trained_models_dict([TEMPORAL, FRAMEWISE], ["2dt", "2d"], [PLANS])
    assert len(models) == 4
    with pytest.raises(RuntimeError, match="does not have an output folder"):
        filter_available_models(models, DATASET)


def test_the_stock_ensemble_averages_both_methods(matrix, stock_ensemble):
    check_grids(matrix, stock_ensemble)
    for path in stock_ensemble.glob("*.npz"):
        parts = [np.load(folder / path.name)["probabilities"] for folder in (matrix.masks, matrix.framewise_masks)]
        mean = np.load(path)["probabilities"]
        assert mean.shape == (3, FRAMES, HEIGHT, WIDTH)
        assert np.abs(parts[0] - parts[1]).max() > 0.1
        np.testing.assert_allclose(mean, (parts[0] + parts[1]) / 2, atol=1e-6)
        np.testing.assert_array_equal(pixels(path.with_suffix(".nii.gz")), mean.argmax(0))


def test_our_ensemble_of_predictions_is_the_stock_one(matrix, stock_ensemble, our_ensemble):
    check_grids(matrix, our_ensemble)
    for ours, stock in zip(mask_paths(our_ensemble), mask_paths(stock_ensemble), strict=True):
        np.testing.assert_array_equal(pixels(ours), pixels(stock))
    for stock in stock_ensemble.glob("*.npz"):
        ours = np.load(our_ensemble / stock.name)["probabilities"]
        np.testing.assert_allclose(ours, np.load(stock)["probabilities"], atol=1e-6)


def test_only_our_ensemble_is_postprocessed_without_naming_plans(matrix, stock_ensemble, our_ensemble, tmp_path):
    with pytest.raises(RuntimeError, match="Expected plans file missing"):
        apply_postprocessing_to_folder(str(stock_ensemble), str(tmp_path), [], [], num_processes=1)
    apply_postprocessing_to_folder(str(our_ensemble), str(tmp_path), [], [], num_processes=1)
    check_grids(matrix, tmp_path)


def test_our_ensemble_is_merged_without_naming_sequences(our_ensemble, tmp_path):
    (merged,) = merge_studies(our_ensemble, tmp_path)
    masks = [pixels(path) for path in mask_paths(our_ensemble)]
    np.testing.assert_array_equal(pixels(merged), np.stack(masks, axis=1))  # (T, Z, Y, X)


def test_an_ensemble_across_methods_is_scored_by_cross_validation(matrix, validated_again):
    folder, labels = matrix.root / "cross_validation", matrix.raw / "labelsTr"
    matrix.run("nnunet_temporal", "ensemble", "-i", matrix.temporal, matrix.framewise, "-f", *FOLDS, "-o", folder)
    described = ("-djfile", folder / "dataset.json", "-pfile", folder / "plans.json")
    matrix.run("nnUNetv2_evaluate_folder", labels, folder, *described, "-np", 1, "--chill")
    summary = json.loads((folder / "summary.json").read_text())
    scored = {Path(case["prediction_file"]).name for case in summary["metric_per_case"]}
    assert scored == {path.name for path in mask_paths(labels)} - {f"{UNLABELLED}.nii.gz"}
    assert 0 < summary["foreground_mean"]["Dice"] <= 1


def test_pictures_of_all_training_sequences_are_drawn(matrix):
    folder = matrix.root / "pictures"
    matrix.run("nnUNetv2_plot_overlay_pngs", "-d", DATASET, "-o", folder, "-p", PLANS, "-c", "2dt", "-np", 1)
    drawn = {f"{path.stem}.nii.gz" for path in folder.glob("*.png")}
    assert drawn == {path.name for path in mask_paths(matrix.raw / "labelsTr")}


def test_an_exported_model_predicts_the_same_in_a_fresh_installation(matrix):
    archive = matrix.root / "model.zip"
    model = ("-c", "2dt", "-tr", TEMPORAL, "-p", PLANS, "-f", *FOLDS)
    matrix.run("nnUNetv2_export_model_to_zip", "-d", DATASET, "-o", archive, *model)
    fresh = Workspace(matrix.root / "fresh", matrix.raw.name)
    fresh.run("nnUNetv2_install_pretrained_model_from_zip", archive)
    predict(fresh, matrix.new, fresh.root / "masks", "2dt", TEMPORAL)
    for path in mask_paths(matrix.masks):
        np.testing.assert_array_equal(pixels(fresh.root / "masks" / path.name), pixels(path))
