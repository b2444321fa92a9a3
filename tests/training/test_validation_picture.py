"""The sheet at the end of a validation: on preprocessed data, by the first process alone, and never at its cost."""

import multiprocessing
import multiprocessing.dummy
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from nnunetv2.evaluation.evaluate_predictions import compute_metrics_on_folder
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import LABELS, make_trainer
from PIL import Image

from nnunet_temporal.report.validated_sequences import ValidatedSequence, read_sequence
from nnunet_temporal.trainers.variants import VARIANTS
from nnunet_temporal.training import validation_picture


@pytest.fixture
def trainer(phantom, monkeypatch):
    """Make a trainer whose validation, nnU-Net's part of it, writes the expert's masks, background elsewhere."""
    made = make_trainer(VARIANTS["nnUNetTrainerGDKVM_10iterations"], phantom)
    made.dataset_class = infer_dataset_class(made.preprocessed_dataset_folder)
    masks, references = (Path(made.output_folder) / "validation", phantom.preprocessed / "gt_segmentations")
    made.logged = []
    monkeypatch.setattr(made, "print_to_log_file", lambda *texts, **_: made.logged.append(" ".join(map(str, texts))))

    def validate(self, save_probabilities=False):
        masks.mkdir(exist_ok=True)
        for case in phantom.splits()[0]["val"]:
            reference = SimpleITK.ReadImage(str(references / f"{case}.nii.gz"))
            labels = SimpleITK.GetArrayFromImage(reference)
            mask = SimpleITK.GetImageFromArray(np.where(labels == LABELS["ignore"], 0, labels).astype(np.uint8))
            mask.CopyInformation(reference)
            SimpleITK.WriteImage(mask, str(masks / f"{case}.nii.gz"))
        reader = self.plans_manager.image_reader_writer_class()
        summary = str(masks / "summary.json")
        # Threads for nnU-Net's pool: spawned processes would import torch for seconds each.
        with monkeypatch.context() as patch:
            patch.setattr(multiprocessing, "get_context", lambda method: multiprocessing.dummy)
            compute_metrics_on_folder(str(references), str(masks), summary, reader, ".nii.gz", [1, 2], 3, 1)

    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", validate)
    return made


def sheet_of(trainer):
    return Path(trainer.output_folder) / "validation_sheet.png"


def test_a_validation_ends_with_a_sheet_beside_the_masks(trainer, phantom):
    trainer.perform_actual_validation()
    with Image.open(sheet_of(trainer)) as picture:
        assert picture.size == (1600, 76 + 316 * min(3, len(phantom.splits()[0]["val"])))
    assert not trainer.logged


def test_the_preprocessed_image_lies_under_its_masks(trainer, monkeypatch):
    seen = []
    draw = validation_picture.write_validation_sheet

    def remember(validation, path, title):
        seen.append(validation)
        return draw(validation, path, title)

    monkeypatch.setattr(validation_picture, "write_validation_sheet", remember)
    trainer.perform_actual_validation()
    (validation,) = seen
    for case in validation.sequences:
        if (validation.masks / f"{case}.nii.gz").is_file():
            sequence = read_sequence(validation, case, {})
            drawn = sequence.expert("LV")[sequence.labelled_frames]
            image = on_the_masks(sequence)[sequence.labelled_frames]
            # In the phantom the ventricle is the brightest, its wall the darkest.
            ring = sequence.expert("MYO")[sequence.labelled_frames]
            assert image[drawn].mean() > image[~drawn & ~ring].mean() + 1 > image[ring].mean() + 1


def on_the_masks(sequence: ValidatedSequence) -> np.ndarray:
    """Return the image (T, Y, X) at the pixels of the masks, the nearest value each."""
    frames, rows, columns = sequence.box
    places = [
        np.minimum(((np.arange(part.stop - part.start) + 0.5) * size / (part.stop - part.start)).astype(int), size - 1)
        for part, size in zip((rows, columns), sequence.image.shape[1:], strict=True)
    ]
    image = np.full(sequence.prediction.shape, sequence.image.min())
    image[frames, rows, columns] = sequence.image[:, places[0][:, None], places[1]]
    return image


def test_only_the_first_process_draws(trainer):
    trainer.local_rank = 1
    trainer.perform_actual_validation()
    assert not sheet_of(trainer).exists()


def test_a_sheet_that_cannot_be_drawn_is_reported_and_the_validation_stands(trainer, phantom):
    trainer.perform_actual_validation()
    shutil.rmtree(trainer.preprocessed_dataset_folder)
    trainer.perform_actual_validation()
    (line,) = trainer.logged
    assert line.startswith("WARNING! validation_sheet.png was not drawn; the validation itself is complete. ")
    assert "No such file" in line
    assert not sheet_of(trainer).exists()
    assert (Path(trainer.output_folder) / "validation" / "summary.json").is_file()


def test_a_mistake_in_the_drawing_is_not_hidden(trainer, monkeypatch):
    def mistaken(*_):
        raise TypeError("a mistake")

    monkeypatch.setattr(validation_picture, "write_validation_sheet", mistaken)
    with pytest.raises(TypeError, match="a mistake"):
        trainer.perform_actual_validation()


def test_what_is_left_out_is_named(trainer, monkeypatch):
    monkeypatch.setattr(validation_picture, "write_validation_sheet", lambda *_: ["study_a_z00", "study_b_z01"])
    trainer.perform_actual_validation()
    assert trainer.logged == [
        "validation_sheet.png leaves out sequences with no structure in truth or prediction: study_a_z00, study_b_z01"
    ]
