"""The folder of an exported model, ``step.onnx`` and ``model.json``; read without torch or nnU-Net."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from nnunet_temporal.atomic import read_json_object
from nnunet_temporal.errors import InputError

STEP_FILE, SIDECAR_FILE = "step.onnx", "model.json"
FORMAT = 1
"""Version of the sidecar; it changes whenever a field is added, removed or means something else."""


def require(package: str) -> ModuleType:
    """Import a package of the extra ``onnx``.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(f"{package} is not installed; pip install 'nnunet_temporal[onnx]'") from error


def read_sidecar(folder: Path) -> dict[str, Any]:
    """Read ``model.json``.

    Raises:
        InputError: There is no exported model, or one of another version.
    """
    file = folder / SIDECAR_FILE
    for needed in (file, folder / STEP_FILE):
        if not needed.is_file():
            raise InputError(f"{needed}: is missing; expected a folder that 'nnunet_temporal export' has written")
    sidecar = read_json_object(file, "Export the model again.")
    if sidecar.get("format") != FORMAT:
        raise InputError(
            f"{file}: found format {sidecar.get('format')!r}, expected {FORMAT}; export the model with this version "
            "of nnunet_temporal, or use the version that exported it"
        )
    return sidecar
