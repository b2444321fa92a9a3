"""``export``: the two files of one fold, which are enough to predict live video."""

import contextlib
import io
import json

import numpy as np
import onnxruntime
import pytest
from phantom_dataset import movie
from trained_models import pooled_dice, write_model

from nnunet_temporal.cli import main
from nnunet_temporal.inference.onnx_stream import OnnxStream
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM
from nnunet_temporal.trainers.ncmnet import nnUNetTrainerNCMNet

PIXEL_MM = (1.5, 1.25)
MODEL = "nnUNetTrainerGDKVM__plans__2dt"


@pytest.fixture
def model(nnunet_folders, findable_trainers):
    """Write a model of two folds."""
    return write_model(nnunet_folders.results / "Dataset777_Phantom" / MODEL, nnUNetTrainerGDKVM, folds=(0, 1))


def export(output, *words, trainer="nnUNetTrainerGDKVM"):
    """Run the command; return the exit code and what it printed on both channels."""
    printed = io.StringIO()
    words = ("-d", "777", "-tr", trainer, "-p", "plans", "-o", str(output), *words)
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(["export", *words])
    return code, printed.getvalue()


@pytest.mark.slow
def test_the_two_files_are_all_that_is_needed_to_predict_live_video(model, tmp_path):
    output, clip = tmp_path / "new" / "export", movie(8, 3)[:, 0]
    code, printed = export(output, "-f", "1")
    assert code == 0, printed
    assert "logits differ by" in printed
    assert sorted(path.name for path in output.iterdir()) == ["model.json", "step.onnx"]
    stream = SequencePredictor.from_model_folder(model, [1]).stream(PIXEL_MM, warm_up=clip)
    exported = OnnxStream(output, PIXEL_MM, warm_up=clip)
    expected = np.concatenate([stream.step(frame).masks for frame in clip])
    masks = np.stack([exported.step(frame) for frame in clip])
    assert pooled_dice(masks, expected) >= 0.999 and expected.any()
    check_sidecar(output)


def check_sidecar(output):
    """Compare the sidecar to the graph it describes and to the model it says it comes from."""
    sidecar = json.loads((output / "model.json").read_text())
    source = sidecar["source"]
    assert (source["dataset"], source["model"], source["fold"]) == ("Dataset777_Phantom", MODEL, 1)
    assert (source["plans"], source["checkpoint"]) == ("plans", "checkpoint_final.pth")
    session = onnxruntime.InferenceSession(output / "step.onnx", providers=["CPUExecutionProvider"])
    inputs = [(entry["input"], entry["shape"], entry["initial"]) for entry in sidecar["states"]]
    frame, logits = sidecar["frame"], sidecar["logits"]
    assert [(value.name, value.shape) for value in session.get_inputs()] == [
        (frame["name"], frame["shape"]),
        *(entry[:2] for entry in inputs),
    ]
    assert [(value.name, value.shape) for value in session.get_outputs()] == [
        (logits["name"], logits["shape"]),
        *((entry["output"], entry["shape"]) for entry in sidecar["states"]),
    ]
    assert {entry[2] for entry in inputs} == {0}
    assert sidecar["channels"][0]["normalisation"] == "ZScoreNormalization"


@pytest.mark.parametrize("words", [(), ("-f", "0", "1")])
def test_several_folds_are_refused_with_what_to_do(model, words, tmp_path):
    code, printed = export(tmp_path / "export", *words)
    assert code == 2
    assert "one file holds one network; choose one" in printed and "distil" in printed
    assert not (tmp_path / "export").exists()


def test_a_network_without_a_step_is_refused_and_nothing_written(model, tmp_path):
    write_model(model.parent / "nnUNetTrainerNCMNet__plans__2dt", nnUNetTrainerNCMNet)
    code, printed = export(tmp_path / "export", trainer="nnUNetTrainerNCMNet")
    assert code == 2
    assert "looks 2 frames ahead" in printed
    assert not (tmp_path / "export").exists()


def test_a_model_that_is_not_trained_is_an_error(model, tmp_path):
    code, printed = export(tmp_path / "export", "-f", "all")
    assert code == 2
    assert "folds with a checkpoint_final.pth: [0, 1]" in printed
