"""``nnunet_temporal doctor``: checks everything an installation needs and names the command that mends a problem."""

import argparse
import contextlib
import importlib
import io
import multiprocessing
import os
import platform
import shlex
import sys
import tempfile
import textwrap
import warnings
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import nnunet_temporal
from nnunet_temporal.commands.env import VARIABLE, assignment, detect_shell, ext_trainer_value, search_path_folder

HELP = "check the installation and say what is wrong and how to mend it"

DISTRIBUTION = "nnunet_temporal"
FOLDER_VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
TRAINER = "nnUNetTrainerGDKVM"
PLANNER = "nnunet_temporal.planners.temporal_planner.TemporalPlanner"
NETWORK = "nnunet_temporal.networks.temporal_unet.TemporalUNet"

PIP_INSTALL = f"{sys.executable} -m pip install"
# Both in one command: only then pip chooses builds that belong together.
REINSTALL_TORCH = f"{PIP_INSTALL} --force-reinstall torch torchvision"


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: What was checked.
        ok: Whether it is as it has to be.
        found: What was found, in plain words.
        remedy: The command that mends it; empty when nothing is wrong.
    """

    name: str
    ok: bool
    found: str
    remedy: str = ""


def check_requirement(requirement: Requirement) -> Check:
    """Check that a package is installed in a version that nnunet_temporal works with."""
    remedy = f"{PIP_INSTALL} '{requirement.name}{requirement.specifier}'"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        return Check(requirement.name, False, f"not installed, needed: {requirement.specifier}", remedy)
    if not requirement.specifier.contains(version, prereleases=True):
        return Check(requirement.name, False, f"version {version}, needed: {requirement.specifier}", remedy)
    return Check(requirement.name, True, f"version {version}")


def check_versions() -> list[Check]:
    """Check Python and every package that nnunet_temporal itself declares as needed."""
    try:
        ours = metadata.metadata(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return [Check(DISTRIBUTION, False, "not installed, only found as a folder", _reinstall())]
    python = Requirement(f"python{ours['Requires-Python']}")
    ok = python.specifier.contains(platform.python_version(), prereleases=True)
    found = f"version {platform.python_version()}" + ("" if ok else f", needed: {python.specifier}")
    remedy = "" if ok else "install a newer Python and make the virtual environment with it: python3.11 -m venv .venv"
    requirements = [Requirement(text) for text in metadata.requires(DISTRIBUTION) or []]
    needed = [requirement for requirement in requirements if requirement.marker is None]
    return [Check("python", ok, found, remedy), *(check_requirement(requirement) for requirement in needed)]


def check_torch_import() -> Check:
    """Check that torch and torchvision belong together: of different builds, nnU-Net fails when it is imported."""
    name = "torch with torchvision"
    try:
        importlib.import_module("torch")
        importlib.import_module("torchvision")
    except Exception as error:  # mismatched binaries fail with any kind of exception
        return Check(name, False, f"they cannot be imported together: {_one_line(error)}", REINSTALL_TORCH)
    return Check(name, True, "they can be imported together")


def check_folder(variable: str) -> Check:
    """Check one of nnU-Net's three folders: named by its variable, there, and writable."""
    value = os.environ.get(variable)
    if not value:
        return Check(variable, False, "not set", assignment(detect_shell(), variable, f"/path/to/{variable}"))
    folder = Path(value)
    if not folder.exists():
        return Check(variable, False, f"{folder} does not exist", f"mkdir -p {shlex.quote(value)}")
    if not folder.is_dir():
        set_other = assignment(detect_shell(), variable, f"/path/to/{variable}")
        return Check(variable, False, f"{folder} is a file, not a folder", set_other)
    try:
        # Trying is the only sure test: permission bits say nothing about read-only or full disks.
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"writable")
    except OSError as error:
        return Check(
            variable, False, f"{folder} cannot be written to: {_one_line(error)}", f"chmod u+rwx {shlex.quote(value)}"
        )
    return Check(variable, True, str(folder))


def check_ext_trainer() -> Check:
    """Check that nnU-Net is told where the trainers are."""
    remedy = assignment(detect_shell(), VARIABLE, ext_trainer_value())
    folders = [Path(folder) for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder.strip()]
    if not folders:
        return Check(VARIABLE, False, "not set, so nnU-Net does not look for trainers outside its package", remedy)
    if search_path_folder() not in [folder.resolve() for folder in folders]:
        listed = os.pathsep.join(map(str, folders))
        return Check(VARIABLE, False, f"{listed} does not contain this installation's trainers", remedy)
    return Check(VARIABLE, True, os.pathsep.join(map(str, folders)))


