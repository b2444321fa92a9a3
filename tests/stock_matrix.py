"""Two models of the phantom, trained and applied by nnU-Net's commands, for the tests of these commands. Not a test."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import SimpleITK
from command_workspace import FEW_PROCESSES, ON_CPU, Workspace
from nifti_movies import save_nifti
from phantom_dataset import HELD_OUT, PLANS, Phantom, movie

from nnunet_temporal.commands.env import ext_trainer_value
from nnunet_temporal.inference.study import split_studies

DATASET, FOLDS, FRAMES = "Dataset777_Phantom", (0, 1), 8
VALIDATED = ({"study_a", "study_c"}, {"study_b", "study_d"})
UNLABELLED = "study_d_z01"
TEMPORAL, FRAMEWISE = "nnUNetTrainerGDKVM_10iterations", "nnUNetTrainer_10iterations"
TO_BE_KILLED = "nnUNetTrainerGDKVM_20epochs_of_1iteration"
_SHORT_TRAINERS = f"""
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

class {FRAMEWISE}(nnUNetTrainer):
    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1, 10, 2

class {TO_BE_KILLED}(nnUNetTrainerGDKVM):
    epochs, iterations_per_epoch, validation_iterations_per_epoch = 20, 1, 1
"""


class Matrix(Workspace):
    """The phantom in nnU-Net's folders, and its two models: sequences with a memory (2dt), and frame by frame (2d)."""

    def __init__(self, root: Path, phantom: Phantom) -> None:
        trainers = root / "short_trainers"
        trainers.mkdir()
        (trainers / "short_trainers.py").write_text(_SHORT_TRAINERS)
        search_path = os.pathsep.join([ext_trainer_value(), str(trainers)])
        super().__init__(root, DATASET, nnUNet_n_proc_DA="0", nnUNet_extTrainer=search_path)
        self.temporal = self.results / f"{TEMPORAL}__{PLANS}__2dt"
        self.framewise = self.results / f"{FRAMEWISE}__{PLANS}__2d"
        self.new, self.masks, self.framewise_masks = (root / name for name in ("new", "masks_2dt", "masks_2d"))
        shutil.copytree(phantom.raw, self.raw)
        shutil.copytree(phantom.preprocessed, self.preprocessed)
        _write_two_folds(self.preprocessed / "splits_final.json")
        split_studies([_write_new_study(root)], self.new)
        _turn(self.new / f"{HELD_OUT}_z01_0000.nii.gz")

    def train(self, configuration: str, trainer: str, fold: int, *arguments: str) -> str:
        """Run nnU-Net's training; return what it printed."""
        model = (DATASET, configuration, fold, "-tr", trainer, "-p", PLANS)
        return self.run("nnUNetv2_train", *model, *ON_CPU, *arguments)


def predict(work: Workspace, source: Path, output: Path, configuration: str, trainer: str, *arguments: str) -> None:
    """Run nnU-Net's prediction with all folds."""
    model = ("-d", DATASET, "-c", configuration, "-tr", trainer, "-p", PLANS, "-f", *FOLDS)
    work.run("nnUNetv2_predict", "-i", source, "-o", output, *model, "--disable_tta", *FEW_PROCESSES, *arguments)


def mask_paths(folder: Path) -> list[Path]:
    """Return the images in a folder, sorted."""
    return sorted(folder.glob("*.nii.gz"))


def pixels(path: Path) -> np.ndarray:
    """Return the array (T, Y, X) of a file."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path))


def grid(path: Path) -> dict[str, tuple]:
    """Return the grid of an image as ITK reads it: all that nnU-Net promises to keep."""
    image = SimpleITK.ReadImage(path)
    return {
        "size": image.GetSize(), "spacing": image.GetSpacing(),
        "origin": image.GetOrigin(), "direction": image.GetDirection(),
    }  # fmt: skip


def _write_two_folds(splits_file: Path) -> None:
    """Hold out two studies per fold instead of one, to train half as often."""
    splits = json.loads(splits_file.read_text())
    cases = {case for split in splits for case in (*split["train"], *split["val"])}
    held_out = [{case for case in cases if case.rpartition("_z")[0] in studies} for studies in VALIDATED]
    splits = [{"train": sorted(cases - part), "val": sorted(part - {UNLABELLED})} for part in held_out]
    splits_file.write_text(json.dumps(splits))


def _write_new_study(folder: Path) -> Path:
    """Write the held-out study as a movie (x, y, z, t)."""
    on_disk = movie(FRAMES, seed=4).transpose(3, 2, 1, 0)
    return save_nifti(folder / f"{HELD_OUT}.nii.gz", on_disk, zooms=(1.25, 1.25, 8.0, 0.03))


def _turn(path: Path) -> None:
    """Put a sequence on a grid that is shifted and turned in plane."""
    image = SimpleITK.ReadImage(path)
    cosine, sine = np.cos(0.5), np.sin(0.5)
    image.SetOrigin((12.5, -31.0, 4.0))
    image.SetDirection((cosine, -sine, 0, sine, cosine, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, path)
