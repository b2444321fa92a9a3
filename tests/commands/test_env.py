"""``nnunet_temporal env``: what it prints is evaluated by shells."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nnunet_temporal.cli import main
from nnunet_temporal.commands import env
from nnunet_temporal.errors import InputError

ODD_VALUES = ["/plain/path", "/with space/$HOME/`x`", '/it\'s/a "path"', "/back\\slash/100%", "/wow!/*", "/hjärta"]
EVALUATED_BY = {
    "sh": ["sh", "-c"],
    "bash": ["bash", "-c"],
    "zsh": ["zsh", "-c"],
    "fish": ["fish", "-c"],
    "csh": ["csh", "-f", "-c"],
    "tcsh": ["tcsh", "-f", "-c"],
    "powershell": ["pwsh", "-NoProfile", "-Command"],
}
SHOW = f"{sys.executable} -c 'import os; print(os.environ[\"{env.VARIABLE}\"])'"


@pytest.mark.parametrize("value", ODD_VALUES)
@pytest.mark.parametrize("shell", EVALUATED_BY)
def test_a_shell_reads_back_the_value_that_was_quoted_for_it(shell, value):
    command = EVALUATED_BY[shell]
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not on this computer")
    program = f"{env.assignment(shell, env.VARIABLE, value)}\n{SHOW}"
    done = subprocess.run([*command, program], capture_output=True, text=True, check=False)
    assert done.stdout == f"{value}\n"


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("zsh", "export V='/a b'"),
        ("fish", "set -gx V '/a b'"),
        ("tcsh", "setenv V '/a b'"),
        ("powershell", "$env:V = '/a b'"),
        ("cmd", 'set "V=/a b"'),
    ],
)
def test_each_shell_gets_its_own_words(shell, line):
    assert env.assignment(shell, "V", "/a b") == line


def test_powershell_quotes_are_doubled():
    assert env.assignment("powershell", "V", "it's") == "$env:V = 'it''s'"


def test_the_folder_holds_the_export_file_alone():
    modules = [path.name for path in env.search_path_folder().glob("*.py") if path.name != "__init__.py"]
    assert modules == ["nnunet_temporal_trainer_exports.py"]


def test_unset_the_variable_becomes_our_folder(monkeypatch):
    monkeypatch.delenv(env.VARIABLE, raising=False)
    assert env.ext_trainer_value() == str(env.search_path_folder())


def test_folders_that_are_set_already_are_kept_and_come_first(monkeypatch):
    monkeypatch.setenv(env.VARIABLE, os.pathsep.join(["/one", "", "/two", "/one"]))
    assert env.ext_trainer_value().split(os.pathsep) == ["/one", "/two", str(env.search_path_folder())]


def test_our_folder_is_not_added_twice(monkeypatch):
    once = os.pathsep.join(["/one", str(env.search_path_folder())])
    monkeypatch.setenv(env.VARIABLE, once + os.sep)
    assert env.ext_trainer_value() == once


def test_a_path_that_nnunet_would_split_is_refused(monkeypatch):
    monkeypatch.setattr(env, "search_path_folder", lambda: Path(f"/odd{os.pathsep}folder"))
    with pytest.raises(InputError, match="separates the folders"):
        env.ext_trainer_value()


@pytest.mark.parametrize(
    ("parent", "login", "shell"),
    [("-zsh", "/bin/bash", "zsh"), ("make", "/usr/bin/fish", "fish"), ("pwsh", "", "powershell"), ("make", "", "sh")],
)
def test_the_parent_process_counts_before_the_login_shell(parent, login, shell, monkeypatch):
    monkeypatch.setattr(env, "_parent_process_name", lambda: parent)
    monkeypatch.setenv("SHELL", login)
    assert env.detect_shell() == shell


def test_only_the_assignment_is_printed(monkeypatch, capsys):
    monkeypatch.delenv(env.VARIABLE, raising=False)
    assert main(["env", "--shell", "bash"]) == 0
    assert capsys.readouterr().out == f"{env.assignment('bash', env.VARIABLE, str(env.search_path_folder()))}\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not on this computer")
def test_bash_sets_the_variable_with_eval():
    program = f'eval "$({sys.executable} -m nnunet_temporal.cli env)"; {SHOW}'
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == f"{env.search_path_folder()}\n"
