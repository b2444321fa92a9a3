"""``nnunet_temporal env``: the line that tells nnU-Net's own commands, in the user's shell, where our trainers are."""

import argparse
import os
import shlex
import subprocess
from pathlib import Path

from nnunet_temporal.errors import InputError
from nnunet_temporal.trainers import search_path

HELP = 'print the line that lets nnU-Net find the trainers; use it as: eval "$(nnunet_temporal env)"'

VARIABLE = "nnUNet_extTrainer"
SHELLS = ("sh", "bash", "zsh", "fish", "csh", "tcsh", "powershell", "cmd")


def search_path_folder() -> Path:
    """Return the folder in which nnU-Net finds the trainers: it holds one file that re-exports them."""
    return Path(search_path.__path__[0]).resolve()


def ext_trainer_value() -> str:
    """Return the value for ``nnUNet_extTrainer``: the folders it names already, then ours, each once.

    Returns:
        Folders separated the way nnU-Net separates them, by the path separator of the operating system.

    Raises:
        InputError: The package lies in a folder whose name holds that separator, which nnU-Net would split.
    """
    ours = search_path_folder()
    if os.pathsep in str(ours):
        raise InputError(
            f"{ours}: nnU-Net separates the folders in {VARIABLE} by '{os.pathsep}', so a path with '{os.pathsep}' "
            f"in it cannot be passed. Install nnunet_temporal under a path without it."
        )
    folders = [folder for folder in os.environ.get(VARIABLE, "").split(os.pathsep) if folder.strip()]
    others = [folder for folder in dict.fromkeys(folders) if Path(folder).resolve() != ours]
    return os.pathsep.join([*others, str(ours)])


def assignment(shell: str, variable: str, value: str) -> str:
    """Return the line that sets an environment variable in a shell, quoted so that any path survives.

    Args:
        shell: One of ``SHELLS``.
        variable: Name of the variable.
        value: Its value.

    Returns:
        One line of that shell's language.
    """
    if shell == "fish":
        quoted = value.replace("\\", "\\\\").replace("'", "\\'")
        return f"set -gx {variable} '{quoted}'"
    if shell in ("csh", "tcsh"):
        # These shells expand "!" as history even inside quotes.
        return f"setenv {variable} {shlex.quote(value)}".replace("!", "\\!")
    if shell == "powershell":
        quoted = value.replace("'", "''")
        return f"$env:{variable} = '{quoted}'"
    if shell == "cmd":
        return f'set "{variable}={value}"'
    return f"export {variable}={shlex.quote(value)}"


def detect_shell() -> str:
    """Return which of ``SHELLS`` the user types into; plain ``sh`` when that cannot be told."""
    login_shell = Path(os.environ.get("SHELL", "")).name
    if os.name == "nt" and not login_shell:
        # Only cmd passes on a PROMPT; SHELL is set by Unix-like shells on Windows.
        return "cmd" if "PROMPT" in os.environ else "powershell"
    for name in (_parent_process_name(), login_shell):
        # The name of a login shell starts with a dash; PowerShell's program is called pwsh.
        shell = {"pwsh": "powershell", "dash": "sh"}.get(name.lstrip("-"), name.lstrip("-"))
        if shell in SHELLS:
            return shell
    return "sh"


def _parent_process_name() -> str:
    """Return the name of the program that started this one, or "" when it cannot be found out.

    The parent is asked before the variable SHELL, which names the login shell: a bash script of a fish user is bash.
    """
    parent = os.getppid()
    try:
        return Path(f"/proc/{parent}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        # macOS has no /proc.
        pass
    try:
        command = ["ps", "-o", "comm=", "-p", str(parent)]
        return Path(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()).name
    except OSError:
        return ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the verb's arguments."""
    parser.add_argument("--shell", choices=SHELLS, help="write for this shell (default: the one that runs the command)")


def run(arguments: argparse.Namespace) -> int:
    """Print the assignment; nothing else may go to standard output, because the shell evaluates it.

    Returns:
        The exit code, 0.
    """
    print(assignment(arguments.shell or detect_shell(), VARIABLE, ext_trainer_value()))
    return 0
