"""What benchmarks share: trainings of a given length without checkpoints, and predictions with their result."""

from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from batchgenerators.utilities.file_and_folder_operations import load_json
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

from nnunet_temporal.cli import main as nnunet_temporal
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.plans import TEMPORAL_CONFIGURATION

STOCK_TRAINER = "nnUNetTrainer"
EPOCHS = 20
SMOOTH_FRAMES = 7

Predictor: TypeAlias = nnUNetPredictor | SequencePredictor


def run_command(words: list[str]) -> None:
    """Run a command of ``nnunet_temporal`` in this process; end the benchmark if it fails."""
    if nnunet_temporal(words) != 0:
        raise SystemExit(f"nnunet_temporal {' '.join(words)} failed; see its message above")


def build_trainer(
    name: str,
    plans_file: Path,
    steps: int,
    seed: int,
    device: torch.device,
    *,
    fold: int | str = "all",
    **temporal: object,
) -> nnUNetTrainer:
    """Instantiate a trainer of a fold that runs ``steps`` steps in ``EPOCHS`` epochs and writes no checkpoints.

    The stock trainer gets configuration 2d, every other one the temporal configuration, whose temporal entries
    ``temporal`` replaces.
    """
    trainer_class = recursive_find_trainer_class_by_name(name)
    plans = {**load_json(str(plans_file)), "continue_training": False}
    configuration = "2d" if name == STOCK_TRAINER else TEMPORAL_CONFIGURATION
    if configuration != "2d":
        plans["configurations"][configuration]["temporal"].update(temporal, seed=seed)
    torch.manual_seed(seed)
    np.random.seed(seed)
    trainer = trainer_class(plans, configuration, fold, load_json(str(plans_file.parent / "dataset.json")), device)
    set_length(trainer, steps)
    trainer.disable_checkpointing = True
    return trainer


def set_length(trainer: nnUNetTrainer, steps: int) -> None:
    """Have a trainer run ``steps`` steps in ``EPOCHS`` epochs."""
    trainer.num_epochs, trainer.num_iterations_per_epoch = EPOCHS, max(1, steps // EPOCHS)
    trainer.num_val_iterations_per_epoch = 1


def trained_model(trainer: nnUNetTrainer) -> TrainedModel:
    """Return what our own predictors need of a trainer whose network is trained."""
    trainer.set_deep_supervision_enabled(False)
    return TrainedModel(
        trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json, trainer.label_manager,
        (trainer.network.eval(),), (),
    )  # fmt: skip


def predictor_of(trainer: nnUNetTrainer) -> nnUNetPredictor:
    """Return nnU-Net's own predictor with a trained network, without test-time augmentation."""
    trainer.set_deep_supervision_enabled(False)
    predictor = nnUNetPredictor(
        use_mirroring=False, device=trainer.device, perform_everything_on_device=True, allow_tqdm=False
    )
    predictor.manual_initialization(
        trainer.network, trainer.plans_manager, trainer.configuration_manager,
        [trainer.network.state_dict()], trainer.dataset_json, type(trainer).__name__, None,
    )  # fmt: skip
    return predictor


def smoothing_predictor_of(trainer: nnUNetTrainer) -> SequencePredictor:
    """Return our predictor with a trained network, which smooths logits over ``SMOOTH_FRAMES``."""
    return SequencePredictor(trained_model(trainer), trainer.device, smooth_frames=SMOOTH_FRAMES)


def smoothed(name: str) -> str:
    """Name the arm of a table whose logits are smoothed along time."""
    return f"{name}, smoothed"


def predict_case(predictor: Predictor, case: str, images: Path) -> np.ndarray:
    """Predict the sequence of a raw images folder: (T, Y, X) label map."""
    image, properties = SimpleITKIO().read_images([str(images / f"{case}_0000.nii.gz")])
    if isinstance(predictor, SequencePredictor):
        return predictor.predict(image, properties["spacing"][1:]).masks
    return predictor.predict_single_npy_array(image, properties)
