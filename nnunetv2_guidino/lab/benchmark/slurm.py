"""Trainings on Slurm by submitit: one array, a log for each, a requeue on preemption and at the time limit."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import write_text
from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.lab.benchmark.local import Log, failure
from nnunetv2_guidino.lab.benchmark.state import State, slurm_job, state_of
from nnunetv2_guidino.lab.benchmark.training_process import run_to_end

POLL_SECONDS = 5.0
MOST_SILENT = 120  # questions in a row that Slurm may leave unanswered


@dataclass(frozen=True)
class Slurm:
    """The resources to request from Slurm for each training.

    Args:
        partition: The partition; None is the cluster's default.
        gpus: The number of GPUs; None is one if the device is cuda.
        minutes: The time limit; an unfinished training is requeued and resumes.
        cpus: The number of cores.
        memory: The memory in GB; None is the cluster's default.
        at_once: The number of trainings of the array that may run at once.
        requeues: The number of requeues at a time limit.
    """

    partition: str | None = None
    gpus: int | None = None
    minutes: int = 24 * 60
    cpus: int = 8
    memory: float | None = None
    at_once: int = 256
    requeues: int = 10


class Training:
    """The function that Slurm runs; it resumes the training, so a requeued job runs the same again."""

    def __call__(self, job: Job) -> str:
        """Run the training and return its final state."""
        cores = os.environ.get("SLURM_CPUS_PER_TASK", "1")
        shared = {"OMP_NUM_THREADS": cores, "PYTHON_CPU_COUNT": cores, "OMP_WAIT_POLICY": "passive"}
        state = run_to_end(job, shared if job.device == "cpu" else {})
        if state is State.FAILED:
            raise RuntimeError(f"failed, see {job.log}")  # Slurm reports the failure too
        return state.value

    def checkpoint(self, job: Job) -> Any:
        """Return the job to requeue; submitit calls this before Slurm takes the node away."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, job)


def run_slurm(jobs: Sequence[Job], wanted: Slurm, folder: Path, log: Log) -> list[Job]:
    """Submit the trainings that are not in Slurm's queue, wait for all, and return those that failed.

    Args:
        folder: The folder of submitit's files and Slurm's own logs.

    Raises:
        GuidinoError: If submitit or Slurm is missing, or if Slurm refuses.
    """
    waiting = queue()
    new = [job for job in jobs if slurm_job(job.folder) not in waiting]
    if new:
        submit(new, wanted, folder)
    log(f"{len(new)} trainings submitted, {len(jobs) - len(new)} were in the queue; Ctrl-C leaves them there")
    return _wait(list(jobs), folder, log)


def submit(jobs: Sequence[Job], wanted: Slurm, folder: Path) -> None:
    """Submit trainings as one array, and write each job's number into its result folder."""
    try:
        import submitit
    except ImportError as error:
        raise GuidinoError('--launcher slurm needs submitit; run pip install "nnunetv2-guidino[slurm]"') from error
    gpus = wanted.gpus if wanted.gpus is not None else int(jobs[0].device == "cuda")
    parameters: dict[str, Any] = {
        "job_name": "guidino",
        "time": wanted.minutes,
        "cpus_per_task": wanted.cpus,
        "array_parallelism": wanted.at_once,
        "additional_parameters": {"requeue": True},
    }
    parameters |= {"partition": wanted.partition} if wanted.partition else {}
    parameters |= {"gpus_per_node": gpus} if gpus else {}
    parameters |= {"mem": f"{round(wanted.memory * 1024)}M"} if wanted.memory else {}
    try:
        executor = submitit.SlurmExecutor(folder=folder, max_num_timeout=wanted.requeues)
        executor.update_parameters(**parameters)
        with executor.batch():
            submitted = [executor.submit(Training(), job) for job in jobs]
    except submitit.core.utils.FailedJobError as error:
        raise GuidinoError(f"Slurm refused the trainings: {str(error).strip().splitlines()[-1]}") from error
    for job, handle in zip(jobs, submitted, strict=True):
        job.folder.mkdir(parents=True, exist_ok=True)
        write_text(job.folder / "guidino_slurm_job", f"{handle.job_id}\n")


def queue() -> dict[str, str]:
    """Return the state of each job in Slurm's queue, with the jobs of an array one by one.

    Raises:
        GuidinoError: If Slurm is missing or does not answer.
    """
    try:
        done = subprocess.run(
            ["squeue", "--noheader", "--array", "--format=%i %T"], capture_output=True, text=True, check=False
        )
    except FileNotFoundError as error:
        raise GuidinoError("squeue was not found; run --launcher slurm on a machine that can submit jobs") from error
    if done.returncode != 0:
        raise GuidinoError(f"Slurm does not answer: {done.stderr.strip()}")
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if line.strip())


def _wait(left: list[Job], folder: Path, log: Log) -> list[Job]:
    """Log each training that ends until the queue is empty, and return those that are not done."""
    total, failed, silent = len(left), list[Job](), 0
    while left:
        time.sleep(POLL_SECONDS)
        try:
            queued = queue()
        except GuidinoError:  # a busy controller answers later
            silent += 1
            if silent > MOST_SILENT:
                raise
            continue
        silent = 0
        for job in list(left):
            state = state_of(job, queued)
            if state is State.RUNNING or slurm_job(job.folder) in queued:
                continue
            left.remove(job)
            log(f"[{total - len(left)}/{total}] {state.value}: {job.label}")
            if state is not State.DONE:
                failed.append(job)
                log(failure(job))
                log(f"  Slurm's own: {folder / f'{slurm_job(job.folder)}_0_log.err'}")
    return failed
