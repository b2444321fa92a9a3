"""Whole sequences come out as nnU-Net's own prediction has them, from the same windows, folds and mirrored copies."""

import gc
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import movie
from trained_models import REGIONS, TWO_CHANNELS, pooled_dice, stock_prediction, write_model

from nnunet_temporal.datasets.image_io import read_header, read_image
from nnunet_temporal.demo_data import demo_data_folder
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference import sequence_predictor
from nnunet_temporal.inference.chunk_engine import ChunkEngine
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.sequence_predictor import Prediction, SequencePredictor
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.temporal_conv import nnUNetTrainerTemporalConv
from nnunet_temporal.trainers.variants import METHODS

PIXEL_MM = (1.5, 1.25)
PIXEL_WIDE_MM = (2.2, 2.0)  # on the networks' grid, the phantom is larger than a window then

pytestmark = pytest.mark.usefixtures("findable_trainers")


def sequence(frames: int = 9) -> np.ndarray:
    """Return a slice of the phantom, (1, T, Y, X)."""
    return movie(frames, seed=4)[None, :, 0]


def check_agreement(folder, image, pixel_mm, folds=(0,), mirror=False):
    """Assert that a model's masks and probabilities are those of nnU-Net's own prediction."""
    masks, probabilities = stock_prediction(folder, image, pixel_mm, folds, mirror)
    predictor = SequencePredictor.from_model_folder(folder, folds, mirror=mirror)
    ours = predictor.predict(image, pixel_mm, with_probabilities=True)
    assert ours.masks.dtype == masks.dtype
    assert len(np.unique(masks)) > 1
    # Stock prediction adds windows up in half precision, in which its weights at the corners become zero.
    assert np.quantile(np.abs(ours.probabilities - probabilities), 0.999) < 0.01
    assert pooled_dice(ours.masks, masks) >= 0.999
    check_confidence(ours)


def check_confidence(found: Prediction) -> None:
    """Assert that the confidence is about the mean probability, on the image's grid, of what the foreground was called.

    It is taken on the networks' grid, on which untrained networks have small masks of other pixels.
    """
    if len(found.probabilities) < 3:  # regions, whose probabilities do not add up to one
        assert ((found.confidence > 0.4) & (found.confidence <= 1)).all()
        return
    for mask, probabilities, confidence in zip(
        found.masks, found.probabilities.swapaxes(0, 1), found.confidence, strict=True
    ):
        if (mask > 0).any():
            assert confidence == pytest.approx(probabilities.max(0)[mask > 0].mean(), abs=0.1)


@pytest.mark.parametrize("trainer", METHODS)
def test_every_method_predicts_what_stock_prediction_does(trainer, tmp_path):
    check_agreement(write_model(tmp_path, trainer, frame_stride=2), sequence(), PIXEL_MM)


@pytest.mark.parametrize("pixel_mm", [PIXEL_MM, PIXEL_WIDE_MM])
def test_a_stock_2d_model_predicts_what_stock_prediction_does(pixel_mm, tmp_path):
    check_agreement(write_model(tmp_path, nnUNetTrainer, "2d"), sequence(), pixel_mm)


def test_images_larger_than_a_window_are_predicted_as_by_stock_prediction(tmp_path):
    check_agreement(write_model(tmp_path, nnUNetTrainerGDKVM, frame_stride=2), sequence(), PIXEL_WIDE_MM)


@pytest.mark.parametrize(("configuration", "axes"), [("2dt", (1, 2)), ("2dt", (2,)), ("2d", (0, 1))])
def test_mirrored_copies_and_folds_are_averaged_as_by_stock_prediction(configuration, axes, tmp_path):
    trainer = nnUNetTrainer if configuration == "2d" else nnUNetTrainerGDKVM
    folder = write_model(tmp_path, trainer, configuration, folds=(0, 1), mirror_axes=axes)
    check_agreement(folder, sequence(), PIXEL_MM, folds=(0, 1), mirror=True)


