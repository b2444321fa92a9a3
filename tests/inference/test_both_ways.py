"""Both ways, a sequence gets the mean of what it gets forwards and what it gets turned round."""

import contextlib
import gc
import tempfile
import tracemalloc

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import movie
from trained_models import write_model

from nnunet_temporal.inference import both_ways, sequence_predictor
from nnunet_temporal.inference.logits_file import LogitsFile
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.mssnet import nnUNetTrainerMSSNetSupervised
from nnunet_temporal.trainers.ncmnet import nnUNetTrainerNCMNetSupervised

PIXEL_MM = (1.5, 1.25)

pytestmark = pytest.mark.usefixtures("findable_trainers")


def sequence(frames: int = 21) -> np.ndarray:
    """Return a slice of the phantom (1, T, Y, X) that begins with a black frame and has another in it."""
    image = movie(frames, seed=4)[None, :, 0]
    image[:, [0, 6]] = 0
    return image


def logits(predictor, image):
    """Return the logits (K, T, Y, X) of a sequence on the networks' grid, zero where it has none."""
    prepared = predictor.prepare(image, PIXEL_MM)
    labels = predictor.model.labels
    whole = np.zeros((labels.num_segmentation_heads, image.shape[1], *prepared.preparation.network_size), np.float32)
    with torch.inference_mode():
        for index, part in predictor._logits(prepared, StageClock()):
            whole[:, index] = part
    return whole


def mean_logits(model, image):
    """Return the same both ways, as the predictor uses them."""
    predictor, found = SequencePredictor(model, both_ways=True), {}
    prepared = predictor.prepare(image, PIXEL_MM)
    with torch.inference_mode():
        run = lambda turned: predictor._logits(turned, StageClock())  # noqa: E731
        for index, part in both_ways.average_both_ways(run, prepared, StageClock()):
            found |= dict(zip(index.tolist(), part.unbind(1), strict=True))
    return found


@pytest.mark.parametrize(
    ("trainer", "stride", "masked"),
    [
        (nnUNetTrainerGDKVM, 1, False),
        (nnUNetTrainerMSSNetSupervised, 2, True),
        (nnUNetTrainerNCMNetSupervised, 1, True),
        (nnUNetTrainerNCMNetSupervised, 3, False),
        (nnUNetTrainerCSTM, 2, False),
    ],
)
def test_logits_are_the_mean_of_those_of_the_sequence_and_of_the_sequence_turned_round(
    trainer, stride, masked, tmp_path
):
    folder = write_model(tmp_path, trainer, frame_stride=stride, use_mask_for_norm=[masked])
    model, image = TrainedModel.read(folder), sequence()
    predictor = SequencePredictor(model)
    forwards, backwards = logits(predictor, image), logits(predictor, image[:, ::-1])[:, ::-1]
    assert np.abs(forwards - backwards).max() > 0.01
    found = mean_logits(model, image)
    assert set(found) == set(range(21)) - ({0, 6} if masked else {0})
    for t, frame in found.items():
        np.testing.assert_allclose(frame, (forwards[:, t] + backwards[:, t]) / 2, atol=1e-4)


def test_masks_and_probabilities_are_made_of_the_mean_logits(tmp_path):
    model, image = TrainedModel.read(write_model(tmp_path, nnUNetTrainerGDKVM)), sequence()
    plain, both = (
        SequencePredictor(model, both_ways=ways).predict(image, (1.25, 1.25), with_probabilities=True)
        for ways in (False, True)
    )
    turned = SequencePredictor(model).predict(image[:, ::-1], (1.25, 1.25), with_probabilities=True)
    # The softmax of mean logits is the normalised geometric mean of both softmaxes.
    expected = np.sqrt(plain.probabilities * turned.probabilities[:, ::-1])
    np.testing.assert_allclose(both.probabilities, expected / expected.sum(0), atol=1e-4)
    np.testing.assert_array_equal(both.masks[1:], both.probabilities.argmax(0)[1:])
    assert (both.masks != plain.masks).any()


def test_a_2d_model_gives_the_same_both_ways(tmp_path):
    model = TrainedModel.read(write_model(tmp_path, nnUNetTrainer, "2d"))
    one, both = (SequencePredictor(model, both_ways=ways).predict(sequence(), PIXEL_MM).masks for ways in (False, True))
    assert np.mean(one != both) < 1e-3


@pytest.mark.parametrize("fails", [False, True])
def test_no_file_is_left_even_by_a_prediction_that_fails(fails, tmp_path, monkeypatch):
    folder, scratch = write_model(tmp_path / "model", nnUNetTrainerGDKVM), tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    files, opened = [], tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: files.append(opened()) or files[-1])
    if fails:
        monkeypatch.setattr(sequence_predictor, "to_labels", lambda *_: 1 / 0)
    predictor = SequencePredictor.from_model_folder(folder, both_ways=True)
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        predictor.predict(sequence(), PIXEL_MM)
    gc.collect()
    assert len(files) == 1 and files[0].closed
    assert not list(scratch.iterdir())


def test_memory_does_not_grow_with_the_number_of_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(sequence_predictor, "_KEPT_MB", 0.4)
    folder = write_model(tmp_path, nnUNetTrainerGDKVM)
    predictor = SequencePredictor.from_model_folder(folder, both_ways=True)
    written, tensors, arrays = LogitsFile.write, [], {}

    def counted(file, index, logits):
        if index[-1] == 0:  # the last frames of the first pass
            tensors.append(sum(thing.nbytes for thing in gc.get_objects() if type(thing) is torch.Tensor))
        written(file, index, logits)

    monkeypatch.setattr(LogitsFile, "write", counted)
    for frames in (40, 120):  # so many chunks of 8 that either number is odd
        image = np.tile(np.rint(movie(10, 4)[None, :, 0]).astype(np.uint8), (1, frames // 10, 1, 1))
        tracemalloc.start()
        masks = predictor.predict(image, (1.25, 1.25)).masks
        arrays[frames] = tracemalloc.get_traced_memory()[1] - masks.nbytes
        tracemalloc.stop()
    assert arrays[120] < 1.05 * arrays[40]
    assert len(tensors) == 2 and tensors[1] < 1.05 * tensors[0]


def test_a_stream_cannot_look_both_ways(tmp_path):
    folder = write_model(tmp_path, nnUNetTrainer, "2d")
    predictor = SequencePredictor.from_model_folder(folder, both_ways=True)
    with pytest.raises(ValueError, match="no last frame"):
        predictor.stream(PIXEL_MM, warm_up=sequence())
