"""``nnunet_temporal doctor``: each check finds what is wrong and names a command; the exit code tells the sum."""

import argparse
import os
import types

import pytest
from packaging.requirements import Requirement

from nnunet_temporal.commands import doctor, env


@pytest.fixture
def trainers_visible(monkeypatch):
    """Set nnUNet_extTrainer as ``nnunet_temporal env`` does."""
    monkeypatch.setenv(env.VARIABLE, str(env.search_path_folder()))


def run_with(monkeypatch, *checks):
    monkeypatch.setattr(doctor, "all_checks", lambda: iter(checks))
    return doctor.run(argparse.Namespace())


def test_all_is_well_exits_with_0(monkeypatch, capsys):
    assert run_with(monkeypatch, doctor.Check("a", True, "fine")) == 0
    assert "All is well." in capsys.readouterr().out


def test_one_problem_exits_with_1_and_prints_its_remedy(monkeypatch, capsys):
    checks = doctor.Check("a", True, "fine"), doctor.Check("b", False, "broken", "mend b")
    assert run_with(monkeypatch, *checks) == 1
    assert "mend b" in capsys.readouterr().out


def test_a_version_out_of_range_is_a_problem_with_a_pip_command():
    check = doctor.check_requirement(Requirement("pytest<1"))
    assert not check.ok
    assert "pip install 'pytest<1'" in check.remedy


def test_a_package_that_is_not_installed_is_a_problem():
    check = doctor.check_requirement(Requirement("no-such-package-here>=1"))
    assert not check.ok
    assert "not installed" in check.found


def test_this_installation_has_the_versions_it_declares():
    checks = doctor.check_versions()
    assert {"python", "torch", "nnunetv2"} <= {check.name for check in checks}
    assert all(check.ok for check in checks)


def test_torch_and_torchvision_of_different_builds_are_a_problem(monkeypatch):
    def import_module(name):
        if name == "torchvision":
            raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor, "importlib", types.SimpleNamespace(import_module=import_module))
    check = doctor.check_torch_import()
    assert "nms" in check.found
    assert "torch torchvision" in check.remedy


def test_a_folder_whose_variable_is_not_set_is_a_problem(monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    check = doctor.check_folder("nnUNet_raw")
    assert (check.ok, check.found) == (False, "not set")
    assert "nnUNet_raw" in check.remedy


def test_a_folder_that_does_not_exist_is_a_problem_mended_by_mkdir(monkeypatch, tmp_path):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw data"))
    assert doctor.check_folder("nnUNet_raw").remedy == f"mkdir -p '{tmp_path}/raw data'"


def test_a_file_in_the_place_of_a_folder_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "file"))
    assert "not a folder" in doctor.check_folder("nnUNet_raw").found


def test_a_folder_that_cannot_be_written_to_is_a_problem(monkeypatch, nnunet_folders):
    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    # Patched, because permission bits do not stop tests that run as root.
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    check = doctor.check_folder("nnUNet_raw")
    assert "cannot be written to" in check.found
    assert check.remedy.startswith("chmod")


@pytest.mark.parametrize("variable", doctor.FOLDER_VARIABLES)
def test_a_writable_folder_is_fine_and_stays_empty(variable, nnunet_folders):
    assert doctor.check_folder(variable).ok
    assert not list(nnunet_folders.raw.iterdir())


def test_an_unset_ext_trainer_is_a_problem_mended_by_the_env_line(monkeypatch):
    monkeypatch.delenv(env.VARIABLE, raising=False)
    check = doctor.check_ext_trainer()
    assert not check.ok
    assert str(env.search_path_folder()) in check.remedy


def test_an_ext_trainer_without_our_folder_is_a_problem_and_the_remedy_keeps_the_others(monkeypatch, tmp_path):
    monkeypatch.setenv(env.VARIABLE, str(tmp_path))
    check = doctor.check_ext_trainer()
    assert not check.ok
    assert f"{tmp_path}{os.pathsep}{env.search_path_folder()}" in check.remedy


def test_an_ext_trainer_with_our_folder_is_fine(trainers_visible):
    assert doctor.check_ext_trainer().ok


def test_nnunet_finds_the_trainer_as_the_installed_class(trainers_visible):
    assert doctor.check_look_up_here() == doctor.Check(
        "trainer look-up", True, "nnU-Net finds nnUNetTrainerGDKVM in nnunet_temporal.trainers.gdkvm"
    )


@pytest.mark.slow
def test_a_spawned_process_finds_the_same_trainer(trainers_visible):
    assert doctor.check_look_up_spawned().ok


def test_a_trainer_that_nnunet_does_not_find_is_a_problem(monkeypatch):
    monkeypatch.delenv(env.VARIABLE, raising=False)
    check = doctor.check_look_up_here()
    assert "does not find nnUNetTrainerGDKVM" in check.found
    assert str(env.search_path_folder()) in check.remedy


def test_a_trainer_of_the_same_name_from_another_folder_is_a_problem(monkeypatch, tmp_path):
    (tmp_path / "copy_of_ours.py").write_text(
        "from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer\n"
        "class nnUNetTrainerGDKVM(nnUNetTrainer): pass\n"
    )
    monkeypatch.setenv(env.VARIABLE, os.pathsep.join([str(tmp_path), str(env.search_path_folder())]))
    assert not doctor.check_look_up_here().ok


@pytest.mark.parametrize(("name", "path"), [("planner", doctor.PLANNER), ("network", doctor.NETWORK)])
def test_planner_and_network_can_be_imported(name, path):
    assert doctor.check_class(name, path).ok


def test_a_class_that_cannot_be_imported_is_a_problem_mended_by_installing_again():
    check = doctor.check_class("planner", "nnunet_temporal.planners.nowhere.Planner")
    assert not check.ok
    assert "pip install" in check.remedy


def test_the_device_is_named_and_computes():
    assert doctor.check_device().ok


def test_a_gpu_that_cannot_compute_is_a_problem(monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr("torch.ones", fail)
    check = doctor.check_device()
    assert not check.ok
    assert "no kernel image" in check.found
