"""``submission``: what it prints, and the container's recipe, whose entry script runs without Docker."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import SimpleITK
from nifti_movies import save_nifti
from phantom_dataset import movie
from trained_models import TWO_CHANNELS, write_model

from nnunet_temporal.cli import main
from nnunet_temporal.commands.container import trained_folds
from nnunet_temporal.commands.container_recipe.process import main as process
from nnunet_temporal.datasets.image_io import read_header, read_labels
from nnunet_temporal.datasets.movie_io import read_movie
from nnunet_temporal.inference.sequence_predictor import SequencePredictor
from nnunet_temporal.trainers.gdkvm import nnUNetTrainerGDKVM

STORED = np.clip(movie(4, 1), 0, 255).astype(np.uint8)  # (T, Z, Y, X)
SPACING = (1.5, 1.25, 8.0, 40.0)
SOCKETS = ("--input-socket", "cardiac-mri", "--output-socket", "heart-segmentation")


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "nnUNetTrainerGDKVM__plans__2dt"
    return write_model(folder, nnUNetTrainerGDKVM, folds=(0, 1, "all"))


def container(model, output, *words):
    return main(["submission", "container", "-m", str(model), "-o", str(output), *SOCKETS, *map(str, words)])


def save_mha(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(STORED, isVector=False)
    image.SetSpacing(SPACING)
    image.SetOrigin((1.0, 2.0, 3.0, 0.0))
    SimpleITK.WriteImage(image, str(path))


def test_the_entry_script_answers_each_movie_in_kind_and_names_a_broken_one(model, tmp_path):
    assert container(model, tmp_path / "recipe") == 0
    shutil.rmtree(model)  # the recipe has a copy
    images = tmp_path / "input" / "images" / "cardiac-mri"
    save_mha(images / "a_0000.mha")
    save_nifti(images / "b.nii.gz", STORED.T, SPACING)
    (images / "broken.mha").write_bytes((images / "a_0000.mha").read_bytes()[:-100])
    script = [sys.executable, str(tmp_path / "recipe" / "process.py")]
    folders = ["--input", str(tmp_path / "input"), "--output", str(tmp_path / "output")]
    done = subprocess.run([*script, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "2 of 3 movies segmented" in done.stdout, done.stdout + done.stderr
    assert str(images / "broken.mha") in done.stderr and "Traceback" not in done.stderr
    masks = tmp_path / "output" / "images" / "heart-segmentation"
    assert sorted(path.name for path in masks.iterdir()) == ["a_0000.mha", "b.nii.gz"]
    found = read_labels(masks / "b.nii.gz")
    assert read_header(masks / "b.nii.gz").shape == STORED.shape and len(np.unique(found)) > 1
    assert np.array_equal(read_movie(masks / "a_0000.mha")[0], found)
    assert SimpleITK.ReadImage(str(masks / "a_0000.mha")).GetOrigin() == (1.0, 2.0, 3.0, 0.0)
    predictor = SequencePredictor.from_model_folder(tmp_path / "recipe" / "model", [0, 1])
    assert np.mean(predictor.predict(STORED[:, 0], (1.25, 1.5)).masks != found[:, 0]) < 1e-3  # threads round otherwise
    results = {result.pop("movie"): result for result in json.loads((tmp_path / "output" / "results.json").read_text())}
    assert results["a_0000.mha"] == {"frames": 8, "remarks": [], "problem": None}
    assert results["b.nii.gz"]["frames"] == 8 and "broken.mha" in results["broken.mha"]["problem"]


def run_process(root, *words):
    model = str(root / "recipe" / "model")
    return process(["--input", str(root), "--output", str(root / "out"), "--model", model, *SOCKETS, *words])


def test_input_that_is_no_movie_and_a_missing_model_give_exit_code_2(tmp_path, capsys):
    (tmp_path / "images" / "other-socket").mkdir(parents=True)
    assert run_process(tmp_path) == 2
    assert "cardiac-mri: found nothing" in (printed := capsys.readouterr().err) and "other-socket" in printed
    save_mha(tmp_path / "images" / "cardiac-mri" / "a.mha")
    assert run_process(tmp_path) == 2
    assert str(tmp_path / "recipe" / "model") in capsys.readouterr().err
    (tmp_path / "images" / "cardiac-mri" / "b.tif").touch()
    assert run_process(tmp_path) == 2
    assert "found a.mha, b.tif, expected only movies .mha or .nii.gz" in capsys.readouterr().err


def test_the_recipe_is_complete_filled_in_and_pinned(model, tmp_path, capsys):
    assert container(model, tmp_path / "recipe") == 0
    recipe = tmp_path / "recipe"
    assert "README.md" in capsys.readouterr().out
    assert {path.name for path in recipe.iterdir()} == {
        "Dockerfile", "README.md", "process.py", "requirements.txt", "test_run.sh", "model", "wheels", "test",
    }  # fmt: skip
    texts = {path.name: path.read_text() for path in recipe.iterdir() if path.is_file()}
    assert not {name: found for name, text in texts.items() if (found := re.findall("@[A-Z]+@", text))}
    requirements = texts["requirements.txt"].split()
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+==[0-9.]+", line) for line in requirements)
    assert {"nnunet_temporal", "nnunetv2", "torch"} <= {line.split("==")[0] for line in requirements}
    dockerfile = texts["Dockerfile"]
    copied = re.findall(r"^COPY (\S+)", dockerfile, re.MULTILINE)
    assert all((recipe / name).exists() for name in copied) and len(copied) == 4
    assert "--network" not in dockerfile and dockerfile.index("RUN pip") < dockerfile.index("USER algorithm")
    assert dockerfile.splitlines()[-1] == 'ENTRYPOINT ["python", "/opt/algorithm/process.py"]'


@pytest.mark.parametrize(("words", "folds"), [((), ["0", "1"]), (("-f", "1"), ["1"]), (("-f", "all"), ["all"])])
def test_folds_are_those_of_the_cross_validation_unless_named(model, tmp_path, words, folds):
    (model / "fold_0" / "validation").mkdir()
    assert container(model, tmp_path / "recipe", *words) == 0
    assert trained_folds(tmp_path / "recipe" / "model") == folds
    assert not list((tmp_path / "recipe").rglob("validation"))


def test_an_exported_model_is_taken_from_its_zip_file(model, tmp_path):
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for path in model.rglob("*.*"):
            archive.write(path, f"Dataset777_Phantom/{model.name}/{path.relative_to(model).as_posix()}")
    assert container(tmp_path / "model.zip", tmp_path / "recipe") == 0
    copies = tmp_path / "recipe" / "model"
    assert (copies / "plans.json").read_bytes() == (model / "plans.json").read_bytes()
    assert trained_folds(copies) == ["0", "1"]


@pytest.mark.parametrize("what", ["fold", "dataset.json", "no zip", "checkpoint", "channels", "socket", "output"])
def test_what_cannot_become_a_container_is_refused_and_leaves_nothing(what, model, tmp_path, capsys):
    words, message = (), what
    if what == "fold":
        words, message = ("-f", 7), "found folds ['0', '1', 'all']"
    elif what == "dataset.json":
        (model / what).unlink()
    elif what == "no zip":
        shutil.rmtree(model)
        model.write_text("no zip")
        message = "or a zip file with one"
    elif what == "checkpoint":
        (model / "fold_1" / "checkpoint_final.pth").write_text("broken")
    elif what == "channels":
        shutil.rmtree(model)
        write_model(model, nnUNetTrainerGDKVM, dataset=TWO_CHANNELS)
        message = "takes 2 channels, expected 1"
    elif what == "socket":
        words, message = ("--input-socket", "Cardiac MRI"), "socket 'Cardiac MRI': expected small letters"
    else:
        (tmp_path / "recipe").mkdir()
        message = "exists already"
    assert container(model, tmp_path / "recipe", *words) == 2
    assert message in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {model.name, *(["recipe"] if what == "output" else [])}


@pytest.mark.skipif(os.name == "nt", reason="a bash script")
def test_the_test_run_builds_and_runs_without_network_on_read_only_input(model, tmp_path):
    assert container(model, tmp_path / "recipe") == 0
    docker = tmp_path / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/calls\n')
    docker.chmod(0o755)
    environment = {**os.environ, "PATH": f"{docker.parent}{os.pathsep}{os.environ['PATH']}"}
    script = tmp_path / "recipe" / "test_run.sh"
    subprocess.run([script, "--gpus", "all"], env=environment, check=True, cwd=tmp_path)
    build, run = (tmp_path / "calls").read_text().splitlines()
    assert build == f"build --platform linux/amd64 --tag heart-movies {script.parent}"
    for words in ("--network none", "--gpus all", f"{script.parent}/test/input:/input:ro", ":/output heart-movies"):
        assert words in run
    assert stat.S_IMODE((script.parent / "test" / "output").stat().st_mode) == 0o777


@pytest.mark.parametrize(("flag", "message"), [("-i", "with -i"), ("--images", "with --images")])
def test_a_missing_folder_is_named(tmp_path, capsys, flag, message):
    (tmp_path / "masks").mkdir()
    folders = {"-i": tmp_path / "masks", "-o": tmp_path / "out", "--images": tmp_path / "masks"}
    folders[flag] = tmp_path / "nowhere"
    words = [str(word) for pair in folders.items() for word in pair]
    assert main(["submission", "acdc", *words]) == 2
    assert message in capsys.readouterr().err
