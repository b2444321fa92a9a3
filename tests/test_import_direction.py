"""Imports run one way, and only the command line talks to the user and to the environment."""

import ast
import graphlib
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE_FOLDERS = {
    "nnunet_temporal": "nnunet_temporal",
    "planners": "nnunet_temporal.planners",
    "trainers": "nnunet_temporal.trainers",
}

# A part may import parts of its own rank and below.
RANKS = {
    **dict.fromkeys(("", "errors", "atomic", "hashing", "sequence_fields", "sequences", "plans"), 0),
    **dict.fromkeys(("networks", "losses", "metrics", "demo_data"), 0),
    **dict.fromkeys(("datasets", "training", "inference", "report", "evaluation"), 1),
    **dict.fromkeys(("planners", "trainers"), 2),
    **dict.fromkeys(("commands", "cli"), 3),
}


def module_names() -> dict[str, Path]:
    """Return every module of the source folders, by its installed name."""
    modules = {}
    for folder, package in SOURCE_FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            modules[".".join([package, *(part for part in parts if part != "__init__")])] = path
    return modules


MODULES = module_names()
every_module = pytest.mark.parametrize("name", MODULES)


def imported_names(name: str) -> set[str]:
    """Return what a module imports, anywhere in it: modules, and ``module.name`` for each name taken from one."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import in line {node.lineno}"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def imported_modules(name: str) -> set[str]:
    """Return the modules of ours that a module imports."""
    found = imported_names(name)
    return {module for module in (*found, *(other.rpartition(".")[0] for other in found)) if module in MODULES} - {
        name,
        "nnunet_temporal",
    }


def part(name: str) -> str:
    """Return the part a module belongs to: the first name below nnunet_temporal."""
    return (name + ".").split(".")[1]


@every_module
def test_a_module_imports_only_from_its_own_rank_or_below(name):
    too_high = {other for other in imported_modules(name) if RANKS[part(other)] > RANKS[part(name)]}
    assert not too_high


@every_module
def test_planners_and_trainers_do_not_import_each_other(name):
    other_part = {"planners": "trainers", "trainers": "planners"}.get(part(name))
    assert not {module for module in imported_modules(name) if part(module) == other_part}


@every_module
def test_no_module_imports_the_mapped_folders_by_their_bare_names(name):
    assert not {other for other in imported_names(name) if other.split(".")[0] in ("planners", "trainers", "tests")}


@every_module
def test_the_metrics_and_the_manifest_need_neither_torch_nor_nnunet(name):
    if part(name) in ("metrics", "sequences"):
        assert not {other for other in imported_names(name) if other.split(".")[0] in ("torch", "nnunetv2")}


@every_module
def test_the_manifest_knows_only_its_fields_and_errors_and_atomic_files(name):
    if part(name) == "sequences":
        known = ("errors", "atomic", "sequence_fields")
        assert imported_modules(name) <= {f"nnunet_temporal.{module}" for module in known}


@every_module
def test_only_the_command_line_prints_or_reads_the_environment(name):
    if part(name) in ("cli", "commands"):
        return
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    prints = [
        node.lineno for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    ]
    environment = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv", "os.putenv")
    ]
    assert not prints
    assert not environment
    assert not imported_names(name) & {"os.environ", "os.getenv"}


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: imported_modules(name) for name in MODULES}
    assert tuple(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("folder", SOURCE_FOLDERS)
def test_every_source_folder_is_a_package(folder):
    # A folder without __init__.py is silently left out of the wheel.
    missing = [
        path
        for path, _, files in os.walk(ROOT / folder)
        if any(not name.endswith(".pyc") for name in files) and "__init__.py" not in files
    ]
    assert not missing
