"""nnU-Net's folders as the environment names them, for the verbs that write raw datasets."""

import os
from pathlib import Path

from nnunet_temporal.errors import InputError


def raw_and_known_folders() -> list[Path]:
    """Return nnU-Net's raw folder, and those of the other two that exist: a dataset id may be taken in any of them.

    Raises:
        InputError: ``nnUNet_raw`` is not set or no existing folder.
    """
    raw = os.environ.get("nnUNet_raw")
    if not raw:
        raise InputError("nnUNet_raw is not set; set it to a folder of your choice: export nnUNet_raw=/path/to/folder")
    if not Path(raw).is_dir():
        raise InputError(f"nnUNet_raw: found {raw!r}, which is no existing folder; make it: mkdir -p {raw}")
    others = [Path(os.environ[name]) for name in ("nnUNet_preprocessed", "nnUNet_results") if os.environ.get(name)]
    return [Path(raw), *(folder for folder in others if folder.is_dir())]
