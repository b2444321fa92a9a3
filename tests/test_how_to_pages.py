"""The pages on datasets and on live video do what they say: their commands and programs run on small files."""

import importlib
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from acdc_layout import save_database
from camus_files import save_camus, save_split
from documentation_pages import blocks_of, commands_of, read_page
from echo_layouts import chords_of, heart, save_table, save_video
from phantom_dataset import masks, movie
from trained_models import write_model

from nnunet_temporal.cli import main
from nnunet_temporal.commands import converters
from nnunet_temporal.commands.converter_kinds import Converter
from nnunet_temporal.sequences import Manifest
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM


def write_acdc(root):
    save_database(root / "ACDC")


def write_camus(root):
    for number in range(1, 5):
        save_camus(root / "CAMUS_public", f"patient000{number}")
    save_split(root / "CAMUS_public", ["patient0001", "patient0002"], ["patient0003"], ["patient0004"])


def write_echonet(root):
    pytest.importorskip("av")
    clips, tracings = [], []
    for name, split in (("A", "TRAIN"), ("B", "TRAIN"), ("C", "VAL"), ("D", "TEST")):
        frames, labels = heart(8, ed=1, es=5)
        save_video(root / "EchoNet-Dynamic" / "Videos" / f"{name}.avi", frames)
        clips.append([name, 50, split])
        tracings += [[f"{name}.avi", *row, frame] for frame in (1, 5) for row in chords_of(labels[frame] == 1)]
    save_table(root / "EchoNet-Dynamic" / "FileList.csv", "FileName,FPS,Split", clips)
    save_table(root / "EchoNet-Dynamic" / "VolumeTracings.csv", "FileName,X1,Y1,X2,Y2,Frame", tracings)


@pytest.mark.parametrize(("page", "write"), [("acdc", write_acdc), ("camus", write_camus), ("echonet", write_echonet)])
def test_the_conversion_makes_what_the_page_uses(page, write, tmp_path, nnunet_folders, monkeypatch):
    write(tmp_path)
    monkeypatch.chdir(tmp_path)
    text = read_page(f"how_to/{page}.md")
    (convert, *_) = [command.words for command in commands_of(text) if command.words[1] == "convert"]
    assert main(convert[1:]) == 0
    folders = {Path(name) for name in re.findall(r"\$nnUNet_raw/([\w/]+)", text)}
    assert len(folders) == 2
    for folder in folders:
        assert list((nnunet_folders.raw / folder).glob("*.nii.gz"))
    (dataset,) = {folder.parts[0] for folder in folders}
    held_out = {path.name for path in (nnunet_folders.raw / dataset / "labelsTs").iterdir()}
    folds = json.loads((nnunet_folders.raw / dataset / "splits_final.json").read_text())
    assert held_out and not held_out & {f"{case}.nii.gz" for fold in folds for case in fold["train"] + fold["val"]}
    assert page == "acdc" or len(folds) == 1


@pytest.fixture
def hearts(tmp_path, monkeypatch):
    """Write the converter of the page where Python finds it, and three patients, as the page lays them out."""
    text = read_page("how_to/add_a_dataset.md")
    (block,) = blocks_of(text, "python")
    (tmp_path / "hearts.py").write_text(block.text)
    (facts,) = re.findall(r"facts\.json +(\{.*\})", text)
    for number in range(1, 4):
        patient = tmp_path / "Hearts" / f"patient{number:02d}"
        patient.mkdir(parents=True)
        np.save(patient / "cine.npy", movie(6, number))
        np.save(patient / "masks.npy", masks(6)[[0, 3]])
        (patient / "facts.json").write_text(json.dumps(json.loads(facts) | {"test": number == 3}))
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("hearts")
    del sys.modules["hearts"]


def check_hearts(folder):
    manifest = Manifest.load(folder)
    assert {path.name[:9] for path in (folder / "imagesTs").iterdir()} == {"patient03"}
    assert {sequence.study for sequence in manifest.values()} == {"patient01", "patient02", "patient03"}
    sequence = manifest["patient01_z01"]
    assert (sequence.labelled_frames, sequence.ed, sequence.es, sequence.cyclic) == ((0, 3), 0, 3, True)
    assert (sequence.slice_spacing_mm, sequence.frame_interval_s) == (8.0, 0.04)


def test_the_converter_of_the_page_runs_as_a_program(hearts, tmp_path, nnunet_folders, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["hearts.py", str(tmp_path / "Hearts")])
    exec(compile(Path(hearts.__file__).read_text(), "hearts.py", "exec"), {"__name__": "__main__"})
    check_hearts(nnunet_folders.raw / "Dataset050_Hearts")


def test_the_converter_of_the_page_becomes_a_command(hearts, tmp_path, nnunet_folders, monkeypatch):
    (row,) = re.findall(r"`\"hearts\": (Converter\(.*?\))`", read_page("how_to/add_a_dataset.md"))
    monkeypatch.setitem(converters.CONVERTERS, "hearts", eval(row, {"Converter": Converter, "hearts": hearts}))
    assert main(["convert", "hearts", "-i", str(tmp_path / "Hearts"), "-d", "51"]) == 0
    check_hearts(nnunet_folders.raw / "Dataset051_Hearts")


def test_the_converter_of_the_page_names_a_bad_file(hearts, tmp_path, nnunet_folders, capsys, monkeypatch):
    monkeypatch.setitem(converters.CONVERTERS, "hearts", Converter(hearts, ""))
    (tmp_path / "Hearts" / "patient02" / "facts.json").write_text("{")
    assert main(["convert", "hearts", "-i", str(tmp_path / "Hearts"), "-d", "51"]) == 2
    assert "patient02/facts.json: expected facts in JSON" in capsys.readouterr().err


def test_the_loop_around_a_live_video_runs(tmp_path, findable_trainers):
    names = {
        "MODEL": write_model(tmp_path, nnUNetTrainerGDKVM),
        "warm_up": movie(6, 0)[:, 0],
        "video": movie(4, 1)[:, 0],
    }
    (block,) = blocks_of(read_page("how_to/live_video.md"), "python")
    exec(block.text, names)
    assert sorted(names["shown"]) == [0, 1, 2, 3]
    assert names["shown"][3].shape == (40, 36)
