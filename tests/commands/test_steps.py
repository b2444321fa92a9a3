"""Commands run as processes: logged, followed, and stopped at the first failure."""

import os
import sys
from pathlib import Path

import pytest

from nnunet_temporal.commands import steps
from nnunet_temporal.commands.steps import CommandFailedError, Step, find_program, run_steps, training_progress
from nnunet_temporal.errors import InputError


@pytest.fixture(autouse=True)
def python_as_program(monkeypatch):
    """Let every program name stand for this Python, and look at processes often."""
    monkeypatch.setattr(steps, "find_program", lambda name: sys.executable)
    monkeypatch.setattr(steps, "_POLL_S", 0.02)


def test_each_command_is_printed_and_its_output_logged(tmp_path, capsys):
    script = "import sys; print('to out'); print('to err', file=sys.stderr)"
    seconds = run_steps([Step("say it", ("tool", "-c", script))], os.environ, tmp_path)
    assert set(seconds) == {"say it"}
    assert sorted((tmp_path / "01_say_it.txt").read_text().split()) == ["err", "out", "to", "to"]
    assert "$ tool -c 'import sys" in capsys.readouterr().out


def test_the_environment_is_handed_over(tmp_path):
    script = "import os; print(os.environ['COLOUR'])"
    run_steps([Step("show", ("tool", "-c", script))], {**os.environ, "COLOUR": "teal"}, tmp_path)
    assert (tmp_path / "01_show.txt").read_text() == "teal\n"


def test_a_failing_command_raises_with_the_end_of_its_log_and_where_it_is(tmp_path):
    script = "import sys; print('\\n'.join(f'line {n}' for n in range(100))); sys.exit(3)"
    with pytest.raises(CommandFailedError) as caught:
        run_steps([Step("break", ("tool", "-c", script)), Step("never", ("tool", "-c", ""))], os.environ, tmp_path)
    message = str(caught.value)
    assert "exit code 3" in message
    assert "line 99" in message
    assert "line 9\n" not in message
    assert str(tmp_path / "01_break.txt") in message
    assert not (tmp_path / "02_never.txt").exists()


def test_a_worker_that_outlives_a_failed_command_does_not_hold_up_the_failure(tmp_path):
    worker = "import time; time.sleep(2)"
    script = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {worker!r}]); sys.exit(1)"
    with pytest.raises(CommandFailedError):
        run_steps([Step("crash", ("tool", "-c", script))], os.environ, tmp_path)


def test_progress_is_read_from_the_lines_nnunet_prints():
    lines = ["2026-01-01 10:00:00.1: Epoch 7", "2026-01-01 10:00:09.1: Current learning rate: 0.01"]
    text = training_progress(lines)
    assert text == "epoch 7"
    text = training_progress(["2026-01-01 10:00:20.1: Pseudo dice [np.float32(0.8712)]"], text)
    assert text == "epoch 7, validation Dice 0.87"
    assert training_progress(["2026-01-01 10:00:30.1: Epoch 8"], text) == "epoch 8, validation Dice 0.87"


def test_other_lines_leave_the_progress_as_it_was():
    assert training_progress(["Using splits from existing split file", "Epoch time: 3.2 s"], "epoch 3") == "epoch 3"


def test_a_program_is_taken_from_beside_this_python_first(tmp_path, monkeypatch):
    for folder in ("environment", "elsewhere"):
        (tmp_path / folder).mkdir()
        script = tmp_path / folder / "some_tool"
        script.write_text("#!/bin/sh\n")
        script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "environment" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert Path(find_program("some_tool")).parent.name == "environment"
    (tmp_path / "environment" / "some_tool").unlink()
    assert Path(find_program("some_tool")).parent.name == "elsewhere"


def test_a_program_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no_such_tool: this command is neither beside"):
        find_program("no_such_tool")