def test_regions_are_predicted_as_by_stock_prediction(tmp_path):
    check_agreement(write_model(tmp_path, nnUNetTrainerGDKVM, dataset=REGIONS), sequence(), PIXEL_MM)


def test_several_channels_are_predicted_as_by_stock_prediction(tmp_path):
    image = np.concatenate((sequence(), sequence()[:, ::-1] ** 2))
    check_agreement(write_model(tmp_path, nnUNetTrainerGDKVM, dataset=TWO_CHANNELS), image, PIXEL_MM)


@pytest.mark.parametrize("masked", [False, True])
def test_black_margins_and_frames_are_predicted_as_by_stock_prediction(masked, tmp_path):
    image = sequence()
    image[:, [0, 4, 8]] = 0
    image[..., :3] = image[..., -5:, :] = 0
    folder = write_model(tmp_path, nnUNetTrainerGDKVM, use_mask_for_norm=[masked])
    # On the networks' grid: resampled by stock prediction, black frames would not be quite zero any more.
    masks, _ = stock_prediction(folder, image, (1.25, 1.25))
    ours = SequencePredictor.from_model_folder(folder).predict(image, (1.25, 1.25)).masks
    assert pooled_dice(ours, masks) >= 0.999
    assert not ours[[0, 8]].any() and not masks[[0, 8]].any()
    assert bool(ours[4].any()) == bool(masks[4].any()) == (not masked)


def test_real_hearts_are_predicted_as_by_stock_prediction(tmp_path):
    file = demo_data_folder() / "SC-HF-I-4_cine.nii.gz"
    image = read_image(file)[:8, 2][None]
    check_agreement(write_model(tmp_path, nnUNetTrainerGDKVM), image, read_header(file).spacing.pixel_mm)


def test_folds_that_are_named_are_the_ones_averaged(tmp_path):
    folder = write_model(tmp_path, nnUNetTrainerGDKVM, folds=(0, 1, "all"))
    image = sequence(3)
    by_folds = [
        SequencePredictor.from_model_folder(folder, folds).predict(image, PIXEL_MM, with_probabilities=True)[1]
        for folds in (None, (0, 1), (1,), ("all",))
    ]
    np.testing.assert_array_equal(by_folds[0], by_folds[1])
    for one in range(1, 4):
        for other in range(one):
            assert (one, other) == (1, 0) or np.abs(by_folds[one] - by_folds[other]).max() > 0.01


@pytest.mark.parametrize("trainer", [nnUNetTrainerGDKVM, nnUNetTrainerTemporalConv, nnUNetTrainerCSTM])
def test_the_size_of_chunks_does_not_matter(trainer, tmp_path):
    folder = write_model(tmp_path, trainer, frame_stride=2)
    model, image = TrainedModel.read(folder), sequence(11)
    whole, single = (
        SequencePredictor(model, frames_per_chunk=n).predict(image, PIXEL_MM, with_probabilities=True) for n in (100, 1)
    )
    np.testing.assert_allclose(single.probabilities, whole.probabilities, atol=1e-4)


def test_the_first_frames_are_segmented_with_what_the_last_ones_show(tmp_path):
    predictor = SequencePredictor.from_model_folder(write_model(tmp_path, nnUNetTrainerGDKVM))
    image = sequence(20)
    alone = predictor.predict(image[:, :10], PIXEL_MM, with_probabilities=True).probabilities
    followed = predictor.predict(image, PIXEL_MM, with_probabilities=True).probabilities
    assert np.abs(followed[:, :10] - alone).max() > 0.001


def test_whole_numbers_are_predicted_like_floats_and_are_not_changed(tmp_path):
    predictor = SequencePredictor.from_model_folder(write_model(tmp_path, nnUNetTrainerGDKVM))
    image = np.rint(sequence(5)).astype(np.uint8)
    before = image.copy()
    masks = predictor.predict(image[0], PIXEL_MM).masks
    np.testing.assert_array_equal(masks, predictor.predict(image.astype(np.float32), PIXEL_MM).masks)
    np.testing.assert_array_equal(image, before)


