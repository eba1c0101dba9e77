import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunetv2_guidino import cli
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.demo import run_demo as command
from nnunetv2_guidino.nnunet import commands as nnunet_commands
from nnunetv2_guidino.nnunet.commands import run_command

# As nnU-Net prints an epoch: every line begins with the time and ends with a space.
EPOCH = [
    "Epoch 0",
    "Current learning rate: 0.01",
    "train_loss 0.4599",
    "val_loss -0.25",
    "Pseudo dice [np.float32(0.2648)]",
    "Epoch time: 9.04 s",
]


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A stand-in for one of nnU-Net's commands, beside a stand-in for the interpreter."""

    def write(body: str) -> str:
        file = tmp_path / "bin" / "nnUNetv2_stub"
        file.parent.mkdir()
        file.write_text(f"#!{sys.executable}\n{body}")
        file.chmod(0o755)
        file.with_name("python").symlink_to(sys.executable)
        monkeypatch.setattr(nnunet_commands.sys, "executable", str(file.with_name("python")))
        return file.name

    return write


def test_a_command_reports_its_epochs_and_logs_everything(script, tmp_path, capsys):
    run_command(
        script(f"for line in {EPOCH}: print('2026-01-01 00:00:00.123456:', line, '')"),
        "-d",
        "1",
        root=tmp_path,
        label="train plain",
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "train plain: nnUNetv2_stub -d 1"
    assert lines[1] == "  epoch 1: training loss 0.4599, validation Dice 0.2648, 9.04 s"
    assert len(lines) == 3
    assert "Current learning rate" in (tmp_path / "logs" / "train_plain.log").read_text()


def test_a_failed_command_names_its_log_and_shows_its_end(script, tmp_path):
    name = script("print('\\n'.join(map(str, range(50)))); raise SystemExit(3)")
    with pytest.raises(GuidinoError, match=r"exit code 3.*predict_plain\.log") as error:
        run_command(name, root=tmp_path, label="predict plain")
    assert str(error.value).splitlines()[-2:] == ["48", "49"]
    assert "20" not in str(error.value).splitlines()


def test_a_missing_command_says_what_to_install(tmp_path):
    with pytest.raises(GuidinoError, match=r"nnUNetv2_nonsense is not beside .*: install nnunetv2"):
        run_command("nnUNetv2_nonsense", root=tmp_path, label="x")


def test_an_earlier_run_is_kept(tmp_path):
    folders = [command.make_output_folder(tmp_path / "demo") for _ in range(3)]
    assert [folder.name for folder in folders] == ["demo", "demo_2", "demo_3"]


WORKERS = """
import multiprocessing, pathlib, time
def beat(file):
    for _ in range(600):
        file.write_text(str(time.monotonic()))
        time.sleep(0.05)
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    worker = context.Process(target=beat, args=(pathlib.Path("worker"),))
    worker.start()
    beat(pathlib.Path("command"))
"""
PARENT = """
from pathlib import Path
from nnunetv2_guidino.nnunet import commands
commands.shutil.which = lambda *_, **__: "bin/nnUNetv2_stub"
commands.run_command("nnUNetv2_stub", root=Path("root"), label="x")
"""


def is_beating(file: Path) -> bool:
    before = file.read_text()
    time.sleep(0.5)
    return file.read_text() != before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_command_and_its_workers_too(number, tmp_path):
    executable = tmp_path / "bin" / "nnUNetv2_stub"
    executable.parent.mkdir()
    executable.write_text(f"#!{sys.executable}\n{WORKERS}")
    executable.chmod(0o755)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[3])}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.DEVNULL,
        # a shell has its background jobs ignore it, and these tests' run may be one
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    files = [tmp_path / "command", tmp_path / "worker"]
    deadline = time.monotonic() + 60
    while not all(file.exists() and file.read_text() for file in files) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert all(map(is_beating, files))
    parent.send_signal(number)
    parent.wait(timeout=20)
    time.sleep(0.5)
    assert not any(map(is_beating, files))


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(GuidinoError, match="file/demo cannot be made"):
        command.make_output_folder(tmp_path / "file" / "demo")


@pytest.mark.slow
def test_demo_end_to_end(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "TRAIN_CASES", 10)
    monkeypatch.setattr(command, "HELDOUT_CASES", 2)
    root: Path = tmp_path / "demo"
    assert cli.main(["demo", "-o", str(root), "--epochs", "1", "--iterations", "2"]) == 0, capsys.readouterr().err
    table = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith(("plain", "guided"))]
    assert [row[0] for row in table] == ["plain", "guided"]
    assert all(0 <= float(value) <= 1 for row in table for value in row[1:3])
    picture = np.asarray(Image.open(root / "comparison.png"))
    assert picture.std() > 10
    assert {path.stem for path in (root / "logs").iterdir()} == {
        "preprocess", "train_plain", "predict_plain", "train_guided", "predict_guided", "picture"
    }  # fmt: skip
