"""The commands in documentation/how_to/submit_to_a_challenge.md run, one after another."""

import os
import re
import shlex
from pathlib import Path

from acdc_layout import save_database
from trained_models import DATASET, write_model

from nnunet_temporal.cli import main
from nnunet_temporal.commands.container_recipe.process import main as process
from nnunet_temporal.datasets import acdc
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

PAGE = Path(__file__).resolve().parent.parent / "documentation" / "how_to" / "submit_to_a_challenge.md"


def test_the_commands_run_one_after_another(tmp_path, nnunet_folders, monkeypatch):
    monkeypatch.chdir(tmp_path)
    database = save_database(tmp_path)
    folder = nnunet_folders.results / "Dataset027_ACDC" / "nnUNetTrainerGDKVM__nnUNetTemporalPlans__2dt"
    write_model(folder, nnUNetTrainerGDKVM, dataset={**DATASET, "labels": acdc.LABELS})
    movie = tmp_path / "INPUT" / "images" / "cardiac-mri" / "patient101.nii.gz"
    movie.parent.mkdir(parents=True)
    movie.write_bytes((database / "testing" / "patient101" / "patient101_4d.nii.gz").read_bytes())
    text = PAGE.read_text(encoding="utf-8")
    commands = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = [os.path.expandvars(command).strip() for command in commands if command.strip()]
    assert len(commands) == 7
    for command in commands:
        program, *words = shlex.split(command)
        if program == "python":
            assert words[0] == "algorithm/process.py" and (tmp_path / words[0]).is_file()
            sockets = ["--input-socket", "cardiac-mri", "--output-socket", "heart-segmentation"]
            assert process([*words[1:], "--model", "algorithm/model", *sockets]) == 0
            continue
        assert program == "nnunet_temporal"
        assert main([*words, *(["-device", "cpu"] if words[0] == "predict" else [])]) == 0
    names = ["patient101_ED.nii.gz", "patient101_ES.nii.gz"]
    assert sorted(os.listdir("acdc_masks")) == sorted(os.listdir("merged_masks")) == names
    assert Path("acdc_masks.zip").is_file()
    assert os.listdir("OUTPUT/images/heart-segmentation") == ["patient101.nii.gz"]
