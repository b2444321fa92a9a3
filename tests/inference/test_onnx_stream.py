"""Live video through an exported model gets the masks that it gets from the model itself."""

import json
import subprocess
import sys

import numpy as np
import pytest
from phantom_dataset import movie
from trained_models import REGIONS, write_model

from nnunet_temporal.commands.env import VARIABLE, search_path_folder
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.intensities import Intensities
from nnunet_temporal.inference.onnx_export import export_model
from nnunet_temporal.inference.onnx_stream import OnnxStream
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.place_memory import nnUNetTrainerPlaceMemory

PIXEL_MM = (1.5, 1.25)
CLIP = movie(9, seed=4)[:, 0]
FLOW = {**REGIONS, "channel_names": {"0": "cineMRI", "1": "flow"}}
TWO_CHANNELS = np.stack([CLIP, 0.5 * movie(9, seed=5)[:, 1]])
IN_ANOTHER_PYTHON = """
import sys
import numpy as np
sys.modules["torch"] = sys.modules["nnunetv2"] = None  # importing them raises
from nnunet_temporal.inference.onnx_stream import OnnxStream
folder, clip, output = sys.argv[1:]
clip = np.load(clip)
stream = OnnxStream(folder, (1.5, 1.25), warm_up=clip)
np.save(output, np.stack([stream.step(frame) for frame in clip]))
"""

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("findable_trainers")]  # exporting takes seconds


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    """Export a model that watches sequences first and whose frames have two memories; return it and the export."""
    folder = tmp_path_factory.mktemp("classes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(search_path_folder()))
        model = write_model(folder / "model", nnUNetTrainerPlaceMemory, frame_stride=2)
        export_model(model, folder / "export")
        return SequencePredictor.from_model_folder(model), folder / "export"


@pytest.fixture(scope="module")
def regions(tmp_path_factory):
    """Export a model of overlapping regions on two channels, one of which is normalised within a mask."""
    folder = tmp_path_factory.mktemp("regions")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(search_path_folder()))
        model = write_model(folder / "model", nnUNetTrainerGDKVM, dataset=FLOW, use_mask_for_norm=[True, False])
        export_model(model, folder / "export", 0)
        return SequencePredictor.from_model_folder(model), folder / "export"


def assert_same_masks(stream, exported, frames):
    """Compare frame by frame; rounding may turn a pixel on the border of two labels."""
    frames = list(frames)
    expected = np.stack([stream.step(frame).masks[0] for frame in frames])
    masks = np.stack([exported.step(frame) for frame in frames])
    assert masks.dtype == expected.dtype
    assert len(np.unique(expected)) > 1
    assert np.mean(masks != expected) < 1e-3


@pytest.mark.parametrize("pixel_mm", [(1.25, 1.25), PIXEL_MM, (2.8, 2.0)], ids=["as is", "resampled", "in windows"])
def test_masks_are_those_of_a_live_stream_after_a_warm_up_clip(classes, pixel_mm):
    predictor, folder = classes
    stream = predictor.stream(pixel_mm, warm_up=CLIP)
    assert_same_masks(stream, OnnxStream(folder, pixel_mm, warm_up=CLIP), CLIP)


def test_masks_are_those_of_a_live_stream_that_begins_with_nothing(classes):
    predictor, folder = classes
    given = {"frame_size": CLIP.shape[1:], "intensities": [Intensities(110.0, 30.0)]}
    assert_same_masks(predictor.stream(PIXEL_MM, **given), OnnxStream(folder, PIXEL_MM, **given), CLIP)


def test_regions_of_two_channels_with_black_margins_and_a_black_frame(regions):
    predictor, folder = regions
    clip = TWO_CHANNELS.copy()
    clip[..., :4] = clip[..., -3:, :] = 0
    video = np.insert(clip, 3, 0, axis=1).swapaxes(0, 1)
    assert_same_masks(predictor.stream(PIXEL_MM, warm_up=clip), OnnxStream(folder, PIXEL_MM, warm_up=clip), video)


def test_another_video_begins_where_the_first_began(classes):
    stream = OnnxStream(classes[1], PIXEL_MM, warm_up=CLIP)
    first = [stream.step(frame) for frame in CLIP]
    stream.reset()
    np.testing.assert_array_equal([stream.step(frame) for frame in CLIP], first)


def test_the_warm_up_clip_is_watched_and_every_frame_remembered(classes):
    _, folder = classes
    sidecar = json.loads((folder / "model.json").read_text())
    assert (sidecar["watch_first"], sidecar["frame_stride"]) == (True, 2)
    warm, later = (OnnxStream(folder, PIXEL_MM, warm_up=CLIP) for _ in range(2))
    cold = OnnxStream(folder, PIXEL_MM, frame_size=CLIP.shape[1:], intensities=warm._preparation.intensities)
    later.step(CLIP[4]), later.step(CLIP[4])
    masks = [stream.step(CLIP[0]) for stream in (warm, cold, later)]
    assert (masks[0] != masks[1]).any() and (masks[0] != masks[2]).any()


def test_neither_torch_nor_nnunet_is_needed(classes, tmp_path):
    np.save(tmp_path / "clip.npy", CLIP)
    paths = map(str, (classes[1], tmp_path / "clip.npy", tmp_path / "masks.npy"))
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PYTHON, *paths], check=True)
    stream = OnnxStream(classes[1], PIXEL_MM, warm_up=CLIP)
    np.testing.assert_array_equal(np.load(tmp_path / "masks.npy"), [stream.step(frame) for frame in CLIP])


def test_frames_and_clips_that_do_not_fit_are_refused(classes):
    _, folder = classes
    with pytest.raises(InputError, match=r"found a frame of shape \(1, 36, 40\) .*, expected \(1, 40, 36\)"):
        OnnxStream(folder, PIXEL_MM, warm_up=CLIP).step(np.zeros((36, 40)))
    with pytest.raises(InputError, match="found a clip of shape"):
        OnnxStream(folder, PIXEL_MM, warm_up=TWO_CHANNELS)
    with pytest.raises(ValueError, match="needs a warm-up clip, or"):
        OnnxStream(folder, PIXEL_MM, frame_size=(40, 36))


def test_folders_that_hold_no_export_or_another_version_are_refused(classes, tmp_path):
    with pytest.raises(InputError, match=r"model\.json: is missing; .*nnunet_temporal export"):
        OnnxStream(tmp_path, PIXEL_MM, warm_up=CLIP)
    sidecar = json.loads((classes[1] / "model.json").read_text())
    (tmp_path / "step.onnx").touch()
    (tmp_path / "model.json").write_text(json.dumps({**sidecar, "format": 99}))
    with pytest.raises(InputError, match="found format 99, expected 1"):
        OnnxStream(tmp_path, PIXEL_MM, warm_up=CLIP)
