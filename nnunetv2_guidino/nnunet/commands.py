"""Run nnU-Net's own commands as child processes, with progress on the screen and all output in a log file."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet import leave_with_parent
from nnunetv2_guidino.nnunet.folders import VARIABLES

TAIL = 15
# Lines that the trainers print once an epoch; the time comes last.
EPOCH_LINE = re.compile(
    r"(Epoch|train_loss|Pseudo dice|Guide Dice|Epoch time:) \[?(?:np\.float\d+\()?([-\d.na]+)\S*(?: s)?\s*$"
)


def environment(root: Path) -> dict[str, str]:
    """Return variables with nnU-Net's three paths below `root`, and few processes, since each imports torch."""
    paths = {name: str(root / name) for name in VARIABLES}
    modest = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f", "OMP_NUM_THREADS": "1"}
    # threads that wait by spinning starve the augmentation worker where there are few cores
    modest["OMP_WAIT_POLICY"] = "passive"
    return os.environ | paths | modest | {"PYTHONUNBUFFERED": "1"}


def executable(command: str) -> str:
    """Return the path of a command in this environment; raise GuidinoError if it is missing."""
    found = shutil.which(command, path=str(Path(sys.executable).parent))
    if found is None:
        raise GuidinoError(f"{command} is not beside {sys.executable}: install nnunetv2 into this environment")
    return found


def failed(command: str, code: int, log: Path) -> GuidinoError:
    """Return the error that a command failed, with the last lines of its log."""
    tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-TAIL:])
    return GuidinoError(f"{command} failed (exit code {code}), see {log}:\n{tail}")


def show_line(text: str, end: str = "\n") -> None:
    """Print over the line with a child's latest output, which only a terminal has."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        text = f"{text[:width]:{width}}"
    print(text, end=end, flush=True)


def run_command(command: str, *arguments: str, root: Path, label: str) -> float:
    """Run one of nnU-Net's commands, write its output to logs/, and return its seconds of wall time.

    The command and all its workers end at once when this process ends, even by a signal.

    Args:
        command: Name of a command beside the interpreter, such as "nnUNetv2_train".
        arguments: Options of the command.
        root: Folder with nnU-Net's three folders and logs/.
        label: Name of the command on the screen and of its log.

    Raises:
        GuidinoError: If the command fails. The error has the log's path and last lines.
    """
    program = executable(command)
    log_file = root / "logs" / f"{label.replace(' ', '_')}.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    print(f"{label}: {command} {' '.join(arguments)}", flush=True)
    start = time.monotonic()
    with log_file.open("w", encoding="utf-8") as log, _child([program, *arguments], root) as child:
        epoch: dict[str, str] = {}
        for line in child.stdout or ():
            log.write(line)
            log.flush()
            _show_progress(line, epoch)
        child.wait()  # before the pipe closes by which it sees that this process is there
    if child.returncode != 0:
        raise failed(command, child.returncode, log_file)
    seconds = time.monotonic() - start
    show_line(f"  done in {seconds:.0f} s")
    return seconds


@contextmanager
def _child(command: list[str], root: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the command as a child that ends with this process, and kill it with all its workers after an error."""
    child = subprocess.Popen(
        [sys.executable, leave_with_parent.__file__, *command],
        env=environment(root),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    with child:
        try:
            yield child
        finally:
            assert child.stdin is not None
            child.stdin.close()


def _show_progress(line: str, epoch: dict[str, str]) -> None:
    """Print an epoch when its last line has come, and on a terminal also each line of output.

    Args:
        line: Line of the command's output.
        epoch: Values of the epoch's lines so far; that of the line is added.
    """
    if found := EPOCH_LINE.search(line):
        epoch[found[1]] = found[2]
    if found and found[1] == "Epoch time:" and {"Epoch", "train_loss", "Pseudo dice"} <= epoch.keys():
        guide = f" (guide {epoch['Guide Dice']})" if "Guide Dice" in epoch else ""
        show_line(
            f"  epoch {int(epoch['Epoch']) + 1}: training loss {epoch['train_loss']}, "
            f"validation Dice {epoch['Pseudo dice']}{guide}, {found[2]} s"
        )
    elif sys.stdout.isatty() and line.strip():
        show_line(f"  {line.strip()}", end="\r")
