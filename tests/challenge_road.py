"""The page on how to enter a challenge, walked once on patients laid out as ACDC with tiny trainings. Not a test."""

import contextlib
import importlib.metadata
import io
import json
import multiprocessing
import multiprocessing.dummy
import multiprocessing.pool  # or it would keep the patch below for good
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from acdc_layout import draw_patient
from command_workspace import Workspace
from documentation_pages import blocks_of, read_page

from nnunet_temporal.commands.env import ext_trainer_value

DATASET, PLANS, FOLDS, SIZE = "Dataset027_ACDC", "nnUNetTemporalLightPlans", (0, 1), 40
UNLABELLED, HELD_OUT = "patient003", "patient101"
FRAMEWISE, TEMPORAL, PLACE = (
    "nnUNetTrainer_10iterations", "nnUNetTrainerGDKVM_10iterations", "nnUNetTrainerPlaceMemory_10iterations",
)  # fmt: skip
MODELS = [f"{FRAMEWISE}__{PLANS}__2d", f"{TEMPORAL}__{PLANS}__2dt", f"{PLACE}__{PLANS}__2dt"]
TO_BE_KILLED = "nnUNetTrainerGDKVM_20epochs_of_1iteration"
# What a team writes into the first block, small enough for a test.
_SETTINGS = {
    "DATABASE": "database", "FOLDS": '"0 1"', "LENGTH": "_10iterations", "PLANNER": "LightTemporalPlanner",
    "PLANS": PLANS, "DEVICE": "cpu", "PROCESSES": "1",
}  # fmt: skip
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


class Road(Workspace):
    """What the commands of the page have left: tests may add to it, and change nothing for good."""

    def __init__(self, root: Path) -> None:
        trainers = root / "short_trainers"
        trainers.mkdir()
        (trainers / "short_trainers.py").write_text(_SHORT_TRAINERS)
        search_path = os.pathsep.join([ext_trainer_value(), str(trainers)])
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        # Planning takes nnUNet_n_proc_DA for a number of threads.
        variables = {"nnUNet_extTrainer": search_path, "nnUNet_n_proc_DA": "1", "PATH": path}
        super().__init__(root / "acdc_challenge", DATASET, **variables)
        self.framewise, self.temporal, self.place = (self.results / name for name in MODELS)
        self.new = self.raw / "imagesTs"
        for seed, patient in enumerate(("training/patient001", "training/patient002", f"training/{UNLABELLED}")):
            draw_patient(root / "database" / patient, seed, SIZE, masked=UNLABELLED not in patient)
        draw_patient(root / "database" / "testing" / HELD_OUT, 3, SIZE)
        self._walk()
        self.search = json.loads((self.results / "inference_information.json").read_text())
        self.choice = json.loads((self.results / "best" / "choice.json").read_text())

    def _walk(self) -> None:
        """Run the blocks in one shell, then, as the page says, in another one that begins with the first two."""
        settings, setting_up, *blocks = [block.text for block in blocks_of(read_page("how_to/enter_a_challenge.md"))]
        assert set(_SETTINGS) < set(re.findall(r"(?:^|\s)(\w+)=", settings))
        begin = [settings, *(f"{name}={value}" for name, value in _SETTINGS.items()), setting_up]
        self._shell([*begin, *blocks[:2]])
        assert "plan_and_preprocess" in blocks[1]
        _turn(self.new / f"{HELD_OUT}_z01_0000.nii.gz")
        self.environment["nnUNet_n_proc_DA"] = "0"
        self._shell([*begin, *blocks[2:]])

    def _shell(self, blocks: list[str]) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
            cwd=self.root.parent, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            timeout=1800, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:]

    def stock(self, program: str, *arguments: object) -> str:
        """Run a command of nnU-Net's in this process, its pools as threads; return what it printed.

        Processes would import torch for seconds each. The page itself is walked with real ones.
        """
        (script,) = importlib.metadata.entry_points(group="console_scripts", name=program)
        with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            patch.setattr(multiprocessing, "get_context", lambda method: multiprocessing.dummy)
            # nnU-Net takes all cores, and threads that wait actively for each other crawl when the machine is shared.
            patch.setattr(torch, "set_num_threads", lambda number: None)
            patch.setattr(sys, "argv", [program, *map(str, arguments)])
            script.load()()
        return printed.getvalue()

    def train(self, configuration: str, trainer: str, fold: int, *arguments: str) -> str:
        """Run nnU-Net's training; return what it printed."""
        options = ("-p", PLANS, "-device", "cpu", *arguments)
        return self.stock("nnUNetv2_train", DATASET, configuration, fold, "-tr", trainer, *options)


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


def check_grids(images: Path, masks: Path) -> None:
    """Assert that there is a mask of every image, on its grid."""
    sources, found = mask_paths(images), mask_paths(masks)
    assert [path.name.replace("_0000", "") for path in sources] == [path.name for path in found]
    for source, mask in zip(map(grid, sources), map(grid, found), strict=True):
        assert mask["size"] == source["size"]
        for name in ("spacing", "origin", "direction"):
            np.testing.assert_allclose(mask[name], source[name], atol=1e-6)


def _turn(path: Path) -> None:
    """Put a sequence on a grid that is shifted and turned in plane."""
    image = SimpleITK.ReadImage(path)
    cosine, sine = np.cos(0.5), np.sin(0.5)
    image.SetOrigin((12.5, -31.0, 4.0))
    image.SetDirection((cosine, -sine, 0, sine, cosine, 0, 0, 0, 1))
    SimpleITK.WriteImage(image, path)
