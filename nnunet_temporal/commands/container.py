"""The recipe of a container: a trained model, the script that predicts with it, and what ``docker build`` needs."""

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Sequence
from importlib import metadata, resources
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from nnunet_temporal.atomic import new_folder
from nnunet_temporal.commands.env import VARIABLE, ext_trainer_value
from nnunet_temporal.errors import InputError
from nnunet_temporal.inference.model_folder import TrainedModel
from nnunet_temporal.training.stock_model import CHECKPOINT

_FILES = ("Dockerfile", "README.md", "process.py", "test_run.sh")
_PACKAGE = "nnunet_temporal"
_PLANS = "plans.json"
_FOLD = re.compile(r"fold_(\d+|all)")


def write_recipe(model: Path, output: Path, sockets: tuple[str, str], folds: Sequence[str] | None = None) -> None:
    """Write the recipe of a container that predicts with a trained model.

    Args:
        model: Folder ``TRAINER__PLANS__CONFIGURATION``, or a zip file in which nnU-Net exported one.
        output: Folder to make.
        sockets: The folders below ``images`` that the platform reserves for input and output.
        folds: Folds to take along; None takes those of the cross-validation, or else "all".

    Raises:
        InputError: Output exists, a socket is no name of a folder, or the model is missing, incomplete or unreadable.
    """
    for socket in sockets:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", socket):
            raise InputError(f"socket {socket!r}: expected small letters, digits, '-' and '_', as in 'cardiac-mri'")
    texts = {"@INPUT@": sockets[0], "@OUTPUT@": sockets[1], "@PYTHON@": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    with new_folder(output) as folder:
        _copy_model(_open_model(model), folder / "model", folds)
        _check_model(model, folder / "model")
        for name in _FILES:
            text = resources.files(f"{__package__}.container_recipe").joinpath(name).read_text(encoding="utf-8")
            for mark, word in texts.items():
                text = text.replace(mark, word)
            (folder / name).write_text(text, encoding="utf-8", newline="\n")
        (folder / "test_run.sh").chmod(0o755)
        (folder / "requirements.txt").write_text("\n".join([*_pinned_requirements(), ""]), encoding="utf-8")
        for name in ("wheels", "test/input"):
            (folder / name).mkdir(parents=True)


def trained_folds(model: Path | zipfile.Path) -> list[str]:
    """List the folds in a model's folder that have a final checkpoint."""
    matches = [(_FOLD.fullmatch(place.name), place) for place in model.iterdir()]
    return sorted(match[1] for match, place in matches if match and (place / CHECKPOINT).is_file())


def _open_model(model: Path) -> Path | zipfile.Path:
    if model.is_dir():
        return model
    try:
        archive = zipfile.ZipFile(model)
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{model}: expected the folder of a trained model, or a zip file with one: {error}") from error
    plans = [name for name in archive.namelist() if name.split("/")[-1] == _PLANS]
    if len(plans) != 1:
        raise InputError(f"{model}: found {len(plans)} files {_PLANS}, expected one model; export it alone")
    return zipfile.Path(archive, plans[0].removesuffix(_PLANS))


def _copy_model(model: Path | zipfile.Path, folder: Path, folds: Sequence[str] | None) -> None:
    trained = trained_folds(model)
    chosen = list(folds) if folds else [fold for fold in trained if fold.isdigit()] or trained
    if not chosen or set(chosen) - set(trained):
        raise InputError(f"{model}: found folds {trained} with a {CHECKPOINT}, expected {chosen or 'at least one'}")
    for name in (_PLANS, "dataset.json", *(f"fold_{fold}/{CHECKPOINT}" for fold in chosen)):
        if not model.joinpath(name).is_file():
            raise InputError(f"{model}: found no {name}; nnU-Net writes it when it trains")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        with model.joinpath(name).open("rb") as source, (folder / name).open("wb") as target:
            shutil.copyfileobj(source, target)


def _check_model(model: Path, copy: Path) -> None:
    """Read the model, or the platform would be the first to do so."""
    os.environ[VARIABLE] = ext_trainer_value()
    channels = TrainedModel.read(copy, trained_folds(copy)).channels
    if channels != 1:
        raise InputError(f"{model}: takes {channels} channels, expected 1: a container is given one movie")


def _pinned_requirements() -> list[str]:
    """Return this package and all that it needs, at the versions which have just read the model."""
    needed = [Requirement(line) for line in metadata.requires(_PACKAGE) or []]
    names = [_PACKAGE, *(requirement.name for requirement in needed if requirement.marker is None)]
    # Without the local part: "2.9.1+cpu" is on no public index, and the platform may have a GPU.
    return [f"{name}=={Version(metadata.version(name)).public}" for name in names]
