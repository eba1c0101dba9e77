"""nnU-Net's own commands as child processes: progress on the screen, everything in a log file."""

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

TAIL = 15
# What the trainers print once an epoch; the time comes last.
EPOCH_LINE = re.compile(
    r"(Epoch|train_loss|Pseudo dice|Guide Dice|Epoch time:) \[?(?:np\.float\d+\()?([-\d.na]+)\S*(?: s)?\s*$"
)


def environment(root: Path) -> dict[str, str]:
    """nnU-Net's three paths below `root`, and few processes: each imports torch, and the images are small."""
    paths = {name: str(root / name) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    modest = {"nnUNet_n_proc_DA": "1", "nnUNet_def_n_proc": "1", "nnUNet_compile": "f", "OMP_NUM_THREADS": "1"}
    # threads that wait by spinning starve the augmentation worker where there are few cores
    modest["OMP_WAIT_POLICY"] = "passive"
    return os.environ | paths | modest | {"PYTHONUNBUFFERED": "1"}


def show_line(text: str, end: str = "\n") -> None:
    """Print over the line with a child's latest output, which only a terminal has."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        text = f"{text[:width]:{width}}"
    print(text, end=end, flush=True)


def run_command(command: str, *arguments: str, root: Path, label: str) -> float:
    """Run one of nnU-Net's commands, write its output to logs/, and return its seconds of wall time.

    Whatever ends this process, a signal too, ends the command and all its workers at once.

    Args:
        command: Such as "nnUNetv2_train"; it must lie beside the interpreter.
        arguments: Its options.
        root: Has nnU-Net's three folders, and logs/.
        label: What is printed of it; names its log.

    Raises:
        GuidinoError: With the log's name and its last lines, if the command fails.
    """
    executable = shutil.which(command, path=str(Path(sys.executable).parent))
    if executable is None:
        raise GuidinoError(f"{command} is not beside {sys.executable}: install nnunetv2 into this environment.")
    log_file = root / "logs" / f"{label.replace(' ', '_')}.log"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    print(f"{label}: {command} {' '.join(arguments)}", flush=True)
    start = time.monotonic()
    with log_file.open("w", encoding="utf-8") as log, _child([executable, *arguments], root) as child:
        epoch: dict[str, str] = {}
        for line in child.stdout or ():
            log.write(line)
            log.flush()
            _show_progress(line, epoch)
        child.wait()  # before the pipe closes by which it sees that this process is there
    if child.returncode != 0:
        tail = "".join(log_file.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)[-TAIL:])
        raise GuidinoError(f"{command} failed (exit code {child.returncode}), see {log_file}:\n{tail}")
    seconds = time.monotonic() - start
    show_line(f"  done in {seconds:.0f} s")
    return seconds


@contextmanager
def _child(command: list[str], root: Path) -> Iterator[subprocess.Popen[str]]:
    """The command as a child that leaves with this process; killed with all its workers if the block is left early."""
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
    """Print an epoch once all of it is there, and on a terminal whatever came last.

    Args:
        line: Of the command's output.
        epoch: What the epoch's lines have said so far; the line's is added.
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