def test_threads_may_share_a_predictor(tmp_path):
    predictor = SequencePredictor.from_model_folder(write_model(tmp_path, nnUNetTrainerGDKVM, frame_stride=2))
    images = [movie(frames, seed=frames)[:, 0] for frames in (5, 6, 7, 8)]
    in_turn = [predictor.predict(image, PIXEL_MM).masks for image in images]
    with ThreadPoolExecutor(4) as threads:
        at_once = list(threads.map(lambda image: predictor.predict(image, PIXEL_MM).masks, images))
    for one, other in zip(in_turn, at_once, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("room_mb", [0.0, 0.4])
def test_features_that_are_kept_are_those_that_would_be_made_again(room_mb, tmp_path, monkeypatch):
    predictor = SequencePredictor.from_model_folder(write_model(tmp_path, nnUNetTrainerGDKVM))
    expected = predictor.predict(sequence(30), PIXEL_MM, with_probabilities=True).probabilities
    monkeypatch.setattr(sequence_predictor, "_KEPT_MB", room_mb)
    found = predictor.predict(sequence(30), PIXEL_MM, with_probabilities=True).probabilities
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nothing_but_input_and_masks_grows_with_the_number_of_frames(tmp_path, monkeypatch):
    monkeypatch.setattr(sequence_predictor, "_KEPT_MB", 0.4)
    predictor = SequencePredictor.from_model_folder(write_model(tmp_path, nnUNetTrainerGDKVM, frame_stride=2))
    segment, tensors = ChunkEngine.segment, []

    def counted(*arguments, **options):
        if options["last"]:  # looking at every object takes its time
            tensors.append(sum(thing.nbytes for thing in gc.get_objects() if type(thing) is torch.Tensor))
        return segment(*arguments, **options)

    monkeypatch.setattr(ChunkEngine, "segment", counted)
    arrays_bytes, tensors_bytes = {}, {}
    for frames in (60, 150):
        image = np.tile(np.rint(sequence(10)).astype(np.uint8), (1, frames // 10, 1, 1))
        tensors.clear()
        tracemalloc.start()
        masks = predictor.predict(image, PIXEL_MM).masks
        arrays_bytes[frames] = tracemalloc.get_traced_memory()[1] - masks.nbytes
        tracemalloc.stop()
        tensors_bytes[frames] = max(tensors)
    assert arrays_bytes[150] < 1.05 * arrays_bytes[60]
    assert tensors_bytes[150] < 1.05 * tensors_bytes[60]


@pytest.mark.parametrize("shape", [(4, 5), (2, 4, 40, 36), (0, 40, 36), (1, 1, 4, 40, 36)])
def test_images_of_other_axes_or_channels_are_refused(shape, tmp_path):
    predictor = SequencePredictor.from_model_folder(write_model(tmp_path, nnUNetTrainer, "2d"))
    with pytest.raises(InputError, match=r"expected .* with the model's 1 channels"):
        predictor.predict(np.zeros(shape), PIXEL_MM)


@pytest.mark.parametrize("scheme", ["ZScoreNormalization", "CTNormalization", "NoNormalization"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused(scheme, value, tmp_path):
    image = sequence()
    image[0, 3, 20, 20] = value
    folder = write_model(tmp_path, nnUNetTrainer, "2d", normalization_schemes=[scheme])
    predictor = SequencePredictor.from_model_folder(folder)
    with pytest.raises(InputError, match="replace NaN and infinite pixels"):
        predictor.predict(image, PIXEL_MM)


def test_a_sequence_of_zeros_is_background(tmp_path):
    predictor = SequencePredictor.from_model_folder(write_model(tmp_path, nnUNetTrainerGDKVM))
    masks, probabilities, confidence = predictor.predict(np.zeros((4, 40, 36)), PIXEL_MM, with_probabilities=True)
    assert masks.shape == (4, 40, 36) and probabilities.shape == (3, 4, 40, 36)
    assert not masks.any() and (probabilities[0] == 1).all()
    assert np.isnan(confidence).all()
