"""How far a training is, as its result folder says; what is expected of the time; which results are compared."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.clock import Clock, in_words
from nnunetv2_guidino.lab.benchmark.collect import common_places
from nnunetv2_guidino.lab.benchmark.job import Job
from nnunetv2_guidino.lab.benchmark.local import places
from nnunetv2_guidino.lab.benchmark.script import write_script
from nnunetv2_guidino.lab.benchmark.state import (
    BEGIN,
    END,
    State,
    last_lines,
    lock_training,
    resume_options,
    seconds_of,
    state_of,
)


@pytest.fixture
def job(tmp_path):
    trainer = "nnUNetTrainerGuiDINO_seed0"
    return Job("Dataset901_X", "2d", "guided", "nnUNetPlans", trainer, "0", 0, None, tmp_path / "results", "cpu")


def fill(job: Job, *names: str, summary: str | None = None) -> None:
    (job.folder / "validation").mkdir(parents=True, exist_ok=True)
    for name in names:
        (job.folder / f"checkpoint_{name}.pth").touch()
    if summary is not None:
        (job.folder / "validation" / "summary.json").write_text(summary)


WHOLE = json.dumps({"foreground_mean": {}})


@pytest.mark.parametrize(
    ("checkpoints", "summary", "state", "options"),
    [
        ([], None, State.MISSING, []),
        (["best"], None, State.INTERRUPTED, ["--c"]),
        (["latest", "best"], None, State.INTERRUPTED, ["--c"]),
        (["final", "best"], None, State.TRAINED, ["--val"]),
        (["final"], WHOLE[:9], State.TRAINED, ["--val"]),  # killed while it was written
        (["best"], WHOLE, State.INTERRUPTED, ["--c"]),  # of an earlier training
        (["final"], WHOLE, State.DONE, ["--val"]),
    ],
)
def test_state_is_read_from_nnunet_s_files(checkpoints, summary, state, options, job):
    fill(job, *checkpoints, summary=summary)
    assert state_of(job) is state
    assert resume_options(job.folder) == options


def test_nothing_there_is_not_begun(job):
    assert state_of(job) is State.MISSING
    assert not job.folder.exists()  # asking leaves nothing behind


def test_who_holds_a_training_runs_it(job):
    lock = lock_training(job.folder)
    assert state_of(job) is State.RUNNING
    assert lock_training(job.folder) is None
    lock.release()
    assert state_of(job) is State.MISSING


def test_a_killed_holder_holds_nothing(job):
    code = "import sys, pathlib, time; from nnunetv2_guidino.lab.benchmark.state import lock_training\n"
    code += "lock = lock_training(pathlib.Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, job.folder], stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    assert state_of(job) is State.RUNNING
    holder.kill()
    holder.communicate()
    assert state_of(job) is State.MISSING


def test_slurm_s_queue_counts_as_running(job):
    fill(job, "best")
    (job.folder / "guidino_slurm_job").write_text("12_3\n")
    assert state_of(job, {"12_3": "PENDING"}) is State.RUNNING
    assert state_of(job, {"12_4": "RUNNING"}) is State.INTERRUPTED


def test_failed_differs_from_interrupted_by_the_last_line_of_the_log(job):
    fill(job, "best")
    job.log.write_text(f"{BEGIN}today nnUNetv2_train\nEpoch 0\nValueError: no\n{END}exit code 1 after 7 s\n")
    assert state_of(job) is State.FAILED
    assert last_lines(job.log) == ["Epoch 0", "ValueError: no"]
    with job.log.open("a") as log:
        log.write(f"{BEGIN}today nnUNetv2_train --c\nEpoch 1\n")
    assert state_of(job) is State.INTERRUPTED


def test_only_a_training_at_one_go_tells_how_long_one_takes(job):
    fill(job)
    job.log.write_text(f"{BEGIN}today nnUNetv2_train\n{END}exit code 0 after 7 s\n")
    assert seconds_of(job.log) == 7
    job.log.write_text(f"{BEGIN}today nnUNetv2_train --c\n{END}exit code 0 after 7 s\n")
    assert seconds_of(job.log) is None


def test_time_to_go_is_what_the_places_still_have_to_do():
    clock, short, long = Clock(), ("d", "2d", "plain"), ("d", "2d", "guided")
    assert clock.to_go([], [short], 1) is None
    assert "known when the first has ended" in in_words(None)
    clock.learn(short, 10)
    assert clock.to_go([], [short, long], 1) == 20  # nothing better is known of the long one
    clock.learn(long, 100)
    assert clock.to_go([(long, 30)], [short, short, short], 2) == 70
    assert clock.to_go([(long, 130)], [short, short], 1) == 20  # longer than expected: about to end
    assert in_words(70) == "about 70 s to go"
    assert in_words(600) == "about 10 min to go"


def test_methods_are_compared_on_a_whole_grid_of_seeds_and_folds():
    everything = {(seed, fold) for seed in (0, 1) for fold in ("0", "1")}
    assert common_places([everything, everything]) == sorted(everything)
    assert common_places([everything, everything - {(1, "1")}]) == [(0, "0"), (0, "1")]
    assert common_places([everything, {(0, "1"), (1, "0")}]) in ([(0, "1")], [(1, "0")])
    assert common_places([{(0, "0")}, {(1, "0")}]) == []


def test_gpus_and_cores_are_dealt_out(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places("cuda", None)] == ["2", "5"]
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places("cuda", 3)] == ["2", "5", "2"]
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert [place.environment["OMP_NUM_THREADS"] for place in places("cpu", 2)] == ["4", "4"]
    assert [place.cores for place in places("cpu", 3)] == [(0, 1), (2, 3), (4, 5)]
    with pytest.raises(GuidinoError, match="--jobs 9: there are 8 cores to share"):
        places("cpu", 9)


LISTED = """GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6)
  MIG 3g.20gb     Device  0: (UUID: MIG-c7384736)
  MIG 3g.20gb     Device  1: (UUID: MIG-a28ad590)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-8932f937)
