"""Logits smoothed along time: as the filter of Savitzky and Golay says, whatever the order frames come in."""

import contextlib
import gc
import tempfile

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import movie
from scipy.signal import savgol_filter
from scipy.special import softmax
from trained_models import write_model

from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.pipeline import StageClock
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.inference.smoothing import smooth_over_time, smoothing_weights
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

PIXEL_MM = (1.25, 1.25)

pytestmark = pytest.mark.usefixtures("findable_trainers")


def smoothed(values, times, frames):
    """Smooth a series (N,) at once."""
    around, weights = smoothing_weights(np.asarray(times), np.arange(len(times)), frames)
    assert around.tolist() == list(range(len(times)))
    return weights @ values


def run_on(values, order=None, chunk=3):
    """Return a pass that yields a series (N,) as logits of one pixel, frames in some order and so many at a time."""
    order = np.arange(len(values)) if order is None else np.asarray(order)

    def run(sequence):
        for at in range(0, len(order), chunk):
            index = order[at : at + chunk]
            yield index, torch.as_tensor(values[index], dtype=torch.float32)[None, :, None, None]

    return run


def answers(run, frames):
    """Return {frame: smoothed value} of a pass on one pixel."""
    found = {}
    for index, logits in smooth_over_time(run, None, frames, StageClock()):
        assert logits.dtype == torch.float32
        found |= dict(zip(index.tolist(), logits[0, :, 0, 0].tolist(), strict=True))
    return found


@pytest.mark.parametrize("frames", [5, 7, 11])
@pytest.mark.parametrize("count", [11, 12, 40])
def test_the_weights_are_those_of_the_filter_of_savitzky_and_golay(count, frames):
    values = np.random.default_rng(0).normal(size=count)
    expected = savgol_filter(values, frames, 2, mode="interp")
    np.testing.assert_allclose(smoothed(values, range(count), frames), expected, atol=1e-12)


def test_a_parabola_stays_what_it_is_even_where_frames_are_missing():
    times = np.array([0, 1, 2, 5, 6, 7, 8, 11, 12])
    values = 3.0 - 0.5 * times + 0.25 * times**2
    np.testing.assert_allclose(smoothed(values, times, 5), values, atol=1e-10)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_too_few_frames_for_a_parabola_stay_what_they_are(count):
    values = np.array([2.0, -1.0, 4.0])[:count]
    np.testing.assert_allclose(smoothed(values, range(count), 7), values, atol=1e-10)


def test_what_one_frame_does_alone_is_taken_back_and_a_turn_of_the_heart_is_not():
    slip = np.full(21, 4.0)
    slip[10] = -4.0
    assert (smoothed(slip, range(21), 7) > 0).all()
    beat = 3 * np.cos(2 * np.pi * np.arange(21) / 20)
    assert smoothed(beat, range(21), 7)[10] == pytest.approx(-3, abs=0.1)


@pytest.mark.parametrize("order", [range(37), [*range(0, 37, 2), *range(1, 37, 2)], range(36, -1, -1)])
def test_frames_may_come_in_any_order_and_leave_in_their_own(order):
    values = np.random.default_rng(1).normal(size=37)
    found = answers(run_on(values, order), 7)
    assert list(found) == list(range(37))
    np.testing.assert_allclose(list(found.values()), savgol_filter(values, 7, 2), atol=1e-5)


def test_frames_without_logits_get_none():
    values = np.random.default_rng(2).normal(size=12)
    known = np.array([1, 2, 3, 5, 6, 8, 9, 10])
    found = answers(run_on(values, known), 5)
    np.testing.assert_allclose([found[t] for t in known], smoothed(values[known], known, 5), atol=1e-5)
    assert len(found) == len(known)
    assert answers(run_on(values, []), 5) == {}


@pytest.mark.parametrize("both_ways", [False, True])
def test_masks_and_probabilities_are_made_of_the_smooth_logits(both_ways, tmp_path):
    model = TrainedModel.read(write_model(tmp_path, nnUNetTrainerGDKVM, frame_stride=2))
    image = movie(21, seed=4)[None, :, 0]
    options = {"both_ways": both_ways}
    plain = SequencePredictor(model, **options).predict(image, PIXEL_MM, with_probabilities=True)
    found = SequencePredictor(model, smooth_frames=7, **options).predict(image, PIXEL_MM, with_probabilities=True)
    # The grid is the network's, so that logits are logarithms of probabilities but for a constant of each pixel.
    expected = softmax(savgol_filter(np.log(plain.probabilities.astype(np.float64)), 7, 2, axis=1), axis=0)
    np.testing.assert_allclose(found.probabilities, expected, atol=1e-3)
    np.testing.assert_array_equal(found.masks, found.probabilities.argmax(0))
    assert (found.masks != plain.masks).any()


def test_masks_of_single_frames_flicker_less(tmp_path):
    model = TrainedModel.read(write_model(tmp_path, nnUNetTrainer, "2d"))
    image = movie(30, seed=4)[None, :, 0]
    image = image + np.random.default_rng(0).normal(scale=0.2 * image.std(), size=image.shape)
    turns = [
        np.mean(np.diff((SequencePredictor(model, smooth_frames=frames).predict(image, PIXEL_MM).masks == 1), axis=0))
        for frames in (None, 5, 9)
    ]
    assert turns[0] > 1.2 * turns[1] > 1.2**2 * turns[2] > 0


@pytest.mark.parametrize("fails", [False, True])
def test_no_file_is_left_even_by_a_prediction_that_fails(fails, tmp_path, monkeypatch):
    folder, scratch = write_model(tmp_path / "model", nnUNetTrainerGDKVM), tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    if fails:
        monkeypatch.setattr("nnunet_temporal.inference.sequence_predictor.to_labels", lambda *_: 1 / 0)
    predictor = SequencePredictor.from_model_folder(folder, smooth_frames=5)
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        predictor.predict(movie(9, seed=4)[None, :, 0], PIXEL_MM)
    gc.collect()
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("frames", [0, 3, 6, -7])
def test_a_number_of_frames_that_cannot_be_is_refused(frames, tmp_path):
    folder = write_model(tmp_path, nnUNetTrainer, "2d")
    with pytest.raises(ValueError, match=f"over {frames} frames: expected an odd number from 5 on"):
        SequencePredictor.from_model_folder(folder, smooth_frames=frames)


def test_a_stream_cannot_be_smoothed(tmp_path):
    predictor = SequencePredictor.from_model_folder(write_model(tmp_path, nnUNetTrainer, "2d"), smooth_frames=5)
    with pytest.raises(ValueError, match="waits for no frames"):
        predictor.stream(PIXEL_MM, warm_up=movie(9, seed=4)[None, :, 0])
