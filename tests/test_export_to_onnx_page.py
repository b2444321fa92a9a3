"""The Python in documentation/how_to/export_to_onnx.md runs, and its table knows every field of the sidecar."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from phantom_dataset import movie
from trained_models import write_model

from nnunet_temporal.inference.onnx_export import export_model
from nnunet_temporal.trainers.temporal_conv import nnUNetTrainerTemporalConv

PAGE = Path(__file__).resolve().parent.parent / "documentation" / "how_to" / "export_to_onnx.md"


@pytest.mark.slow
def test_the_examples_run_one_after_another(tmp_path, findable_trainers):
    export_model(write_model(tmp_path / "model", nnUNetTrainerTemporalConv), tmp_path / "export")
    names = {
        "EXPORT": tmp_path / "export",
        "movie": movie(4, 0)[:, 0],
        "video": movie(3, 1)[:, 0],
        "frames": np.zeros((2, 1, 1, 48, 48), np.float32),
    }
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    assert names["mask"].shape == (40, 36)
    assert names["logits"].shape == (1, 3, 48, 48)
    sidecar = json.loads((tmp_path / "export" / "model.json").read_text())
    rows = text.split("| field of `model.json` |")[1].split("\n\n")[0]
    explained = {name for row in rows.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert explained == set(sidecar)
