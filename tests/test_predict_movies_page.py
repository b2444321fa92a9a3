"""The Python in documentation/how_to/predict_movies.md runs."""

import re
from pathlib import Path

from phantom_dataset import movie
from trained_models import write_model

from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

PAGE = Path(__file__).resolve().parent.parent / "documentation" / "how_to" / "predict_movies.md"


def test_the_examples_run_one_after_another(tmp_path, findable_trainers):
    names = {"MODEL": write_model(tmp_path, nnUNetTrainerGDKVM), "movie": movie(6, 0)[:, 0], "video": movie(4, 1)[:, 0]}
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 3
    exec(blocks[0], names)
    assert names["masks"].shape == names["movie"].shape
    exec(blocks[1], names)
    exec(blocks[2], names)
    assert names["stream"].step(names["video"][0]).masks.shape == (1, 40, 36)
