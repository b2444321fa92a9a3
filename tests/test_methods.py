"""Every method, trained and applied by nnU-Net's commands on data laid out as ACDC and on a phantom of echo.

``nnUNetv2_train`` with its validation and ``nnUNetv2_predict`` run as processes for each method on both data, because
finding a trainer by name, saving it and building its network again to predict are what differs between methods. What
does not is held once, by ``test_pipeline.py``: so images are prepared and masks written in the process that
predicts. Resuming, and labels that are regions, are tested in this process.
"""

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from acdc_layout import draw_patient
from challenge_road import grid, mask_paths, pixels
from command_workspace import ON_CPU, Workspace
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from phantom_dataset import PLANS, Phantom, make_trainer

from nnunet_temporal.trainers.temporal_trainer import nnUNetTrainerTemporal
from nnunet_temporal.trainers.variants import METHODS, SEMI_SUPERVISED, VARIANTS

pytestmark = pytest.mark.slow

NUMBER, FOLD, SIZE = 801, 0, 40
SUPERVISED = [f"{method.__name__}_10iterations" for method in METHODS]
TRAINERS = [*SUPERVISED, *(f"{method.__name__}_10iterations" for method in SEMI_SUPERVISED)]
REGIONS = {"background": 0, "epicardium": [1, 2], "LV": [1], "ignore": 3}


def write_acdc(work: Workspace) -> None:
    """Convert three patients for training and one for testing."""
    database = work.root / "database"
    for seed, patient in enumerate(("training/patient001", "training/patient002", "training/patient003")):
        draw_patient(database / patient, seed, SIZE)
    draw_patient(database / "testing/patient101", 3, SIZE)
    work.run("nnunet_temporal", "convert", "acdc", "-i", database, "-d", NUMBER, "--name", "Beating")


def write_echo(work: Workspace) -> None:
    """Draw two views of three hearts for training and of one for testing, of two beats and no whole number of them."""
    hearts = ("--modality", "echo", "-n", 3, "--test", 1, "--size", SIZE)
    beats = ("--frames-per-cycle", "8-10", "--beats", "1.6-2.4", "--jitter", 0.1)
    work.run("nnunet_temporal", "phantom", "-d", NUMBER, "--name", "Beating", *hearts, *beats)


DATA: dict[str, Callable[[Workspace], None]] = {"acdc": write_acdc, "echo": write_echo}


@dataclass(frozen=True)
class Model:
    """What the commands have written about one method on one set of data."""

    work: Workspace
    fold: Path
    masks: Path

    @property
    def images(self) -> Path:
        """The new sequences."""
        return self.work.raw / "imagesTs"

    def legal_labels(self) -> set[int]:
        """Return the values a mask may have."""
        labels = json.loads((self.work.raw / "dataset.json").read_text())["labels"]
        return {value for name, value in labels.items() if name != "ignore"}


def prepare(root: Path, data: str) -> Workspace:
    """Write a dataset, plan and preprocess it."""
    # Planning takes this for a number of threads; training would start as many processes.
    work = Workspace(root, f"Dataset{NUMBER}_Beating", nnUNet_n_proc_DA="1")
    DATA[data](work)
    work.run(
        "nnunet_temporal", "plan_and_preprocess", "-d", NUMBER, "-pl", "LightTemporalPlanner", "-npfp", 1, "-np", 1
    )
    work.environment["nnUNet_n_proc_DA"] = "0"
    return work


def train_and_predict(work: Workspace, trainer: str) -> Model:
    """Train and validate one fold of a method, and segment the new sequences, with nothing but their images."""
    model = Model(work, work.results / f"{trainer}__{PLANS}__2dt" / f"fold_{FOLD}", work.root / f"masks_{trainer}")
    work.run("nnUNetv2_train", NUMBER, "2dt", FOLD, "-tr", trainer, "-p", PLANS, *ON_CPU)
    chosen = ("-d", NUMBER, "-c", "2dt", "-f", FOLD, "-tr", trainer, "-p", PLANS)
    options = ("-npp", 0, "-nps", 0, "--save_probabilities", *ON_CPU)
    work.run("nnUNetv2_predict", "-i", model.images, "-o", model.masks, *chosen, *options)
    return model


@pytest.fixture(scope="module")
def works(tmp_path_factory) -> dict[str, Workspace]:
    """Write both data, plan and preprocess them."""
    root = tmp_path_factory.mktemp("methods")
    return {data: prepare(root / data, data) for data in DATA}


@pytest.fixture(scope="module", params=[(data, trainer) for trainer in TRAINERS for data in DATA], ids="-".join)
def model(works, request) -> Model:
    """Train one method on one set of data, and predict."""
    data, trainer = request.param
    return train_and_predict(works[data], trainer)


