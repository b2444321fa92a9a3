"""nnU-Net's commands and ours as processes, in folders of their own, shared by tests. Not a test."""

import os
import subprocess
from pathlib import Path

from nnunet_temporal.commands.env import VARIABLE, ext_trainer_value
from nnunet_temporal.commands.steps import find_program

ON_CPU = ("-device", "cpu")
FEW_PROCESSES = ("-npp", 1, "-nps", 1, *ON_CPU)
_FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
# Passive: nnU-Net takes all cores, and threads that wait actively for each other crawl when the machine is shared.
_FEW_CORES = {"nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", "nnUNet_compile": "f"}


class Workspace:
    """nnU-Net's three folders, empty, below ``root``, and a way to run commands that use them."""

    def __init__(self, root: Path, dataset: str, **environment: str) -> None:
        self.root = root
        folders = {name: root / name for name in _FOLDERS}
        for folder in folders.values():
            folder.mkdir(parents=True)
        self.raw, self.preprocessed, self.results = (folder / dataset for folder in folders.values())
        variables = {name: str(folder) for name, folder in folders.items()}
        self.environment = {**os.environ, **variables, **_FEW_CORES, VARIABLE: ext_trainer_value(), **environment}

    def run(self, program: str, *arguments: object) -> str:
        """Run a command, which must succeed; return all it printed."""
        done = subprocess.run(
            [find_program(program), *map(str, arguments)],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{program} {arguments}\n{done.stdout[-5000:]}"
        return done.stdout
