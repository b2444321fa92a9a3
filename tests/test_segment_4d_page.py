"""What documentation/how_to/segment_4d_from_one_mask.md says is there: its Python runs, its flags exist."""

import re
from pathlib import Path

import numpy as np
from phantom_dataset import masks, movie
from trained_models import write_model

from nnunet_temporal.cli import build_parser
from nnunet_temporal.trainers.cstm import nnUNetTrainerCSTM

TEXT = (Path(__file__).resolve().parent.parent / "documentation" / "how_to" / "segment_4d_from_one_mask.md").read_text(
    encoding="utf-8"
)


def test_the_example_runs(tmp_path, findable_trainers):
    image = np.concatenate([movie(4, seed) for seed in range(3)], 1)  # six slices
    mask = masks(4)[0, 0].astype(np.uint8)
    names = {"MODEL": write_model(tmp_path, nnUNetTrainerCSTM), "image": image, "mask": mask}
    (block,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(block, names)
    np.testing.assert_array_equal(names["study"].masks[0, 4], mask)


def test_every_flag_exists(capsys):
    try:
        build_parser("predict").parse_args(["predict", "--help"])
    except SystemExit:
        printed = capsys.readouterr().out
    flags = set(re.findall(r"`(--[a-z0-9_]+)", TEXT))
    assert len(flags) > 12
    assert not {flag for flag in flags if not re.search(rf"{flag}\b", printed)}
