"""The style rules that ruff can hold. Types are checked by hand: mypy's verdict changes with the versions installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("command", ["check", "format --check"])
def test_the_sources_keep_the_style_rules(command):
    ruff = [sys.executable, "-m", "ruff", *command.split()]
    done = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