def probabilities_beside(mask: Path) -> np.ndarray:
    """Return the probabilities (K, T, Y, X) of a mask."""
    return np.load(mask.with_name(mask.name.replace(".nii.gz", ".npz")))["probabilities"]


def test_training_ends_with_finite_losses_and_weights(model):
    (log,) = model.fold.glob("training_log_*.txt")
    losses = re.findall(r"(?:train|val)_loss (\S+)", log.read_text())
    assert len(losses) == 2
    assert np.isfinite([float(loss) for loss in losses]).all()
    weights = torch.load(model.fold / "checkpoint_final.pth", weights_only=False)["network_weights"]
    assert all(weight.isfinite().all() for weight in weights.values())


def test_the_fold_is_validated_after_training(model):
    held_out = json.loads((model.work.preprocessed / "splits_final.json").read_text())[FOLD]["val"]
    assert len(held_out) == 2
    validation = model.fold / "validation"
    assert [path.name for path in mask_paths(validation)] == [f"{case}.nii.gz" for case in sorted(held_out)]
    assert 0 <= json.loads((validation / "summary.json").read_text())["foreground_mean"]["Dice"] <= 1


def test_every_frame_of_a_new_sequence_is_predicted_on_its_grid(model):
    images, masks = mask_paths(model.images), mask_paths(model.masks)
    assert len(images) == 2
    assert [path.name.replace("_0000", "") for path in images] == [path.name for path in masks]
    for image, mask in zip(images, masks, strict=True):
        expected, found = grid(image), grid(mask)
        assert found["size"] == expected["size"]
        for name in ("spacing", "origin", "direction"):
            np.testing.assert_allclose(found[name], expected[name], atol=1e-6)


def test_masks_are_legal_labels_by_finite_probabilities(model):
    labels = model.legal_labels()
    for path in mask_paths(model.masks):
        mask, probabilities = pixels(path), probabilities_beside(path)
        assert set(np.unique(mask).tolist()) <= labels
        assert probabilities.shape == (len(labels), *mask.shape)
        # NaN would pass for background in the mask.
        assert np.isfinite(probabilities).all()
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-3)
        # A frame that no window covers would be flat.
        assert (probabilities.std(axis=(2, 3)) > 0).all()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Drop what nnU-Net prints."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def short_trainer(phantom: Phantom, name: str) -> nnUNetTrainerTemporal:
    """Return a trainer of a single step."""
    with quietly():
        trainer = make_trainer(VARIANTS[name], phantom)
    trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 1
    return trainer


# What trainers with a teacher resume from is held by test_semi_supervised_resume.py.
@pytest.mark.parametrize("name", SUPERVISED)
def test_a_resumed_training_takes_the_step_that_an_unbroken_one_takes(phantom, name):
    trainer, resumed = (short_trainer(phantom, name) for _ in range(2))
    with quietly():
        trainer.run_training()
        resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
        batch = next(resumed.get_dataloaders()[0])
    assert resumed.current_epoch == trainer.current_epoch == 1
    trainer.network.train()
    losses = [float(each.train_step(batch)["loss"]) for each in (trainer, resumed)]
    assert np.isfinite(losses[0]) and losses[0] == losses[1]
    for unbroken, weight in zip(trainer.network.parameters(), resumed.network.parameters(), strict=True):
        assert torch.equal(unbroken, weight)


@pytest.mark.parametrize("name", TRAINERS)
def test_labels_that_are_regions_are_trained_and_predicted(phantom, findable_trainers, tmp_path, name):
    file = phantom.preprocessed / "dataset.json"
    described = {**json.loads(file.read_text()), "labels": REGIONS, "regions_class_order": [2, 1]}
    file.write_text(json.dumps(described))
    trainer, masks = short_trainer(phantom, name), tmp_path / "masks"
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    masks.mkdir()
    with quietly():
        trainer.run_training()
        assert np.isfinite(trainer.logger.get_value("train_losses", step=-1))
        predictor.initialize_from_trained_model_folder(trainer.output_folder_base, (0,))
        predictor.predict_from_files_sequential(str(phantom.raw / "imagesTs"), str(masks), save_probabilities=True)
    assert len(mask_paths(masks)) == 2
    for path in mask_paths(masks):
        mask = pixels(path)
        regions = probabilities_beside(path)
        assert regions.shape == (2, 8, 40, 36) and np.isfinite(regions).all()
        # Regions are painted in the order of regions_class_order: 2 for the outer one, then 1 inside it.
        np.testing.assert_array_equal(mask, np.where(regions[1] > 0.5, 1, np.where(regions[0] > 0.5, 2, 0)))
