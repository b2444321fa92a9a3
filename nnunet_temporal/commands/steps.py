"""Commands run one after another as processes: each printed, its output kept in a log file, its progress shown live."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from nnunet_temporal.errors import InputError

_POLL_S = 0.5
# Where the bar is not drawn over itself, in a file or a CI log, every drawing is a line more to read.
_REDRAW_S = {True: 0.5, False: 15.0}
# Without tqdm's rate and remaining time: steps take from a second to minutes, so both would mislead.
_BAR = "{desc} {percentage:3.0f}%|{bar}| step {n_fmt} of {total_fmt} done [{elapsed}{postfix}]"
_TAIL_LINES = 25
_EPOCH = re.compile(r"\bEpoch (\d+)\s*$")
_PSEUDO_DICE = re.compile(r"\bPseudo dice \[(?:np\.float\d+\()?(\d+\.\d+)")


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: What it does in a word or three; also the name of its log file.
        command: Program and arguments. The program is the name of an installed console script.
    """

    name: str
    command: tuple[str, ...]


class CommandFailedError(RuntimeError):
    """A command ended with an exit code other than 0; the message shows the end of its log and where the log is."""


def find_program(name: str) -> str:
    """Find an installed console script: beside this Python first, so that both belong to one environment.

    Args:
        name: Name of the script, without ``.exe``.

    Returns:
        The path to run.

    Raises:
        InputError: If the script is neither beside this Python nor on the search path.
    """
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    if found is None:
        raise InputError(
            f"{name}: this command is neither beside {sys.executable} nor on PATH; install nnunet_temporal together "
            f"with nnunetv2 in one environment (pip install nnunet_temporal) and activate it"
        )
    return found


def run_steps(steps: Sequence[Step], environment: Mapping[str, str], logs: Path) -> dict[str, float]:
    """Run the steps in order and stop at the first one that fails.

    Args:
        steps: The commands.
        environment: All environment variables of the processes.
        logs: Existing folder for the log files ``01_NAME.txt``, ...

    Returns:
        Step name to seconds.

    Raises:
        InputError: If a program is not installed; found out before anything runs.
        CommandFailedError: If a command fails.
    """
    programs = [find_program(step.command[0]) for step in steps]
    seconds: dict[str, float] = {}
    # miniters=0: the bar is drawn again whenever its interval is over, although a step takes minutes.
    redraw_s = _REDRAW_S[sys.stderr.isatty()]
    with tqdm(total=len(steps), bar_format=_BAR, miniters=0, mininterval=redraw_s, dynamic_ncols=True) as bar:
        for number, (step, program) in enumerate(zip(steps, programs, strict=True), start=1):
            tqdm.write(f"$ {shlex.join(step.command)}")
            bar.set_description_str(step.name)
            start = time.monotonic()
            log = logs / f"{number:02d}_{step.name.replace(' ', '_')}.txt"
            _run_logged([program, *step.command[1:]], environment, log, bar)
            seconds[step.name] = round(time.monotonic() - start, 1)
            bar.set_postfix_str("", refresh=False)
            bar.update()
    return seconds


def training_progress(lines: Sequence[str], before: str = "") -> str:
    """Read how far nnU-Net's training is from the lines it prints.

    Args:
        lines: New lines of its output, in order.
        before: What earlier lines said; kept where the new ones say nothing.

    Returns:
        For example ``epoch 12, validation Dice 0.87``; epochs count from 0 as nnU-Net's do.
    """
    text = before
    for line in lines:
        if epoch := _EPOCH.search(line):
            _, separator, score = text.partition(", ")
            text = f"epoch {epoch[1]}{separator}{score}"
        elif score_match := _PSEUDO_DICE.search(line):
            text = f"{text.partition(', ')[0]}, validation Dice {float(score_match[1]):.2f}"
    return text


def _run_logged(command: list[str], environment: Mapping[str, str], log: Path, bar: tqdm) -> None:
    """Run one command with all its output in ``log``; raise CommandFailedError when it fails."""
    # The log file is the process's output, not a pipe: worker processes that outlive a crashed command would keep a
    # pipe open and this loop waiting for them.
    with (
        log.open("w", encoding="utf-8") as output,
        log.open(encoding="utf-8", errors="replace") as reading,
        subprocess.Popen(
            command, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        ) as process,
    ):
        try:
            _follow(process, reading, bar)
        except BaseException:
            process.terminate()
            raise
    if process.returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:])
        raise CommandFailedError(
            f"this command failed with exit code {process.returncode}:\n  {shlex.join(command)}\n"
            f"The end of its output:\n{tail}\n\nThe whole output is in {log}"
        )


def _follow(process: subprocess.Popen, reading: TextIO, bar: tqdm) -> None:
    """Show on the bar what a running command writes to its log, until it ends."""
    text, unfinished = "", ""
    while process.poll() is None:
        *lines, unfinished = (unfinished + reading.read()).split("\n")
        text = training_progress(lines, text)
        bar.set_postfix_str(text, refresh=False)
        bar.update(0)
        try:
            process.wait(_POLL_S)
        except subprocess.TimeoutExpired:
            continue
