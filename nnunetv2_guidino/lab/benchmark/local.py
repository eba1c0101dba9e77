"""Trainings on this machine: one on each GPU, or several on shares of the cores."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, NamedTuple, NoReturn

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.clock import Clock, in_words
from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.lab.benchmark.state import State, last_lines, seconds_of
from nnunetv2_guidino.lab.benchmark.training_process import Run, RunsElsewhereError

Log = Callable[[str], None]
_GPU = re.compile(r"\d+|(GPU|MIG)-.+")  # what CUDA_VISIBLE_DEVICES names a GPU by


class Place(NamedTuple):
    """The place of one training beside others: the variables to set, and its cores (empty: all cores)."""

    environment: dict[str, str]
    cores: tuple[int, ...] = ()


def places(device: str, jobs: int | None) -> list[Place]:
    """Return the places of trainings that run at the same time.

    Args:
        device: cuda: one place on each GPU or MIG slice. Other devices: a share of the cores for each place.
        jobs: Number of places; None is one for each GPU, or one on a CPU. More jobs than GPUs share these in turn.

    Raises:
        GuidinoError: If there is no GPU, or there are more jobs than cores.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    numbers = sorted(os.sched_getaffinity(0)) if has_affinity else list(range(os.cpu_count() or 1))
    cores = len(numbers)
    if device == "cuda":
        gpus = visible_gpus()
        if not gpus:
            raise GuidinoError("-device cuda: nvidia-smi or CUDA_VISIBLE_DEVICES shows no GPU; give -device cpu")
        count = jobs or len(gpus)
        variables = _share(cores, count, 12)
        return [Place({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)], **variables}) for i in range(count)]
    count = jobs or 1
    if count > cores:
        raise GuidinoError(f"--jobs {count}: there are {cores} cores to share")
    threads = cores // count
    # threads that spin while they wait starve other processes; Python from 3.13 on obeys PYTHON_CPU_COUNT
    variables = {"OMP_NUM_THREADS": str(threads), "PYTHON_CPU_COUNT": str(threads), "OMP_WAIT_POLICY": "passive"}
    variables |= _share(cores, count, 2)
    return [Place(variables, tuple(numbers[i * threads : (i + 1) * threads])) for i in range(count)]


def _share(cores: int, count: int, most: int) -> dict[str, str]:
    """Return the number of nnU-Net's processes beside the training, unless the user has set it."""
    number = str(max(1, min(most, cores // count)))
    return {name: number for name in ("nnUNet_n_proc_DA", "nnUNet_def_n_proc") if name not in os.environ}


def visible_gpus() -> list[str]:
    """Return a value of CUDA_VISIBLE_DEVICES for each GPU that it allows now, or for each slice of a GPU with MIG."""
    slices = _slices_of_gpus()
    if "CUDA_VISIBLE_DEVICES" not in os.environ:
        return [name for number, names in slices.items() if number.isdigit() for name in names]
    # CUDA reads the list up to what names no GPU: -1 or a word such as NoDevFiles hides all
    named = takewhile(_GPU.fullmatch, map(str.strip, os.environ["CUDA_VISIBLE_DEVICES"].split(",")))
    return [name for gpu in named for name in slices.get(gpu, [gpu])]


def _slices_of_gpus() -> dict[str, list[str]]:
    """Return the UUIDs of each GPU's MIG slices, or its number if it has none, by its number and by its UUID."""
    if shutil.which("nvidia-smi") is None:
        return {}
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    found: dict[str, list[str]] = {}
    for gpu in re.split(r"^(?=GPU )", listed, flags=re.MULTILINE):
        if head := re.match(r"GPU (\d+):.*\(UUID: (\S+)\)", gpu):
            number, uuid = head.groups()
            slices = re.findall(r"\(UUID: (MIG-\S+)\)", gpu)
            found |= {number: slices or [number], uuid: slices or [uuid]}
    return found


def run_local(jobs: Sequence[Job], done: Sequence[Job], places: Sequence[Place], log: Log) -> list[Job]:
    """Run trainings, one in each place at a time, and return those that failed.

    A signal to this process ends all of them at once. Another run resumes them.

    Args:
        jobs: The trainings to run.
        done: Finished trainings, from which the time of one is estimated.
        places: The places.
        log: The function that prints a line.
    """
    clock = Clock()
    for job in done:
        if seconds := seconds_of(job.log):
            clock.learn(job.kind, seconds)
    waiting, running, failed = list(jobs), dict[int, Run](), list[Job]()
    with _signals_end_this():
        try:
            while waiting or running:
                _start(waiting, running, places, log)
                for number, run in list(running.items()):
                    if state := run.poll():
                        del running[number]
                        ended = len(jobs) - len(waiting) - len(running)
                        _learn(clock, run, state)
                        going = [(other.job.kind, other.seconds) for other in running.values()]
                        left = clock.to_go(going, [job.kind for job in waiting], len(places))
                        time_left = f"; {in_words(left)}" if waiting or running else ""
                        log(f"[{ended}/{len(jobs)}] {state.value}: {run.job.label}, {run.seconds:.0f} s{time_left}")
                        if state is State.FAILED:
                            failed.append(run.job)
                            log(failure(run.job))
                time.sleep(0.1)
        finally:
            for run in running.values():
                run.end()
    return failed


def _start(waiting: list[Job], running: dict[int, Run], places: Sequence[Place], log: Log) -> None:
    for number, place in enumerate(places):
        while waiting and number not in running:
            job = waiting.pop(0)
            try:
                running[number] = Run(job, place.environment, place.cores)
            except RunsElsewhereError:
                log(f"another process runs {job.label}")


def _learn(clock: Clock, run: Run, state: State) -> None:
    seconds = seconds_of(run.job.log)
    if state is State.DONE and seconds is not None:
        clock.learn(run.job.kind, seconds)


def failure(job: Job) -> str:
    """Return the last lines of a failed training's log, with its path."""
    return "\n".join([f"  {job.log}:", *(f"  | {line}" for line in last_lines(job.log))])


@contextmanager
def _signals_end_this() -> Iterator[None]:
    """Treat SIGTERM and SIGHUP like Ctrl-C."""

    def leave(number: int, frame: Any) -> NoReturn:
        raise KeyboardInterrupt

    heard = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) != signal.SIG_IGN]  # nohup ignores one
    before = {number: signal.signal(number, leave) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
