"""The state of a training, read from nnU-Net's result folder alone.

Read in nnU-Net 2.8.1: run_training.maybe_load_checkpoint resumes from checkpoint_final, _latest or _best, in this
order; perform_actual_validation writes validation/summary.json last.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from enum import Enum
from pathlib import Path

from filelock import FileLock, Timeout

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import ProcessLock, read_json
from nnunetv2_guidino.lab.benchmark.job import Job

# The lines that a run adds to its log; all other lines are nnU-Net's.
BEGIN, END = "=== guidino benchmark: ", "=== guidino benchmark ended: "
_ENDED = re.compile(re.escape(END) + r"exit code (-?\d+) after (\d+) s")
TAIL_BYTES = 20_000


class State(Enum):
    """The state of a training."""

    DONE = "done"  # trained and validated
    RUNNING = "running"  # a process holds it, or it is in Slurm's queue
    FAILED = "failed"  # its command ended with an error
    TRAINED = "not validated"  # --val is left
    INTERRUPTED = "interrupted"  # --c goes on
    MISSING = "not begun"


def state_of(job: Job, queued: Collection[str] = ()) -> State:
    """Return the state of a training.

    Args:
        queued: The jobs in Slurm's queue, as 12 or 12_3.
    """
    if is_done(job.folder):
        return State.DONE
    if is_held(job.folder) or slurm_job(job.folder) in queued:
        return State.RUNNING
    if (last_exit_code(job.log) or 0) != 0:
        return State.FAILED
    options = resume_options(job.folder)
    return {"--val": State.TRAINED, "--c": State.INTERRUPTED}[options[0]] if options else State.MISSING


def is_done(folder: Path) -> bool:
    """Return whether the final checkpoint and a whole summary of the validation exist."""
    return (folder / "checkpoint_final.pth").is_file() and _is_whole(folder / "validation" / "summary.json")


def _is_whole(summary: Path) -> bool:
    try:
        return "foreground_mean" in read_json(summary, dict)
    except GuidinoError:  # not there, or cut short by a kill
        return False


def resume_options(folder: Path) -> list[str]:
    """Return the options with which nnU-Net finishes the training."""
    if (folder / "checkpoint_final.pth").is_file():
        return ["--val"]
    resumable = any((folder / f"checkpoint_{name}.pth").is_file() for name in ("latest", "best"))
    return ["--c"] if resumable else []


def lock_training(folder: Path) -> FileLock | None:
    """Lock a training until the lock is released or the process ends; return None if another process has it.

    Raises:
        GuidinoError: If the folder cannot be written, or its file system has no locks: two processes could then run
            one training.
    """
    file = folder / "guidino_running"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = ProcessLock(file, timeout=1)  # is_held takes the lock for a moment too
        lock.acquire()
    except Timeout:
        return None
    except OSError as error:
        raise GuidinoError(f"{file} cannot be locked: {error.strerror or error}") from error
    return lock


def is_held(folder: Path) -> bool:
    """Return whether a process runs this training now."""
    if not (folder / "guidino_running").is_file():
        return False
    lock = lock_training(folder)
    if lock is not None:
        lock.release()
    return lock is None


def slurm_job(folder: Path) -> str | None:
    """Return the last Slurm job of this training."""
    try:
        return (folder / "guidino_slurm_job").read_text().strip()
    except OSError:
        return None


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def last_exit_code(log: Path) -> int | None:
    """Return the exit code of the last start; None if it still runs or was killed together with its parent."""
    last = _tail(log).rstrip().rpartition("\n")[2]
    found = _ENDED.fullmatch(last)
    return int(found[1]) if found else None


def last_lines(log: Path, count: int = 15) -> list[str]:
    """Return the last lines that nnU-Net printed."""
    lines = [line for line in _tail(log).splitlines() if line.strip() and not line.startswith((BEGIN, END))]
    return lines[-count:]


def seconds_of(log: Path) -> float | None:
    """Return the seconds of a training that ran without a break; None for any other."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = [line for line in text.splitlines() if line.startswith((BEGIN, END))]
    found = _ENDED.fullmatch(lines[-1]) if lines else None
    if found is None or found[1] != "0":
        return None
    begun = lines[-2] if len(lines) > 1 else ""
    whole = begun.startswith(BEGIN) and not begun.endswith((" --c", " --val"))
    return float(found[2]) if whole else None
