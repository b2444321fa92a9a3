import json
import pickle

import numpy as np
import pytest
from verbs import run_verb

from nnunet_temporal.commands import ensemble
from nnunet_temporal.errors import InputError

GEOMETRY = {"spacing": (1.0, 1.0, 10.0), "origin": (0.0, 0.0, 0.0), "direction": (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)}


@pytest.fixture
def models(tmp_path):
    """Write the predictions of two models for one sequence of 2 frames, 4 x 5 pixels."""
    folders = [tmp_path / name for name in ("temporal", "frame_by_frame")]
    for folder, foreground in zip(folders, (0.9, 0.3), strict=True):
        folder.mkdir()
        array = np.broadcast_to(np.array([1 - foreground, foreground])[:, None, None, None], (2, 2, 4, 5))
        np.savez(folder / "study_z00.npz", probabilities=array.astype(np.float32))
        (folder / "study_z00.pkl").write_bytes(pickle.dumps({"sitk_stuff": GEOMETRY}))
        dataset = {"labels": {"background": 0, "LV": 1}, "file_ending": ".nii.gz"}
        (folder / "dataset.json").write_text(json.dumps(dataset))
        plans = {"image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager"}
        (folder / "plans.json").write_text(json.dumps(plans))
    return folders


def run(*words):
    return run_verb(ensemble, *words)


def test_two_models_become_one_folder_of_masks(models, tmp_path, capsys):
    assert run("-i", *models, "-o", tmp_path / "out") == 0
    assert (tmp_path / "out" / "study_z00.nii.gz").is_file()
    assert not list((tmp_path / "out").glob("*.npz"))
    assert f"1 cases, averaged over 2 models, in {tmp_path / 'out'}" in capsys.readouterr().out


def test_the_next_commands_are_printed_with_the_plans_they_need(models, tmp_path, capsys):
    run("-i", *models, "-o", tmp_path / "out")
    printed = capsys.readouterr().out
    (postprocessing,) = [line for line in printed.splitlines() if "nnUNetv2_apply_postprocessing" in line]
    assert f"-plans_json {tmp_path / 'out' / 'plans.json'}" in postprocessing
    assert (tmp_path / "out" / "plans.json").is_file()
    assert "nnUNetv2_evaluate_folder" in printed and "nnunet_temporal merge" in printed


def test_probabilities_are_written_on_request(models, tmp_path):
    run("-i", *models, "-o", tmp_path / "out", "--save_npz")
    with np.load(tmp_path / "out" / "study_z00.npz") as arrays:
        np.testing.assert_allclose(arrays["probabilities"][1], 0.6, rtol=1e-6)  # (0.9 + 0.3) / 2


def test_folds_are_looked_for_in_trained_models(models, tmp_path):
    with pytest.raises(InputError, match="temporal/fold_1/validation: found no probabilities"):
        run("-i", *models, "-o", tmp_path / "out", "-f", 1)


def test_bad_folders_are_the_users_fault(models, tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        run("-i", models[0], tmp_path / "nowhere", "-o", tmp_path / "out")
