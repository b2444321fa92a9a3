"""A stock 2D model of the phantom as nnU-Net leaves it, untrained but with weights of its own. Not a test."""

import contextlib
import io
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import PLANS, Phantom

INFLATED = "nnUNetTemporalInflatedPlans"
TRAINER = "nnUNetTrainerGDKVM_10iterations"


def residual(plans: dict[str, Any]) -> dict[str, Any]:
    """Return plans whose 2D network has a residual encoder."""
    plans = deepcopy(plans)
    architecture = plans["configurations"]["2d"]["architecture"]
    architecture["network_class_name"] = "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet"
    arguments = architecture["arch_kwargs"]
    arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
    return plans


def stock_plans(phantom: Phantom) -> dict[str, Any]:
    """Return the phantom's plans as nnU-Net's own planner would write them: without 2dt, and separate along z."""
    plans = phantom.plans()
    plans["configurations"] = {"2d": plans["configurations"]["2d"]}
    for key in ("resampling_fn_data_kwargs", "resampling_fn_seg_kwargs", "resampling_fn_probabilities_kwargs"):
        plans["configurations"]["2d"][key]["force_separate_z"] = None
    return plans


def write_stock_model(
    phantom: Phantom,
    plans: dict[str, Any] | None = None,
    folds: tuple[int | str, ...] = (0,),
    *,
    weights: bool = True,
    prefix: str = "",
) -> Path:
    """Write the folder of a model with one checkpoint per fold, and the names of its validated cases.

    Args:
        phantom: The dataset it claims to be trained on.
        plans: Its plans; None takes the phantom's, as of nnU-Net's own planner.
        folds: Its folds.
        weights: Whether the checkpoints hold weights, or are empty files for tests that never read them.
        prefix: Put before the names of the weights, as torch.compile does.
    """
    plans = plans or stock_plans(phantom)
    folder = phantom.results / f"nnUNetTrainer__{PLANS}__2d"
    dataset = json.loads((phantom.preprocessed / "dataset.json").read_text())
    for fold in folds:
        validation = folder / f"fold_{fold}" / "validation"
        validation.mkdir(parents=True)
        for case in phantom.splits()[fold]["val"] if isinstance(fold, int) else ():
            (validation / f"{case}.nii.gz").touch()
        file = validation.parent / "checkpoint_final.pth"
        if weights:
            _write_checkpoint(file, plans, fold, dataset, prefix)
        else:
            file.touch()
    (folder / "plans.json").write_text(json.dumps(plans))
    (folder / "dataset.json").write_text(json.dumps(dataset))
    return folder


def _write_checkpoint(file: Path, plans: dict[str, Any], fold: int | str, dataset: dict[str, Any], prefix: str) -> None:
    arguments = ({**plans, "continue_training": False}, "2d", fold, dataset, torch.device("cpu"))
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = nnUNetTrainer(*arguments)
        trainer.initialize()
    trainer.save_checkpoint(str(file))
    checkpoint = torch.load(file, weights_only=False)
    checkpoint["network_weights"] = {prefix + name: value for name, value in checkpoint["network_weights"].items()}
    torch.save(checkpoint, file)
