"""The page that adds a temporal module: its files are written as it says, and do what it promises."""

import contextlib
import importlib
import io
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from phantom_dataset import make_trainer

from nnunet_temporal.commands.doctor import look_up_trainer
from nnunet_temporal.commands.env import VARIABLE
from nnunet_temporal.networks.temporal_unet import TemporalUNet

PAGE = Path(__file__).resolve().parent.parent / "documentation" / "how_to" / "add_a_temporal_module.md"
NAMED_BLOCK = re.compile(r"^`(?P<name>[\w/.]+)`:\n\n```\w+\n(?P<content>.*?)^```$", re.MULTILINE | re.DOTALL)
TRAINER = "nnUNetTrainerFeatureAverage"


def files() -> dict[str, str]:
    """Read the files that the page names, each above its block."""
    return {block["name"]: block["content"] for block in NAMED_BLOCK.finditer(PAGE.read_text(encoding="utf-8"))}


@pytest.fixture
def extension(tmp_path, monkeypatch):
    """Write the page's files; they are importable as if installed, and nnU-Net knows where to look."""
    folder = tmp_path / "extension"
    for name, content in {**files(), "my_methods/__init__.py": ""}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv(VARIABLE, str(folder / "search_path"))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_methods"]:
        del sys.modules[name]


def feature_average(extension, awake=True):
    """Build the page's module; ``awake`` gives it the weights that training would."""
    torch.manual_seed(0)
    module = importlib.import_module("my_methods.feature_average").FeatureAverage(4)
    if awake:
        for parameter in module.parameters():
            torch.nn.init.normal_(parameter)
    return module


def test_the_page_names_the_file_of_each_python_block():
    python_blocks = PAGE.read_text(encoding="utf-8").count("```python\n")
    assert python_blocks == sum(name.endswith(".py") for name in files()) == 4


def test_the_listed_folder_is_what_the_page_writes(extension):
    listing = re.search(r"```\nmy_methods/\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    listed = {line.split()[0] for line in listing[1].splitlines()}
    assert listed == {str(path.relative_to(extension)) for path in extension.rglob("*") if path.is_file()}


def test_the_tests_of_the_page_pass(extension, monkeypatch):
    monkeypatch.syspath_prepend(extension / "tests")
    tests = importlib.import_module("test_feature_average")
    monkeypatch.delitem(sys.modules, "test_feature_average")
    functions = [value for name, value in vars(tests).items() if name.startswith("test_")]
    assert len(functions) == 3
    for function in functions:
        function()


def test_the_module_starts_as_identity(extension):
    x = torch.randn(2, 5, 4, 3, 6)
    assert torch.equal(feature_average(extension, awake=False)(x)[0], x)
    assert not torch.allclose(feature_average(extension)(x)[0], x)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_streaming_gives_what_the_average_in_closed_form_gives(extension, chunk):
    module, x = feature_average(extension), torch.randn(2, 5, 4, 3, 6)
    state, parts = None, []
    for part in x.split(chunk, 1):
        answered, state = module.stream(part, state, None, last=False)
        parts.append(answered)
    share = torch.sigmoid(module.rate)
    for t in range(5):
        average = sum(share * (1 - share) ** (t - s) * x[:, s] for s in range(t + 1))
        torch.testing.assert_close(torch.cat(parts, 1)[:, t], x[:, t] + module.projection(average))


def test_padding_frames_do_not_change_the_state(extension):
    module, x = feature_average(extension), torch.randn(2, 5, 4, 3, 6)
    valid = torch.tensor([[True, True, False, True, False], [False, True, True, True, True]])
    _, state = module(x, None, valid)
    for row, is_frame in enumerate(valid):
        torch.testing.assert_close(state[row : row + 1], module(x[row : row + 1, is_frame])[1])


@pytest.mark.parametrize("name", [TRAINER, f"{TRAINER}_10iterations"])
def test_nnunet_finds_the_installed_class(extension, name):
    found = look_up_trainer(name)
    assert found is getattr(importlib.import_module("my_methods.feature_average_trainer"), name)
    assert pickle.loads(pickle.dumps(found)) is found


def test_the_trainer_is_as_short_as_promised():
    source = files()["my_methods/feature_average_trainer.py"]
    body = re.search(rf"^class {TRAINER}\(.*?(?=^class )", source, re.MULTILINE | re.DOTALL)[0]
    assert sum(bool(line.strip()) for line in body.splitlines()) <= 10


def test_one_training_step_reaches_the_module(extension, phantom):
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = make_trainer(look_up_trainer(f"{TRAINER}_10iterations"), phantom)
        trainer.initialize()
        training, _ = trainer.get_dataloaders()
        loss = float(trainer.train_step(next(training))["loss"])
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (1, 10, 2)
    assert np.isfinite(loss)
    assert isinstance(trainer.network, TemporalUNet) and trainer.network.watch_first
    modules = list(trainer.network.temporal.values())
    assert modules and {type(module).__name__ for module in modules} == {"FeatureAverage"}
    assert all(module.projection.weight.abs().max() > 0 for module in modules)
