"""From raw 4D files to merged 4D masks through the real commands, on three embedded studies cut down to two slices."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest

from nnunet_temporal.commands.env import VARIABLE, ext_trainer_value
from nnunet_temporal.commands.steps import find_program
from nnunet_temporal.demo_data import demo_data_folder

pytestmark = pytest.mark.slow

HELD_OUT, TRAINING = "SC-HF-I-1", ("SC-HF-I-2", "SC-HF-I-4")
# Two slices per study in which an expert has drawn the ventricle at ED and ES, and the middle of the picture.
FIRST_SLICE, MARGIN = 5, 16
DATASET, TRAINER, PLANS = "902", "nnUNetTrainerGDKVM_10iterations", "nnUNetTemporalLightPlans"
MODEL = ("-c", "2dt", "-tr", TRAINER, "-p", PLANS)


class Workspace:
    """Folders of one run of the pipeline, and a way to run commands in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data, self.sequences, self.masks, self.merged = (
            root / name for name in ("data", "sequences", "masks", "merged")
        )
        self.raw = root / "nnUNet_raw" / f"Dataset{DATASET}_Sunnybrook"
        self.preprocessed = root / "nnUNet_preprocessed" / self.raw.name
        self.model = root / "nnUNet_results" / self.raw.name / f"{TRAINER}__{PLANS}__2dt"
        folders = {name: str(root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
        workers = {"nnUNet_n_proc_DA": "2", "nnUNet_def_n_proc": "2", "OMP_NUM_THREADS": "2", "nnUNet_compile": "f"}
        self.environment = {**os.environ, **folders, **workers, VARIABLE: ext_trainer_value()}

    def run(self, program: str, *arguments: object) -> str:
        """Run a command, which must succeed; return all it printed."""
        done = subprocess.run(
            [find_program(program), *map(str, arguments)],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{program} {arguments}\n{done.stdout[-5000:]}"
        return done.stdout

    def predict(self, source: Path, masks: Path, *arguments: object) -> None:
        """Run nnU-Net's own prediction."""
        few = ("-npp", 1, "-nps", 1, "-device", "cpu")
        self.run("nnUNetv2_predict", "-i", source, "-o", masks, "-d", DATASET, *MODEL, *few, *arguments)


def cut_down(study: str, folder: Path) -> None:
    """Write the middle of two slices of an embedded study, all phases, with its header."""
    crop = (slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN), slice(FIRST_SLICE, FIRST_SLICE + 2))
    for kind in ("cine", "gt_lv"):
        image = nibabel.load(demo_data_folder() / f"{study}_{kind}.nii.gz")
        affine = image.affine.copy()
        affine[:3, 3] = (image.affine @ (MARGIN, MARGIN, FIRST_SLICE, 1))[:3]
        small = nibabel.Nifti1Image(np.asanyarray(image.dataobj)[crop], affine, image.header)
        nibabel.save(small, folder / f"{study}_{kind}.nii.gz")
    shutil.copy(demo_data_folder() / f"{study}.json", folder)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """Convert, plan, preprocess and train both folds; split and predict the held-out study; merge."""
    work = Workspace(tmp_path_factory.mktemp("pipeline"))
    for folder in (work.data, work.raw.parent, work.preprocessed.parent, work.model.parent.parent):
        folder.mkdir()
    for study in (HELD_OUT, *TRAINING):
        cut_down(study, work.data)
    work.run("nnunet_temporal", "convert", "sunnybrook", "-i", work.data, "-d", DATASET, "--held-out", HELD_OUT)
    work.run(
        "nnunet_temporal", "plan_and_preprocess", "-d", DATASET, "-pl", "LightTemporalPlanner", "-npfp", 1, "-np", 1
    )
    model = ("-tr", TRAINER, "-p", PLANS, "-device", "cpu")
    work.run("nnUNetv2_train", DATASET, "2dt", 0, *model, "--npz")
    work.run("nnUNetv2_train", DATASET, "2dt", 1, *model)
    # Under the study's own name, so that its sequences are called as in labelsTs.
    new_study = shutil.copy(work.data / f"{HELD_OUT}_cine.nii.gz", work.root / f"{HELD_OUT}.nii.gz")
    work.run("nnunet_temporal", "split", "-i", new_study, "-o", work.sequences)
    work.predict(work.sequences, work.masks, "-f", 0, 1, "--disable_tta")
    work.run("nnunet_temporal", "merge", "-i", work.masks, "-o", work.merged)
    return work


@pytest.fixture(scope="module")
def fold_probabilities(workspace) -> list[Path]:
    """Predict one sequence by each fold alone, with probabilities."""
    one = workspace.root / "one_sequence"
    one.mkdir()
    shutil.copy(sorted(workspace.sequences.glob("*_0000.nii.gz"))[0], one)
    folders = [workspace.root / f"fold_{fold}_masks" for fold in (0, 1)]
    for fold, folder in enumerate(folders):
        workspace.predict(one, folder, "-f", fold, "--save_probabilities")
    return folders


def test_the_folds_keep_studies_apart_and_the_held_out_study_out(workspace):
    splits = json.loads((workspace.preprocessed / "splits_final.json").read_text())
    assert [{case.rpartition("_z")[0] for case in split["val"]} for split in splits] in (
        [{TRAINING[0]}, {TRAINING[1]}],
        [{TRAINING[1]}, {TRAINING[0]}],
    )
    assert HELD_OUT not in json.dumps(splits)


def test_every_fold_leaves_a_final_checkpoint_and_a_validated_summary(workspace):
    for fold in (0, 1):
        folder = workspace.model / f"fold_{fold}"
        assert (folder / "checkpoint_final.pth").is_file()
        dice = json.loads((folder / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"]
        assert 0 <= dice <= 1


def test_probabilities_of_the_validation_are_written_on_request(workspace):
    cases = json.loads((workspace.preprocessed / "splits_final.json").read_text())[0]["val"]
    written = {path.stem for path in (workspace.model / "fold_0" / "validation").glob("*.npz")}
    assert written == set(cases)


def test_the_merged_masks_lie_on_the_grid_and_header_of_the_original(workspace):
    (path,) = workspace.merged.glob("*.nii.gz")
    assert path.name.startswith(HELD_OUT)
    merged, original = nibabel.load(path), nibabel.load(workspace.data / f"{HELD_OUT}_cine.nii.gz")
    assert merged.shape == original.shape == (64, 64, 2, 20)
    np.testing.assert_array_equal(merged.affine, original.affine)
    assert merged.header.get_zooms() == original.header.get_zooms()
    assert merged.header.get_xyzt_units() == original.header.get_xyzt_units()
    assert set(np.unique(np.asanyarray(merged.dataobj))) <= {0, 1}


def test_the_merged_masks_hold_the_predicted_slices_in_order(workspace):
    (path,) = workspace.merged.glob("*.nii.gz")
    merged = np.asanyarray(nibabel.load(path).dataobj)
    for z, mask in enumerate(sorted(workspace.masks.glob("*.nii.gz"))):
        np.testing.assert_array_equal(merged[:, :, z], np.asanyarray(nibabel.load(mask).dataobj))


def test_a_finished_training_can_be_continued(workspace):
    before = (workspace.model / "fold_1" / "checkpoint_final.pth").stat().st_mtime_ns
    workspace.run("nnUNetv2_train", DATASET, "2dt", 1, "-tr", TRAINER, "-p", PLANS, "-device", "cpu", "--c")
    assert (workspace.model / "fold_1" / "checkpoint_final.pth").stat().st_mtime_ns > before


def test_a_fold_beyond_the_splits_ends_the_stock_command_with_our_message(workspace):
    with pytest.raises(AssertionError, match=r"Fold 2 does not exist.*defines 2 folds"):
        workspace.run("nnUNetv2_train", DATASET, "2dt", 2, "-tr", TRAINER, "-p", PLANS, "-device", "cpu")


def test_stock_evaluation_scores_the_held_out_sequences(workspace):
    workspace.run(
        "nnUNetv2_evaluate_folder", workspace.raw / "labelsTs", workspace.masks, "-np", 1,
        "-djfile", workspace.raw / "dataset.json", "-pfile", workspace.model / "plans.json",
    )  # fmt: skip
    summary = json.loads((workspace.masks / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 2
    assert 0 <= summary["foreground_mean"]["Dice"] <= 1


def test_stock_ensembling_joins_the_predictions_of_both_folds(workspace, fold_probabilities):
    joined = workspace.root / "ensemble"
    workspace.run("nnUNetv2_ensemble", "-i", *fold_probabilities, "-o", joined, "-np", 1, "--save_npz")
    (ensemble,) = joined.glob("*.npz")
    parts = [np.load(folder / ensemble.name)["probabilities"] for folder in fold_probabilities]
    probabilities = np.load(ensemble)["probabilities"]
    assert probabilities.shape == (2, 20, 64, 64)
    np.testing.assert_allclose(probabilities, np.mean(parts, 0), atol=1e-3)


def test_stock_search_for_the_best_configuration_accepts_the_two_folds(workspace):
    workspace.run("nnUNetv2_find_best_configuration", DATASET, *MODEL, "-f", 0, 1, "-np", 1, "--disable_ensembling")
    result = json.loads((workspace.model.parent / "inference_information.json").read_text())
    assert result["best_model_or_ensemble"]["selected_model_or_models"][0]["trainer"] == TRAINER
