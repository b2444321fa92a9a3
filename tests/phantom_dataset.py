"""A beating disc as a raw dataset, and trainers on it, shared by tests. Not a test."""

import contextlib
import io
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_temporal.cli import main
from nnunet_temporal.datasets.image_io import Spacing
from nnunet_temporal.datasets.raw_writer import DatasetInfo, write_raw_dataset
from nnunet_temporal.datasets.study_source import StudySource

LABELS = {"background": 0, "LV": 1, "MYO": 2, "ignore": 3}
INFO = DatasetInfo(777, "Phantom", LABELS, "cineMRI")
HELD_OUT = "study_x"
PLANS = "nnUNetTemporalLightPlans"
# Study: (frames, slices that have masks); one study is shorter than a clip, one slice has no mask.
STUDIES = {
    "study_a": (8, (0, 1)),
    "study_b": (6, (0, 1)),
    "study_c": (3, (0, 1)),
    "study_d": (8, (0,)),
    HELD_OUT: (8, (0, 1)),
}
HEIGHT, WIDTH, SLICES = 40, 36, 2


@dataclass(frozen=True)
class Phantom:
    """Where the phantom lies in nnU-Net's folders, and what planning printed."""

    raw: Path
    preprocessed: Path
    results: Path
    printed: str

    def plans(self, name: str = PLANS) -> dict:
        """Read plans."""
        return json.loads((self.preprocessed / f"{name}.json").read_text())

    def splits(self) -> list[dict[str, list[str]]]:
        """Read the splits that training uses."""
        return json.loads((self.preprocessed / "splits_final.json").read_text())


def movie(frames: int, seed: int) -> np.ndarray:
    """Return a noisy disc in a ring (T, Z, Y, X) that contracts in mid-sequence."""
    noise = np.random.default_rng(seed).normal(0, 3, (frames, SLICES, HEIGHT, WIDTH))
    return (100 + 50 * (masks(frames) == 1) - 40 * (masks(frames) == 2) + noise).astype(np.float32)


def masks(frames: int) -> np.ndarray:
    """Return its labels (T, Z, Y, X), every frame labelled: 1 the disc, 2 the ring around it."""
    radius = 8 - 3 * np.sin(np.pi * np.arange(frames) / frames)[:, None, None, None] - np.arange(SLICES)[:, None, None]
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = np.hypot(y - HEIGHT / 2, x - WIDTH / 2)
    return (2 * (distance < radius + 3) - (distance < radius)).astype(np.uint8)


def sparse_masks(frames: int, labelled_slices: tuple[int, ...]) -> np.ndarray:
    """Return labels (T, Z, Y, X) of end diastole and end systole only, the rest ignored."""
    sparse = np.full((frames, SLICES, HEIGHT, WIDTH), LABELS["ignore"], np.uint8)
    for z in labelled_slices:
        sparse[[0, frames // 2], z] = masks(frames)[[0, frames // 2], z]
    return sparse


def write_phantom(nnunet_raw: Path) -> Path:
    """Write the raw dataset; in-plane spacings differ, so that preprocessing has to resample."""
    sources = [
        StudySource(
            study, partial(movie, frames, seed), partial(sparse_masks, frames, labelled),
            Spacing((1.25 + 0.25 * (seed == 1), 1.25), slice_mm=8.0), ed=0, es=frames // 2, cyclic=True,
        )
        for seed, (study, (frames, labelled)) in enumerate(STUDIES.items())
    ]  # fmt: skip
    return write_raw_dataset(sources, INFO, nnunet_raw, held_out=[HELD_OUT]).folder


def plan_phantom(*arguments: str) -> tuple[int, str]:
    """Run ``plan_and_preprocess`` on the phantom in this process; return exit code and what it printed.

    nnU-Net's planning takes nnUNet_n_proc_DA for a number of threads: it must not be 0 then.
    """
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        code = main(["plan_and_preprocess", "-d", "777", "-npfp", "1", "-np", "1", "--no_pbar", *arguments])
    return code, printed.getvalue()


def make_trainer(
    trainer: type[nnUNetTrainer], phantom: Phantom, configuration: str = "2dt", fold: int | str = 0, **temporal: object
) -> nnUNetTrainer:
    """Construct a trainer as ``nnUNetv2_train`` does; ``temporal`` replaces entries of the plans."""
    plans = phantom.plans()
    plans["continue_training"] = False
    plans["configurations"]["2dt"]["temporal"].update(temporal)
    dataset_json = json.loads((phantom.preprocessed / "dataset.json").read_text())
    with contextlib.redirect_stdout(io.StringIO()):
        return trainer(plans, configuration, fold, dataset_json, torch.device("cpu"))
