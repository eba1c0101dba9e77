"""Run a training as a child process with one log; it resumes, and never runs twice at the same time."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator, Mapping

from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.lab.benchmark.state import BEGIN, END, State, is_done, lock_training, resume_options
from nnunetv2_guidino.nnunet import leave_with_parent
from nnunetv2_guidino.nnunet.commands import executable


class Run:
    """A running training. It ends when this process ends, even by a kill.

    Args:
        job: The training; this process locks it.
        environment: Variables to set beside those of this process.
        cores: The cores that the training may use; an empty collection is all cores.

    Raises:
        RunsElsewhereError: If another process runs this training.
    """

    def __init__(self, job: Job, environment: Mapping[str, str], cores: Collection[int] = ()):
        self.job, self.begun = job, time.monotonic()
        lock = lock_training(job.folder)
        if lock is None:
            raise RunsElsewhereError(job.label)
        self.lock = lock
        command = job.command(*resume_options(job.folder))
        self.log = job.log.open("a", encoding="utf-8")
        self.log.write(f"{BEGIN}{time.strftime('%Y-%m-%d %H:%M:%S')} {shlex.join(command)}\n")
        self.log.flush()
        with _signals_kept_back(), _on_cores(cores):
            self.child = subprocess.Popen(
                [sys.executable, leave_with_parent.__file__, executable(command[0]), *command[1:]],
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | dict(environment),
                stdin=subprocess.PIPE,
                stdout=self.log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def seconds(self) -> float:
        """The seconds since the start."""
        return time.monotonic() - self.begun

    def poll(self) -> State | None:
        """Return DONE or FAILED after the training has ended, and None before."""
        code = self.child.poll()
        if code is None:
            return None
        done = is_done(self.job.folder)
        if code == 0 and not done:
            self.log.write("nnUNetv2_train left no checkpoint_final.pth, or no whole validation/summary.json\n")
            code = 1
        self._close(f"exit code {code} after {self.seconds:.0f} s")
        return State.DONE if code == 0 else State.FAILED

    def end(self) -> None:
        """Kill the training with all its workers."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()
        if not self.log.closed:
            self._close(f"interrupted after {self.seconds:.0f} s")

    def _close(self, ending: str) -> None:
        self.log.write(f"{END}{ending}\n")
        self.log.close()
        self.lock.release()
        assert self.child.stdin is not None
        self.child.stdin.close()


class RunsElsewhereError(Exception):
    """Another process runs this training."""


@contextlib.contextmanager
def _signals_kept_back() -> Iterator[None]:
    """Hide Slurm's warnings from the child: Slurm sends them to all processes of a job, and this one handles them."""
    warnings = {signal.SIGUSR1, signal.SIGUSR2}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, warnings)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _on_cores(cores: Collection[int]) -> Iterator[None]:
    """Bind the processes that start here to these cores.

    On the CPU nnU-Net uses as many threads as the machine has cores, whatever OMP_NUM_THREADS is. A smaller
    OMP_THREAD_LIMIT makes torch wait forever for threads that never start.
    """
    if not cores or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run_to_end(job: Job, environment: Mapping[str, str]) -> State:
    """Run a training unless it is done, and return its state. An exception in this function ends the training."""
    if is_done(job.folder):
        return State.DONE
    try:
        run = Run(job, environment)
    except RunsElsewhereError:
        return State.RUNNING
    try:
        while (state := run.poll()) is None:
            time.sleep(0.2)
        return state
    finally:
        run.end()
