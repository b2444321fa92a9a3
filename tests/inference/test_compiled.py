"""Compiled networks give the same masks, and no length of a sequence compiles them anew."""

import os
import shutil

import numpy as np
import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import movie
from trained_models import write_model

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.compiled import FixedDecoder, FixedEncoder, compile_parts
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.ncmnet import nnUNetTrainerNCMNetSupervised

has_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl")),
    reason="torch.compile needs a C++ compiler",
)


@pytest.fixture(autouse=True)
def nothing_compiled(findable_trainers):
    """Let nnU-Net find our trainers, and begin and end with nothing compiled."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@has_compiler
@pytest.mark.slow
@pytest.mark.parametrize(
    ("trainer", "configuration"),
    [
        (nnUNetTrainerGDKVM, "2dt"),
        (nnUNetTrainerNCMNetSupervised, "2dt"),
        (nnUNetTrainerCSTM, "2dt"),
        (nnUNetTrainer, "2d"),
    ],
)
def test_masks_are_the_same_and_other_lengths_and_sizes_compile_nothing(trainer, configuration, tmp_path):
    folder = write_model(tmp_path, trainer, configuration, folds=(0, 1), frame_stride=2)
    eager, fast = (SequencePredictor.from_model_folder(folder, compile=it) for it in (False, True))
    assert isinstance(fast.model.networks[0].encoder, FixedEncoder)
    # The second sequence is larger than a window, and has others beside it.
    for number, (frames, pixel_mm) in enumerate(((3, (1.5, 1.25)), (10, (2.2, 2.0)), (21, (1.25, 1.25)))):
        image = movie(frames, seed=4)[:, 0]
        expected = eager.predict(image, pixel_mm, with_probabilities=True)
        with torch._dynamo.config.patch(error_on_recompile=number > 0):
            found = fast.predict(image, pixel_mm, with_probabilities=True)
        np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=1e-4)
        np.testing.assert_array_equal(found.masks, expected.masks)


@has_compiler
@pytest.mark.slow
def test_batches_pass_as_single_frames_or_filled_up(tmp_path):
    (network,) = TrainedModel.read(write_model(tmp_path, nnUNetTrainer, "2d")).networks
    (other,) = TrainedModel.read(tmp_path).networks
    encoder, decoder = FixedEncoder(other.encoder, 4), FixedDecoder(other.decoder, 4)
    with torch.inference_mode():
        for number in (4, 1, 3, 9, 5):
            frames = torch.randn(number, 1, 48, 48, generator=torch.Generator().manual_seed(number))
            expected = network.encoder(frames)
            with torch._dynamo.config.patch(error_on_recompile=number not in (4, 1)):
                skips, logits = encoder(frames), decoder(expected)
            for stage, wanted in zip(skips, expected, strict=True):
                torch.testing.assert_close(stage, wanted, atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(logits, network.decoder(expected), atol=1e-4, rtol=1e-4)


def test_networks_without_an_encoder_and_a_decoder_are_refused():
    with pytest.raises(InputError, match="Linear has no encoder and decoder"):
        compile_parts(torch.nn.Linear(1, 1), 1)


def test_the_decoder_below_a_refinement_head_stays_as_it_is_and_nothing_is_compiled_twice(tmp_path):
    (network,) = TrainedModel.read(write_model(tmp_path, nnUNetTrainerNCMNetSupervised)).networks
    decoder = network.decoder
    for _ in range(2):
        compile_parts(network, 1)
    assert network.decoder is decoder
    assert isinstance(network.encoder, FixedEncoder) and not isinstance(network.encoder.part, FixedEncoder)
