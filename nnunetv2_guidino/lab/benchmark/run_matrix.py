"""Run a matrix of trainings and report it, from Python or for `guidino benchmark`."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.derive import Preparation
from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.lab.benchmark.local import Log, places, run_local
from nnunetv2_guidino.lab.benchmark.matrix import Matrix, find_matrix, read_matrix
from nnunetv2_guidino.lab.benchmark.prepare import check_folds, dataset_names, missing_steps
from nnunetv2_guidino.lab.benchmark.script import write_script
from nnunetv2_guidino.lab.benchmark.slurm import Slurm, queue, run_slurm
from nnunetv2_guidino.lab.benchmark.state import State, resume_options, state_of
from nnunetv2_guidino.nnunet.folders import folder_of

LAUNCHERS = ("local", "slurm", "commands")


@dataclass(frozen=True)
class Launch:
    """The way to run the trainings.

    Args:
        launcher: "local", "slurm", or "commands", which writes a shell script and runs nothing.
        device: As nnU-Net's -device takes it.
        jobs: The number of trainings at once on this machine; None is one for each GPU, or one on a CPU.
        processes: The processes of planning and preprocessing; None is nnU-Net's number.
        slurm: The resources to request from Slurm.
    """

    launcher: str = "local"
    device: str = "cuda"
    jobs: int | None = None
    processes: int | None = None
    slurm: Slurm = field(default_factory=Slurm)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a benchmark.

    Args:
        jobs: All trainings.
        failed: The trainings that ended with an error in this run.
        written: The report or the script; None if no training has finished.
    """

    jobs: list[Job]
    failed: list[Job]
    written: Path | None


def benchmark(
    matrix: str | Path,
    output: Path | None = None,
    *,
    datasets: list[str] | None = None,
    launch: Launch | None = None,
    dry_run: bool = False,
    log: Log = print,
) -> Outcome:
    """Run the missing trainings of a matrix, and report the finished ones.

    The function makes missing plans and preprocessed data, keeps finished trainings and resumes interrupted ones. A
    training that fails does not stop the others.

    Args:
        matrix: A YAML file or the name of a preset.
        output: The folder of the report and its tables; the default is guidino_benchmark/NAME in the working directory.
        datasets: Names or numbers of data sets that replace those in the file.
        launch: How the trainings are run.
        dry_run: Only list the commands.
        log: The function that prints a line.

    Raises:
        GuidinoError: If the matrix, the data or this machine is unfit; no training has started then.
    """
    launch = launch or Launch()
    if launch.launcher not in LAUNCHERS:
        raise GuidinoError(f"--launcher {launch.launcher}: expected one of {', '.join(LAUNCHERS)}")
    checked = read_matrix(find_matrix(matrix), datasets)
    output = Path("guidino_benchmark") / checked.file.stem if output is None else Path(output)
    names = dataset_names(checked.datasets)
    jobs = checked.jobs(names, folder_of("nnUNet_results"), launch.device)
    steps = [step for name in names.values() for step in missing_steps(checked, name, launch.processes)]
    if dry_run or launch.launcher == "commands":
        return _write_or_list(checked, output, jobs, steps, dry_run, log)
    where = places(launch.device, launch.jobs) if launch.launcher == "local" else []
    for name in names.values():
        _prepare(checked, name, launch, log)
    queued = queue() if launch.launcher == "slurm" else {}
    states = {job: state_of(job, queued) for job in jobs}
    log(f"{checked.title}: {len(jobs)} trainings; {_counted(states)}")
    done = [job for job, state in states.items() if state is State.DONE]
    left = [job for job in jobs if job not in set(done)]
    if launch.launcher == "slurm":
        failed = run_slurm(left, launch.slurm, output / "slurm", log)
    else:
        failed = run_local(left, done, where, log)
    from nnunetv2_guidino.lab.benchmark.collect import collect  # imports torch, which takes seconds

    return Outcome(jobs, failed, collect(checked, jobs, output, log))


def _prepare(matrix: Matrix, name: str, launch: Launch, log: Log) -> None:
    """Make missing plans and data. A step may reveal the next one, such as the configurations of new plans."""
    made: list[list[str]] = []
    while steps := missing_steps(matrix, name, launch.processes):
        if steps[0].command in made:
            raise GuidinoError(f"{shlex.join(steps[0].command)} ended, but its output is missing")
        log(shlex.join(steps[0].command))
        steps[0].make()
        made.append(steps[0].command)
    check_folds(matrix, name)


def _write_or_list(
    matrix: Matrix, output: Path, jobs: list[Job], preparation: list[Preparation], dry_run: bool, log: Log
) -> Outcome:
    states = {job: state_of(job) for job in jobs}
    left = [job for job, state in states.items() if state is not State.DONE]
    if dry_run:
        for step in preparation:
            log(shlex.join(step.command))
        for job in left:
            log(shlex.join(job.command(*resume_options(job.folder))))
        log(f"{len(preparation)} commands that prepare, {len(left)} of {len(jobs)} trainings; {_counted(states)}")
        return Outcome(jobs, [], None)
    script = output / f"{matrix.file.stem}.sh"
    output.mkdir(parents=True, exist_ok=True)
    write_script(script, matrix.title, [(step.command, step.file) for step in preparation], jobs)
    return Outcome(jobs, [], script)


def _counted(states: dict[Job, State]) -> str:
    return ", ".join(f"{count} {state.value}" for state, count in Counter(states.values()).items())
