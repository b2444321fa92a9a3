"""What every test gets: few threads, no trace of the developer's own nnU-Net folders, and folders on request."""

import multiprocessing
import multiprocessing.dummy
import os
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

# Set before anything imports torch or nnunetv2, which read these once.
os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many workers as cores: see README
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["nnUNet_compile"] = "f"
os.environ["nnUNet_n_proc_DA"] = "0"
os.environ["nnUNet_def_n_proc"] = "2"
# A test that forgets the fixture below must fail, not write into somebody's data.
for _name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results", "nnUNet_extTrainer"):
    os.environ.pop(_name, None)

# Not a conftest.py of its own beside the tests of reports, which would be another module of this name.
pytest_plugins = ["browser_fixtures"]


def pytest_collection_modifyitems(items):
    """Order files for the two workers of ``pytest -n 2 --dist loadfile``, which take them from the top one by one.

    The longest keeps one busy while the other one takes those that share the walked road, the costliest fixture of all.
    """
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    longest = max(slow, key=slow.__getitem__, default=None)
    walkers = {item.path for item in items if "road" in item.fixturenames}
    items.sort(key=lambda item: (item.path != longest, item.path not in walkers, -slow[item.path]))


@dataclass(frozen=True)
class NnunetFolders:
    """nnU-Net's three folders of one test."""

    raw: Path
    preprocessed: Path
    results: Path


def set_nnunet_folders(root: Path, monkeypatch: pytest.MonkeyPatch) -> NnunetFolders:
    """Make nnU-Net's three folders in ``root``, empty, and set the variables that name them."""
    folders = NnunetFolders(root / "nnUNet_raw", root / "nnUNet_preprocessed", root / "nnUNet_results")
    for folder in (folders.raw, folders.preprocessed, folders.results):
        folder.mkdir()
        monkeypatch.setenv(folder.name, str(folder))
    return folders


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch) -> NnunetFolders:
    """Make nnU-Net's three folders, empty, and set the variables that name them."""
    return set_nnunet_folders(tmp_path, monkeypatch)


@pytest.fixture
def findable_trainers(monkeypatch):
    """Let nnU-Net find our trainers, as ``nnunet_temporal env`` does."""
    from nnunet_temporal.commands.env import VARIABLE, search_path_folder  # not at the top: see below

    monkeypatch.setenv(VARIABLE, str(search_path_folder()))


@pytest.fixture
def process_group(tmp_path):
    """Let this process train as if it were one of several."""
    import torch  # not at the top: see below

    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def planned_phantom(tmp_path_factory):
    """Write, plan (light) and preprocess the phantom dataset, once; tests must not change it."""
    # Not at the top: it imports torch and nnunetv2, which the tests of the command line do without.
    from phantom_dataset import Phantom, plan_phantom, write_phantom

    root = tmp_path_factory.mktemp("phantom")
    with pytest.MonkeyPatch.context() as patch:
        set_nnunet_folders(root, patch)
        patch.setenv("nnUNet_n_proc_DA", "1")
        # Threads for nnU-Net's pools: spawned processes would import torch for seconds each.
        patch.setattr(multiprocessing, "get_context", lambda method: multiprocessing.dummy)
        raw = write_phantom(root / "nnUNet_raw")
        code, printed = plan_phantom("-pl", "LightTemporalPlanner", "-c", "2d", "2dt")
        assert code == 0, printed
    return Phantom(raw, root / "nnUNet_preprocessed" / raw.name, root / "nnUNet_results" / raw.name, printed)


@pytest.fixture
def phantom(planned_phantom, tmp_path, monkeypatch):
    """Copy the phantom for one test that may change it, and set the variables that name nnU-Net's folders."""
    folders, name = set_nnunet_folders(tmp_path, monkeypatch), planned_phantom.raw.name
    shutil.copytree(planned_phantom.raw, folders.raw / name)
    shutil.copytree(planned_phantom.preprocessed, folders.preprocessed / name)
    return replace(
        planned_phantom,
        raw=folders.raw / name,
        preprocessed=folders.preprocessed / name,
        results=folders.results / name,
    )


@pytest.fixture(scope="session")
def road(tmp_path_factory):
    """Walk the page on how to enter a challenge, once."""
    from challenge_road import Road

    return Road(tmp_path_factory.mktemp("road"))
