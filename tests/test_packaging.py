"""What an installation holds: the wheel, the README's commands and the CI script."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import nnunet_temporal
from nnunet_temporal.commands.env import VARIABLE

ROOT = Path(__file__).resolve().parent.parent
SOURCE_FOLDERS = {
    "nnunet_temporal": "nnunet_temporal/",
    "planners": "nnunet_temporal/planners/",
    "trainers": "nnunet_temporal/trainers/",
}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from a copy of the sources, because building leaves folders behind."""
    tree, wheels = tmp_path_factory.mktemp("tree") / "copy", tmp_path_factory.mktemp("wheels")
    left_out = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist", "tests", "demo_output*")
    shutil.copytree(ROOT, tree, ignore=left_out)
    build = [*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(tree)]
    subprocess.run(build, check=True)
    (found,) = wheels.glob("*.whl")
    return found


@pytest.fixture(scope="session")
def wheel_contents(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory) -> Path:
    """Install the wheel into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([*PIP, "install", "--no-deps", "--target", str(folder), str(wheel)], check=True)
    return folder


@pytest.fixture
def run_installed(installed, tmp_path):
    """Return a function that runs Python in an empty folder, with the installed wheel before everything else."""
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {**os.environ, "PYTHONPATH": str(installed), **variables}
        command = [sys.executable, *arguments]
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, check=False)

    return run


def test_the_wheel_puts_nothing_but_the_package_into_site_packages(wheel_contents):
    top_level = {name.split("/")[0] for name in wheel_contents}
    assert top_level == {"nnunet_temporal", f"nnunet_temporal-{nnunet_temporal.__version__}.dist-info"}


@pytest.mark.parametrize("folder", SOURCE_FOLDERS)
def test_the_wheel_holds_every_module_of_the_source_folders(folder, wheel_contents):
    modules = {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob("*.py")}
    assert {SOURCE_FOLDERS[folder] + name for name in modules} <= wheel_contents


def test_the_wheel_holds_the_demo_data_with_their_licence(wheel_contents):
    folder = ROOT / "nnunet_temporal" / "demo_data"
    data = {path.relative_to(ROOT).as_posix() for path in folder.iterdir() if path.is_file()}
    assert any(name.endswith(".nii.gz") for name in data)
    assert any("LICENSE" in name for name in data)
    assert data <= wheel_contents


def test_the_wheel_holds_the_files_of_a_container(wheel_contents):
    folder = ROOT / "nnunet_temporal" / "commands" / "container_recipe"
    files = {path.relative_to(ROOT).as_posix() for path in folder.iterdir() if path.is_file()}
    assert len(files) > 4 and files <= wheel_contents


def test_the_wheel_holds_our_licence(wheel_contents):
    assert f"nnunet_temporal-{nnunet_temporal.__version__}.dist-info/licenses/LICENSE" in wheel_contents


def test_planners_and_trainers_are_imported_from_the_installed_wheel(run_installed, installed):
    modules = "nnunet_temporal.planners.temporal_planner", "nnunet_temporal.trainers.variants"
    program = f"import importlib; [print(importlib.import_module(name).__file__) for name in {modules}]"
    done = run_installed("-c", program)
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.splitlines()]
    assert [file.parent for file in files] == [
        installed / "nnunet_temporal" / part for part in ("planners", "trainers")
    ]


@pytest.mark.slow
def test_the_installed_wheel_is_well_in_an_empty_folder(run_installed, installed, nnunet_folders):
    # The doctor looks the trainer up through nnU-Net, here and in a spawned process, and compares the classes.
    search_path = installed / "nnunet_temporal" / "trainers" / "search_path"
    done = run_installed("-m", "nnunet_temporal.cli", "doctor", **{VARIABLE: str(search_path)})
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_readme_opens_with_the_demo_and_the_tests_in_one_line_each():
    commands = readme_commands()
    assert commands[0].startswith("python -m venv .venv && ") and commands[0].endswith("--output demo_output")
    assert commands[1].startswith("python -m venv .venv && ") and commands[1].endswith("&& pytest -n 2")


def test_ci_runs_the_readme_test_command_word_for_word():
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()[-1] == readme_commands()[1]


def test_ci_can_be_executed():
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_no_source_file_has_windows_line_ends():
    suffixes = {".py", ".md", ".toml", ".in", ".txt", ""}
    sources = [path for folder in (*SOURCE_FOLDERS, "tests", ".ci") for path in (ROOT / folder).rglob("*")]
    texts = [path for path in (*sources, *ROOT.iterdir()) if path.is_file() and path.suffix in suffixes]
    assert not [path for path in texts if b"\r\n" in path.read_bytes()]


def readme_commands() -> list[str]:
    """Return the one-line command blocks of the README, in order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^```bash\n([^\n]+)\n```$", text, flags=re.MULTILINE)
