"""Live video gets the masks that a whole sequence gets, frame by frame."""

import numpy as np
import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from phantom_dataset import movie
from trained_models import write_model

from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.intensities import Intensities
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.trainers.variants import METHODS

PIXEL_MM = (1.5, 1.25)
CLIP = movie(11, seed=4)[:, 0]

pytestmark = pytest.mark.usefixtures("findable_trainers")


def run(stream, clip):
    """Return the masks of a clip by frame, and how many frames each had to wait for, None for the end."""
    masks, waited = {}, {}
    for now, frame in enumerate(clip):
        answer = stream.step(frame)
        masks |= dict(zip(answer.frames.tolist(), answer.masks, strict=True))
        waited |= {int(t): now - int(t) for t in answer.frames}
    answer = stream.finish()
    assert (np.diff(answer.frames) > 0).all()
    masks |= dict(zip(answer.frames.tolist(), answer.masks, strict=True))
    return np.stack([masks[t] for t in range(len(clip))]), waited


def predictor_of(folder, trainer, configuration="2dt", **entries):
    """Return a predictor whose networks do not watch sequences first, as live video cannot be."""
    predictor = SequencePredictor.from_model_folder(write_model(folder, trainer, configuration, **entries))
    for network in predictor.model.networks:
        network.watch_first = False
    return predictor


@pytest.mark.parametrize("trainer", METHODS)
def test_every_method_answers_as_for_the_whole_sequence(trainer, tmp_path):
    predictor = predictor_of(tmp_path, trainer, frame_stride=2)
    stream = predictor.stream(PIXEL_MM, warm_up=CLIP)
    masks, waited = run(stream, CLIP)
    assert np.mean(masks != predictor.predict(CLIP, PIXEL_MM).masks) < 1e-3
    if stream.delay == 0:
        assert waited == dict.fromkeys(range(len(CLIP)), 0)


def test_a_2d_model_answers_as_for_the_whole_sequence(tmp_path):
    predictor = predictor_of(tmp_path, nnUNetTrainer, "2d")
    masks, _ = run(predictor.stream(PIXEL_MM, warm_up=CLIP), CLIP)
    assert np.mean(masks != predictor.predict(CLIP, PIXEL_MM).masks) < 1e-3


def test_networks_that_look_ahead_answer_after_their_delay(tmp_path):
    trainer = next(method for method in METHODS if method.__name__.startswith("nnUNetTrainerNCMNet"))
    predictor = predictor_of(tmp_path, trainer, frame_stride=2)
    (network,) = predictor.model.networks
    stream = predictor.stream(PIXEL_MM, warm_up=CLIP)
    _, waited = run(stream, CLIP)
    assert stream.delay == 2 * network.delay > 0
    assert min(waited.values()) == stream.delay


def test_given_intensities_are_those_measured_on_the_whole_sequence(tmp_path):
    predictor = predictor_of(tmp_path, METHODS[0])
    given = [Intensities(float(CLIP.mean()), float(CLIP.std()))]
    # No resampling: what overshoots would be clipped to the range of a warm-up clip only.
    masks, _ = run(predictor.stream((1.25, 1.25), frame_size=CLIP.shape[1:], intensities=given), CLIP)
    assert np.mean(masks != predictor.predict(CLIP, (1.25, 1.25)).masks) < 1e-3


def test_a_warm_up_clip_is_watched_where_sequences_are(tmp_path):
    folder = write_model(tmp_path, METHODS[0])
    predictor = SequencePredictor.from_model_folder(folder)
    (network,) = predictor.model.networks
    assert network.watch_first
    warm = predictor.stream(PIXEL_MM, warm_up=CLIP)
    masks, _ = run(warm, CLIP)
    assert np.mean(masks != predictor.predict(CLIP, PIXEL_MM).masks) < 1e-3
    network.watch_first = False
    cold, _ = run(predictor.stream(PIXEL_MM, warm_up=CLIP), CLIP)
    assert (cold[0] != masks[0]).any()


def test_black_frames_are_background_and_leave_the_memory_alone(tmp_path):
    predictor = predictor_of(tmp_path, METHODS[0], frame_stride=2, use_mask_for_norm=[True])
    interrupted = np.insert(CLIP, 3, 0, axis=0)
    masks, _ = run(predictor.stream(PIXEL_MM, warm_up=CLIP), interrupted)
    without, _ = run(predictor.stream(PIXEL_MM, warm_up=CLIP), CLIP)
    assert not masks[3].any()
    np.testing.assert_array_equal(np.delete(masks, 3, axis=0), without)


def test_streams_of_one_predictor_do_not_disturb_each_other(tmp_path):
    predictor = predictor_of(tmp_path, METHODS[0])
    alone, _ = run(predictor.stream(PIXEL_MM, warm_up=CLIP), CLIP)
    one, other = (predictor.stream(PIXEL_MM, warm_up=CLIP) for _ in range(2))
    together = []
    for t, frame in enumerate(CLIP):
        together.append(one.step(frame).masks[0])
        other.step(CLIP[-t])
    np.testing.assert_array_equal(np.stack(together), alone)


def test_frames_brighter_than_the_warm_up_clip_are_not_clipped_to_it(tmp_path):
    predictor = predictor_of(tmp_path, nnUNetTrainer, "2d", normalization_schemes=["NoNormalization"])
    warm, dim = (predictor.stream(PIXEL_MM, warm_up=clip) for clip in (10 * CLIP, CLIP))
    bright = 10 * CLIP[3]
    assert np.mean(warm.step(bright).masks != dim.step(bright).masks) < 0.01


def test_frames_of_another_size_are_refused(tmp_path):
    stream = predictor_of(tmp_path, nnUNetTrainer, "2d").stream(PIXEL_MM, warm_up=CLIP)
    with pytest.raises(InputError, match=r"expected \(40, 36\)"):
        stream.step(np.zeros((36, 40)))


def test_a_stream_needs_to_know_intensities(tmp_path):
    predictor = predictor_of(tmp_path, nnUNetTrainer, "2d")
    with pytest.raises(ValueError, match="needs a warm-up clip, or"):
        predictor.stream(PIXEL_MM, frame_size=(40, 36))