def look_up_trainer(name: str) -> type:
    """Return the trainer that nnU-Net's own look-up finds; public because spawned processes import it by name."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        # What nnU-Net prints while it searches, and its dependencies' warnings, say nothing about the set-up.
        warnings.simplefilter("ignore")
        find_objects = importlib.import_module("nnunetv2.utilities.find_objects")
        trainer: type = find_objects.recursive_find_trainer_class_by_name(name)
    return trainer


def check_look_up_here() -> Check:
    """Check that nnU-Net finds the trainer in this process, and that it is the class of the installed package."""
    name = "trainer look-up"
    try:
        trainer = look_up_trainer(TRAINER)
        installed = getattr(importlib.import_module(trainer.__module__), TRAINER)
    except Exception as error:  # the look-up imports whatever lies in the user's folders
        return Check(name, False, f"nnU-Net does not find {TRAINER}: {_one_line(error)}", _set_variable())
    if trainer is not installed:
        found = f"nnU-Net finds another {TRAINER} than the one in {installed.__module__}"
        return Check(name, False, found, _set_variable())
    return Check(name, True, f"nnU-Net finds {TRAINER} in {trainer.__module__}")


def check_look_up_spawned() -> Check:
    """Check the same in a process that starts empty, as data loaders and multi-GPU training do.

    The class comes back by pickling, so equality also shows that it can be pickled.
    """
    name = "trainer look-up, spawned"
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            spawned = pool.submit(look_up_trainer, TRAINER).result()
        here = look_up_trainer(TRAINER)
    except Exception as error:  # as above, and whatever the process died of
        return Check(name, False, f"a new process does not find {TRAINER}: {_one_line(error)}", _set_variable())
    if spawned is not here:
        return Check(name, False, f"a new process finds another {TRAINER} than this one", _set_variable())
    return Check(name, True, f"a new process finds the same {TRAINER}, and it can be pickled")


def check_class(name: str, dotted_path: str) -> Check:
    """Check that a class of ours can be imported."""
    module, _, class_name = dotted_path.rpartition(".")
    try:
        getattr(importlib.import_module(module), class_name)
    except Exception as error:  # a broken dependency can fail with any kind of exception
        return Check(name, False, f"{dotted_path} cannot be imported: {_one_line(error)}", _reinstall())
    return Check(name, True, dotted_path)


def check_device() -> Check:
    """Check the device that training will use by computing on it; a computer without a GPU is fine."""
    try:
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            device, found = "cuda", f"the GPU {torch.cuda.get_device_name(0)} will be used"
        elif torch.backends.mps.is_available():
            device, found = "mps", "Apple's GPU can be used: add -device mps to nnUNetv2_train and nnUNetv2_predict"
        else:
            device, found = (
                "cpu",
                "no GPU, the CPU will be used: add -device cpu to nnUNetv2_train and nnUNetv2_predict",
            )
        torch.ones(2, device=device).sum().item()
    except Exception as error:  # drivers fail with any kind of exception
        return Check("device", False, f"torch cannot compute: {_one_line(error)}", REINSTALL_TORCH)
    return Check("device", True, found)


def all_checks() -> Iterator[Check]:
    """Yield every check's outcome, as soon as it is known."""
    yield from check_versions()
    yield check_torch_import()
    yield check_device()
    yield from map(check_folder, FOLDER_VARIABLES)
    yield check_ext_trainer()
    yield check_look_up_here()
    yield check_look_up_spawned()
    yield check_class("planner", PLANNER)
    yield check_class("network", NETWORK)


def _one_line(error: Exception) -> str:
    """Return an exception as one line of text, cut where it gets long."""
    return textwrap.shorten(f"{type(error).__name__}: {error}", width=200, placeholder=" ...")


def _reinstall() -> str:
    """Return the command that installs this package again, from the checkout it lies in if there is one."""
    checkout = Path(nnunet_temporal.__file__).resolve().parent.parent
    if (checkout / "setup.py").is_file():
        return f"{PIP_INSTALL} -e {shlex.quote(str(checkout))}"
    return f"{PIP_INSTALL} --force-reinstall --no-deps FOLDER_OR_WHEEL_IT_WAS_INSTALLED_FROM"


def _set_variable() -> str:
    """Return the command that makes the trainers visible to nnU-Net."""
    return assignment(detect_shell(), VARIABLE, ext_trainer_value())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments: it has none."""


def run(arguments: argparse.Namespace) -> int:
    """Print one line per check, and below each problem the command that mends it.

    Returns:
        The exit code: 0 when all is well, else 1.
    """
    problems = 0
    for check in all_checks():
        print(f"{'ok' if check.ok else 'PROBLEM':8} {check.name}: {check.found}", flush=True)
        if not check.ok:
            problems += 1
            print(f"{'':8} mend it with: {check.remedy}", flush=True)
    print("All is well." if problems == 0 else f"{problems} problem(s) found.")
    return 0 if problems == 0 else 1
