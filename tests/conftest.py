"""What every test gets: few threads, no trace of the developer's own nnU-Net folders, and folders on request."""

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

# Set before anything imports torch or nnunetv2, which read these once.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["nnUNet_compile"] = "f"
os.environ["nnUNet_n_proc_DA"] = "0"
os.environ["nnUNet_def_n_proc"] = "2"
# A test that forgets the fixture below must fail, not write into somebody's data.
for _name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer"):
    os.environ.pop(_name, None)


@dataclass(frozen=True)
class NnunetFolders:
    """nnU-Net's three folders of one test."""

    raw: Path
    preprocessed: Path
    results: Path


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch) -> NnunetFolders:
    """Make nnU-Net's three folders, empty, and set the variables that name them."""
    folders = NnunetFolders(tmp_path / "nnUNet_raw", tmp_path / "nnUNet_preprocessed", tmp_path / "nnUNet_results")
    for folder in (folders.raw, folders.preprocessed, folders.results):
        folder.mkdir()
        monkeypatch.setenv(folder.name, str(folder))
    return folders
