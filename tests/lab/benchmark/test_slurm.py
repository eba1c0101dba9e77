"""`guidino benchmark --launcher slurm` on a real Slurm that the test starts: killed, requeued, resumed; one fails."""

import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from nnunet_workspace import DATASET, TINY_PLANS
from slurm import single_node_slurm, why_not

from nnunetv2_guidino.lab.benchmark.state import slurm_job

pytestmark = pytest.mark.slow

MATRIX = f"""
datasets: 901
methods:
  plain: {{plans: {TINY_PLANS}, trainer: nnUNetTrainerGuiDINOBaseline}}
  broken: {{plans: {TINY_PLANS}, guide: {{encoder: nobody/nothing}}}}
epochs: 4
iterations: 10
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture(scope="module")
def slurm():
    pytest.importorskip("submitit", reason="submitit is not installed: pip install nnunetv2-guidino[slurm]")
    if reason := why_not():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="slurm"))
    with single_node_slurm(folder, free_port()) as environment:
        yield environment
    shutil.rmtree(folder, ignore_errors=True)


def states_in_queue(environment: dict[str, str]) -> dict[str, str]:
    command = ["squeue", "--noheader", "--array", "--format=%i %T"]
    listed = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return dict(line.split() for line in listed.splitlines())


def wait_until(condition, process: subprocess.Popen, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.2)


def test_killed_requeued_and_one_that_fails(slurm, workspace, tmp_path):
    matrix, output = tmp_path / "slurm.yaml", tmp_path / "out"
    matrix.write_text(MATRIX)
    trainer = "nnUNetTrainerGuiDINOBaseline_4epochs_10iterations_seed0"
    fold = workspace.model_folder(trainer) / "fold_0"
    log = fold / "guidino_benchmark.log"
    environment = {**workspace.environment, **slurm}
    options = ("--launcher", "slurm", "--partition", "main", "--cpus", 1, "--minutes", 30, "--at-once", 1)
    command = workspace.command("guidino", "benchmark", matrix, "-o", output, "-device", "cpu", *options)

    piped = {"env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, **piped)
    try:
        wait_until((fold / "checkpoint_best.pth").is_file, process)
    finally:
        process.kill()  # whoever waits may go; what is queued stays
        process.communicate()
    job = slurm_job(fold)
    subprocess.run(["scontrol", "requeue", job], env=environment, check=True)
    begin_now = ["scontrol", "update", f"JobId={job}", "StartTime=now"]  # Slurm gives a requeued job two minutes
    for _ in range(60):
        if states_in_queue(environment).get(job) == "PENDING":
            subprocess.run(begin_now, env=environment, check=True)
            break
        time.sleep(0.5)

    done = subprocess.run(command, **piped, timeout=400, check=False)
    said = done.stdout
    counts = re.search(r"(\d) trainings submitted, (\d) were in the queue", said)
    submitted, waiting = map(int, counts.groups())
    # The killed one waits for its turn; the other may have had its own meanwhile, and is tried again then.
    assert (submitted, waiting) in ((0, 2), (1, 1))
    assert slurm_job(fold) == job
    assert done.returncode == 1
    assert f"done: {DATASET} 2d plain fold 0 seed 0" in said
    assert f"failed: {DATASET} 2d broken fold 0 seed 0" in said
    resumed = log.read_text().rpartition(" --c\n")[2]
    assert "Epoch 3" in resumed
    assert "Epoch 0" not in resumed
    assert (output / "report.html").is_file()


def test_no_slurm_is_said(workspace, tmp_path):
    matrix = tmp_path / "slurm.yaml"
    matrix.write_text(MATRIX)
    environment = {**workspace.environment, "PATH": "/nowhere", "SLURM_CONF": "/nowhere"}
    command = workspace.command("guidino", "benchmark", matrix, "-device", "cpu", "--launcher", "slurm")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "squeue was not found; run --launcher slurm on a machine that can submit jobs" in done.stderr
