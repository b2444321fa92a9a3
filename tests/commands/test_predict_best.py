"""``predict_best``: one model or two, averaged and postprocessed, and what later commands find beside the masks."""

import pickle
import shutil

import numpy as np
import pytest
from challenge_road import check_grids, mask_paths, pixels
from nifti_movies import save_nifti
from nnunetv2.postprocessing.remove_connected_components import remove_all_but_largest_component_from_segmentation
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import movie
from trained_models import write_model

from nnunet_temporal.cli import main
from nnunet_temporal.inference.best_choice import Choice, hash_checkpoints
from nnunet_temporal.inference.prediction_record import read_record
from nnunet_temporal.inference.study import merge_studies, split_studies
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

STOCK, GDKVM = "nnUNetTrainer__plans__2d", "nnUNetTrainerGDKVM__plans__2dt"
LARGEST = {"labels_or_regions": [1, 2]}


@pytest.fixture
def work(nnunet_folders, tmp_path):
    """Write two models and a study of two sequences; return the folder with the sequences."""
    results = nnunet_folders.results / "Dataset777_Phantom"
    write_model(results / STOCK, nnUNetTrainer, configuration="2d", folds=(0, 1))
    write_model(results / GDKVM, nnUNetTrainerGDKVM, folds=(0, 1))
    on_disk = movie(4, seed=1).transpose(3, 2, 1, 0)
    split_studies([save_nifti(tmp_path / "a.nii.gz", on_disk, zooms=(1.25, 1.5, 8.0, 0.03))], tmp_path / "sequences")
    return tmp_path


def choose(work, *models, functions=(), options=()):
    """Keep a choice of models, and a postprocessing."""
    (work / "pp.pkl").write_bytes(pickle.dumps((list(functions), list(options))))
    results = work / "nnUNet_results" / "Dataset777_Phantom"
    hashes = hash_checkpoints(results, [model for model in models if (results / model).is_dir()], [0, 1])
    Choice(list(models), [0, 1], 0.5, 0.5, hashes).write(results / "best", work / "pp.pkl")


def predict_best(work, *options):
    words = ("-i", work / "sequences", "-o", work / "masks", "-d", 777, "-device", "cpu", *options)
    return main(["predict_best", *map(str, words)])


def test_one_chosen_model_predicts_as_predict_does(work):
    choose(work, GDKVM)
    assert predict_best(work) == 0
    words = ("-i", work / "sequences", "-o", work / "alone", "-d", 777, "-tr", "nnUNetTrainerGDKVM", "-p", "plans")
    assert main(["predict", *map(str, words), "-device", "cpu"]) == 0
    check_grids(work / "sequences", work / "masks")
    for path in mask_paths(work / "alone"):
        np.testing.assert_array_equal(pixels(work / "masks" / path.name), pixels(path))
    assert not list(work.rglob("*.npz"))


def test_two_chosen_models_are_averaged_and_postprocessed(work):
    largest = remove_all_but_largest_component_from_segmentation
    choose(work, STOCK, GDKVM, functions=[largest], options=[LARGEST])
    assert predict_best(work) == 0
    before, changed = work / "masks" / "before_postprocessing", 0
    for path in mask_paths(work / "masks"):
        files = [before / model / path.name.replace(".nii.gz", ".npz") for model in (STOCK, GDKVM)]
        parts = [np.load(file)["probabilities"] for file in files]
        mean = pixels(before / "mean" / path.name)
        np.testing.assert_array_equal(mean, ((parts[0] + parts[1]) / 2).argmax(0))
        expected = largest(mean, **LARGEST)
        np.testing.assert_array_equal(pixels(path), expected)
        changed += np.count_nonzero(expected != mean)
    assert changed


def test_later_commands_find_what_they_need_beside_the_masks(work):
    choose(work, STOCK, GDKVM)
    assert predict_best(work) == 0
    (merged,) = merge_studies(work / "masks", work / "merged")
    assert pixels(merged).shape == (4, 2, 40, 36)
    record = read_record(work / "masks")
    assert record["dataset"] == "Dataset777_Phantom" and record["folds"] == [0, 1]
    assert record["trainer"] == f"{STOCK} and {GDKVM}"
    assert {"dataset.json", "plans.json"} < {path.name for path in (work / "masks").iterdir()}


