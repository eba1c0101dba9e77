"""`guidino benchmark` through nnU-Net's own commands: from raw data on, killed, resumed, and one that fails."""

import contextlib
import csv
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from nnunet_workspace import DATASET, TINY_PLANS, Workspace, small_cases, write_dataset

from nnunetv2_guidino.lab.benchmark.run_matrix import Launch, benchmark

pytestmark = pytest.mark.slow

MATRIX = """
datasets: 901
methods:
  plain: {{plans: {plans}, trainer: nnUNetTrainerGuiDINOBaseline}}
  broken: {{plans: {plans}, guide: {{encoder: nobody/nothing}}}}
  guided: {{plans: {plans}, guide: {{encoder: {encoder}, min_input_size: 64, prototypes: 8}}}}
epochs: 3
iterations: 10
cases: 6
"""
TRAINER = "nnUNetTrainerGuiDINO{}_3epochs_10iterations_6cases_seed{}"


def run(workspace: Workspace, *arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        workspace.command("guidino", "benchmark", *arguments, "-device", "cpu"),
        env=workspace.environment,
        capture_output=True,
        text=True,
        check=False,
    )


def wait_for(line: str, log, process: subprocess.Popen) -> None:
    while not log.is_file() or line not in log.read_text():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def processes_of(folder) -> list[str]:
    """Command lines of all processes that were started with this folder in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (process / "cmdline").read_bytes()
            if str(folder).encode() in (process / "environ").read_bytes() and b"nnUNetv2_train" in line:
                found.append(line.decode())
    return found


def rows(file) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_killed_resumed_and_one_that_fails(workspace, tiny_encoder, tmp_path):
    matrix, output = tmp_path / "small.yaml", tmp_path / "out"
    text = MATRIX.format(plans=TINY_PLANS, encoder=tiny_encoder("dinov2"))
    matrix.write_text(text)
    plain = workspace.model_folder(TRAINER.format("Baseline", 0)) / "fold_0"
    log = plain / "guidino_benchmark.log"

    dry = run(workspace, matrix, "--dry-run").stdout
    assert dry.splitlines()[-1] == "2 commands that prepare, 3 of 3 trainings; 3 not begun"
    assert f"guidino plan -d {DATASET} -p {TINY_PLANS} -o {TINY_PLANS}_guided -c 2d" in dry
    assert not plain.exists()

    for ending, signal_number in (("killed", signal.SIGKILL), ("ended", signal.SIGTERM)):
        command = workspace.command("guidino", "benchmark", matrix, "-o", output, "-device", "cpu")
        process = subprocess.Popen(command, env=workspace.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        wait_for("Epoch 1" if ending == "killed" else " --c\n", log, process)
        while not processes_of(workspace.results):
            assert process.poll() is None
        process.send_signal(signal_number)
        process.communicate()
        deadline = time.monotonic() + 5
        while processes_of(workspace.results) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert processes_of(workspace.results) == []
        assert not (plain / "checkpoint_final.pth").exists()
    assert "interrupted after" in log.read_text()
    assert "1 interrupted" in run(workspace, matrix, "--dry-run").stdout

    done = run(workspace, matrix, "-o", output)
    assert done.returncode == 1, done.stdout + done.stderr
    resumed = log.read_text().rpartition(" --c\n")[2]
    assert "Epoch 2" in resumed
    assert "Epoch 0" not in resumed
    assert "2 not begun" in done.stdout
    assert f"failed: {DATASET} 2d broken fold 0 6 cases seed 0" in done.stdout
    assert "nobody/nothing" in done.stdout
    assert f"done: {DATASET} 2d guided fold 0 6 cases seed 0" in done.stdout
    assert f"note: {DATASET} 2d 6 cases: no training has finished of broken" in done.stdout
    states = {row["method"]: row["state"] for row in rows(output / "runs.csv")}
    assert states == {"plain": "done", "broken": "failed", "guided": "done"}
    assert {row["case"] for row in rows(output / "scores.csv")} == {
        path.stem for path in (plain / "validation").glob("*.png")
    }
    compared = {(row["method"], row["metric"]) for row in rows(output / "comparison.csv")}
    assert {("plain", "dice"), ("guided", "hd95")} <= compared
    epochs = [row["epoch"] for row in rows(output / "curves.csv") if row["method"] == "plain"]
    assert epochs == ["0", "1", "2"]  # of both starts
    report = (output / "report.html").read_text()
    assert "data:image/png;base64," in report
    assert "broken" in report
    (alone,) = rows(output / "guides.csv")
    assert (alone["method"], alone["class"], alone["cases"]) == ("guided", "lesion", "4")
    assert {row["method"]: row["guide_dice"] != "" for row in rows(output / "summary.csv")} == {
        "plain": False,
        "guided": True,
    }
    assert {row["case"] for row in rows(output / "worst_cases.csv")} <= {
        path.stem for path in (plain / "validation").glob("*.png")
    }

    # What is done is kept; a new seed is all that is missing.
    without_broken = "\n".join(line for line in text.splitlines() if "broken" not in line)
    matrix.write_text(without_broken)
    before = log.stat().st_mtime_ns
    again = run(workspace, matrix, "-o", output)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "2 trainings; 2 done" in again.stdout
    assert "the guide alone" in done.stdout
    assert "the guide alone" not in again.stdout  # it is kept
    assert log.stat().st_mtime_ns == before
    matrix.write_text(without_broken + "\nseeds: [0, 1]\n")
    dry = run(workspace, matrix, "--dry-run").stdout
    assert "2 of 4 trainings; 2 done, 2 not begun" in dry
    assert all("seed1" in line for line in dry.splitlines() if line.startswith("nnUNetv2_train"))

    # Another guide under a name that is taken is not trained as if it were the same.
    matrix.write_text(without_broken.replace("prototypes: 8", "prototypes: 9"))
    changed = run(workspace, matrix)
    assert changed.returncode == 1
    assert "was made with prototypes 8" in changed.stderr


def test_raw_data_are_planned_preprocessed_and_split(tmp_path, real_data_root, monkeypatch):
    workspace = Workspace(tmp_path)
    write_dataset(workspace.raw / DATASET, small_cases(real_data_root), validation=4)
    (workspace.raw / DATASET / "splits_final.json").unlink()  # nnU-Net would take it along
    for name, value in workspace.environment.items():
        monkeypatch.setenv(name, value)
    # a training in nnU-Net's place that does nothing
    monkeypatch.setattr("nnunetv2_guidino.lab.benchmark.run_matrix.run_local", lambda jobs, *rest: [])
    matrix = tmp_path / "raw.yaml"
    matrix.write_text("datasets: 901\nmethods: {plain: {}, product: {guide: {gate: product}}}\ncases: [4, all]")
    said: list[str] = []
    outcome = benchmark(matrix, tmp_path / "out", launch=Launch(device="cpu", processes=1), log=said.append)
    assert outcome.written is None
    assert said[0] == "nnUNetv2_plan_and_preprocess -d 901 -c 2d -np 1 -npfp 1"
    assert said[1].startswith(f"guidino plan -d {DATASET} -p nnUNetPlans -o nnUNetPlans_product -c 2d")
    assert said[-1] == "raw: 4 trainings; 4 not begun"
    folder = workspace.preprocessed / DATASET
    assert (folder / "splits_final.json").is_file()
    shutil.rmtree(folder / "gt_segmentations")  # as an interrupted preprocessing leaves it
    said.clear()
    benchmark(matrix, tmp_path / "out", launch=Launch(device="cpu", processes=1), log=said.append)
    assert said[0] == "nnUNetv2_preprocess -d 901 -c 2d -plans_name nnUNetPlans -np 1"
    matrix.write_text("datasets: 901\ncases: 11\n")
    with pytest.raises(Exception, match="raw.yaml: cases has 11, but fold 0 of Dataset901_Small has 9 training cases"):
        benchmark(matrix, tmp_path / "out", launch=Launch(device="cpu", processes=1), log=said.append)