"""


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["MIG-c7384736", "MIG-a28ad590", "1"]),
        ("0", ["MIG-c7384736", "MIG-a28ad590"]),
        ("GPU-5d5ba0d6, 1", ["MIG-c7384736", "MIG-a28ad590", "1"]),
        ("MIG-a28ad590", ["MIG-a28ad590"]),
        ("1,-1,0", ["1"]),
        ("-1", []),
        ("NoDevFiles", []),
        ("", []),
    ],
)
def test_each_slice_of_a_gpu_is_a_place(visible, expected, monkeypatch, tmp_path):
    nvidia_smi = tmp_path / "nvidia-smi"
    nvidia_smi.write_text(f"#!/bin/sh\ncat <<END\n{LISTED}END\n")
    nvidia_smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    if not expected:
        with pytest.raises(GuidinoError, match="CUDA_VISIBLE_DEVICES shows no GPU; give -device cpu"):
            places("cuda", None)
        return
    assert [place.environment["CUDA_VISIBLE_DEVICES"] for place in places("cuda", None)] == expected


def test_script_resumes_and_goes_on_after_a_failure(job, tmp_path, monkeypatch):
    """With a command in nnU-Net's place that says what it was asked for."""
    stub = tmp_path / "bin" / "nnUNetv2_train"
    stub.parent.mkdir()
    stub.write_text('#!/bin/sh\necho "$@"\n[ "$3" != 1 ]\n')
    stub.chmod(0o755)
    jobs = [Job(**{**job.__dict__, "fold": fold}) for fold in ("0", "1", "2", "3")]
    fill(jobs[0], "final", summary=WHOLE)
    fill(jobs[2], "best")
    script = tmp_path / "a matrix.sh"
    write_script(script, "title", [(["touch", str(tmp_path / "prepared")], None)], jobs)

    def run(*arguments: str) -> subprocess.CompletedProcess:
        environment = {"PATH": f"{stub.parent}:/usr/bin:/bin"}
        return subprocess.run(
            ["sh", str(script), *arguments], env=environment, capture_output=True, text=True, check=False
        )

    done = run()
    assert done.returncode == 1
    assert Path(tmp_path / "prepared").is_file()
    lines = done.stdout.splitlines()
    assert [(line.split()[2], line.endswith("--c")) for line in lines] == [("1", False), ("2", True), ("3", False)]
    assert "failed: nnUNetv2_train Dataset901_X 2d 1 " in done.stderr
    assert run("3").stdout.splitlines() == lines[1:2]
    (tmp_path / "prepared").unlink()
    assert run().stdout == done.stdout
    assert not (tmp_path / "prepared").exists()  # once is enough
    assert run("prepare").stdout == ""
    assert (tmp_path / "prepared").is_file()