def test_what_a_sequence_that_cannot_be_read_left_undone_is_done_by_the_next_call(work, capsys):
    choose(work, STOCK, GDKVM)
    broken = work / "sequences" / "a_z01_0000.nii.gz"
    good = broken.read_bytes()
    broken.write_bytes(b"broken")
    assert predict_best(work) == 1
    said = capsys.readouterr().err
    assert "a_z01" in said
    assert "call again with --continue_prediction" in said
    assert not mask_paths(work / "masks")
    # By both models, or the second would begin when somebody is back.
    kept = [work / "masks" / "before_postprocessing" / model / "a_z00.nii.gz" for model in (STOCK, GDKVM)]
    times = [path.stat().st_mtime_ns for path in kept]
    broken.write_bytes(good)
    assert predict_best(work, "--continue_prediction") == 0
    assert [path.stat().st_mtime_ns for path in kept] == times
    assert [path.name for path in mask_paths(work / "masks")] == ["a_z00.nii.gz", "a_z01.nii.gz"]


def test_masks_by_other_weights_are_not_kept(work, capsys):
    choose(work, STOCK, GDKVM)
    assert predict_best(work) == 0
    results = work / "nnUNet_results" / "Dataset777_Phantom"
    shutil.copy(*(results / GDKVM / f"fold_{fold}" / "checkpoint_final.pth" for fold in (0, 1)))
    choose(work, STOCK, GDKVM)
    assert predict_best(work, "--continue_prediction") == 2
    assert "before_postprocessing are by other models" in capsys.readouterr().err
    assert predict_best(work) == 0
    assert predict_best(work, "--continue_prediction") == 0


def test_nothing_is_predicted_without_a_choice_or_without_sequences(work, capsys):
    assert predict_best(work) == 2
    assert "'nnunet_temporal find_best_configuration' writes it" in capsys.readouterr().err
    choose(work, GDKVM)
    for image in mask_paths(work / "sequences"):
        image.rename(image.with_name(image.name.replace("_0000", "")))
    assert predict_best(work) == 2
    assert "make them of movies with 'nnunet_temporal split'" in capsys.readouterr().err
    assert not (work / "masks").exists()


def test_a_chosen_model_that_was_left_behind_is_named(work, capsys):
    choose(work, "nnUNetTrainerCSTM__plans__2dt")
    assert predict_best(work) == 2
    assert "nnUNetTrainerCSTM__plans__2dt: expected the folder of a trained model" in capsys.readouterr().err


def test_a_second_model_that_was_left_behind_is_named_before_the_first_predicts(work, capsys):
    choose(work, GDKVM, "nnUNetTrainerCSTM__plans__2dt")
    assert predict_best(work) == 2
    assert "nnUNetTrainerCSTM__plans__2dt: expected the folder of a trained model" in capsys.readouterr().err
    assert not (work / "masks").exists()


def test_a_model_that_was_trained_anew_since_it_was_chosen_predicts_nothing(work, capsys):
    choose(work, STOCK, GDKVM)
    results = work / "nnUNet_results" / "Dataset777_Phantom"
    shutil.copy(*(results / GDKVM / f"fold_{fold}" / "checkpoint_final.pth" for fold in (0, 1)))
    assert predict_best(work) == 2
    assert f"{GDKVM}/fold_1/checkpoint_final.pth: is not the one that was cross-valid" in capsys.readouterr().err
    assert not (work / "masks").exists()


def test_masks_of_other_sequences_are_not_taken_for_new_ones(work, capsys):
    choose(work, STOCK, GDKVM)
    for name in ("old.nii.gz", "before_postprocessing/mean/old.nii.gz", f"before_postprocessing/{GDKVM}/old.npz"):
        stale = work / "masks" / name
        stale.parent.mkdir(parents=True, exist_ok=True)
        stale.touch()
        assert predict_best(work) == 2
        assert f"{stale.parent}: holds masks of sequences that" in capsys.readouterr().err
        stale.unlink()


def test_what_was_known_of_earlier_masks_is_removed_and_the_same_sequences_may_come_again(work):
    choose(work, GDKVM)
    assert predict_best(work) == 0
    for name in ("a_z00_confidence.csv", "a_z01_frames.csv"):
        (work / "masks" / name).touch()
    assert predict_best(work) == 0
    assert not list((work / "masks").glob("*.csv"))
