"""From a matrix to its report, from a notebook or for `guidino benchmark`."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from nnunetv2_guidino.benchmark.derive import Preparation
from nnunetv2_guidino.benchmark.job import Job
from nnunetv2_guidino.benchmark.local import Say, places, run_local
from nnunetv2_guidino.benchmark.matrix import Matrix, find_matrix, read_matrix
from nnunetv2_guidino.benchmark.prepare import check_folds, dataset_names, missing_steps
from nnunetv2_guidino.benchmark.script import write_script
from nnunetv2_guidino.benchmark.slurm import Slurm, queue, run_slurm
from nnunetv2_guidino.benchmark.state import State, resume_options, state_of
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.folders import folder_of

LAUNCHERS = ("local", "slurm", "commands")


@dataclass(frozen=True)
class Launch:
    """Who runs the trainings, and how.

    Args:
        launcher: "local", "slurm", or "commands", which writes a shell script and runs nothing.
        device: As nnU-Net's -device takes it.
        jobs: At once on this machine; None: one on each GPU, one on a CPU.
        processes: For planning and preprocessing; None: nnU-Net's number.
        slurm: What to ask Slurm for.
    """

    launcher: str = "local"
    device: str = "cuda"
    jobs: int | None = None
    processes: int | None = None
    slurm: Slurm = field(default_factory=Slurm)


@dataclass(frozen=True)
class Outcome:
    """How a benchmark ended.

    Args:
        jobs: All its trainings.
        failed: Those that ended with an error this time.
        written: The report, or the script; None where nothing is done yet.
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
    say: Say = print,
) -> Outcome:
    """Run what of a matrix is missing, and report what is done.

    Plans and preprocessed data that are missing are made, finished trainings kept, interrupted ones resumed; one that
    fails does not stop the rest.

    Args:
        matrix: A YAML file, or the name of a preset.
        output: For the report and its tables; default: guidino_benchmark/NAME in the working directory.
        datasets: Names or numbers, in place of those in the file.
        dry_run: Only say which commands would run.
        say: Prints a line.

    Raises:
        GuidinoError: For whatever is wrong with the matrix, the data or this machine; before any training starts.
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
        return _write_or_say(checked, output, jobs, steps, dry_run, say)
    where = places(launch.device, launch.jobs) if launch.launcher == "local" else []
    for name in names.values():
        _prepare(checked, name, launch, say)
    queued = queue() if launch.launcher == "slurm" else {}
    states = {job: state_of(job, queued) for job in jobs}
    say(f"{checked.title}: {len(jobs)} trainings; {_counted(states)}")
    done = [job for job, state in states.items() if state is State.DONE]
    left = [job for job in jobs if job not in set(done)]
    if launch.launcher == "slurm":
        failed = run_slurm(left, launch.slurm, output / "slurm", say)
    else:
        failed = run_local(left, done, where, say)
    from nnunetv2_guidino.benchmark.collect import collect  # brings torch, which takes seconds and is needed only here

    return Outcome(jobs, failed, collect(checked, jobs, output, say))


def _prepare(matrix: Matrix, name: str, launch: Launch, say: Say) -> None:
    """Make what is missing. Each step may show what is missing next: the configurations of new plans, for example."""
    made: list[list[str]] = []
    while steps := missing_steps(matrix, name, launch.processes):
        if steps[0].command in made:
            raise GuidinoError(f"{shlex.join(steps[0].command)} ended, but left out what it was asked for")
        say(shlex.join(steps[0].command))
        steps[0].make()
        made.append(steps[0].command)
    check_folds(matrix, name)


def _write_or_say(
    matrix: Matrix, output: Path, jobs: list[Job], preparation: list[Preparation], dry_run: bool, say: Say
) -> Outcome:
    states = {job: state_of(job) for job in jobs}
    left = [job for job, state in states.items() if state is not State.DONE]
    if dry_run:
        for step in preparation:
            say(shlex.join(step.command))
        for job in left:
            say(shlex.join(job.command(*resume_options(job.folder))))
        say(f"{len(preparation)} commands that prepare, {len(left)} of {len(jobs)} trainings; {_counted(states)}")
        return Outcome(jobs, [], None)
    script = output / f"{matrix.file.stem}.sh"
    output.mkdir(parents=True, exist_ok=True)
    write_script(script, matrix.title, [(step.command, step.file) for step in preparation], jobs)
    return Outcome(jobs, [], script)


def _counted(states: dict[Job, State]) -> str:
    return ", ".join(f"{count} {state.value}" for state, count in Counter(states.values()).items())
