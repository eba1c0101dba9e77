"""The presets of the paper's tables end to end: all rows, two trainings at once, the smallest networks."""

from __future__ import annotations

import csv
import re
import subprocess
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tiny_networks
import yaml
from nnunet_workspace import TINY_PLANS, Workspace
from transformers import AutoConfig, AutoModel

from nnunetv2_guidino.lab.benchmark.matrix import presets

pytestmark = pytest.mark.slow


def tiny(preset: str) -> dict[str, Any]:
    """Return the preset with small networks, one seed and one iteration, and the same rows."""
    matrix = yaml.safe_load(presets()[preset].read_text())
    for method in matrix["methods"].values():
        method["plans"] = TINY_PLANS
        if "guide" in method:
            method["guide"] |= {"prototypes": 8, "min_input_size": 64}
        if "architecture" in method:
            given = method["architecture"]
            given = given if isinstance(given, dict) else {"name": given}
            small = {
                key: value for key, value in tiny_networks.SETTINGS[given["name"]].items() if key != "encoder_config"
            }
            weights = {"pretrained": None} if given["name"] in ("swin_unet", "h2former") else {}
            method["architecture"] = {**given, **small, **weights}
    return matrix | {"seeds": [0], "epochs": 1, "iterations": 1}


@pytest.fixture
def encoder(tmp_path) -> Path:
    """Save a transformer of four blocks, which SegDINO needs."""
    AutoModel.from_config(AutoConfig.for_model(**tiny_networks.encoder_config())).save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def run(workspace: Workspace, folder: Path, preset: str, encoder: Path) -> str:
    (folder / f"{preset}.yaml").write_text(yaml.safe_dump(tiny(preset), sort_keys=False))
    arguments = (folder / f"{preset}.yaml", "-d", 901, "-o", folder / preset, "-device", "cpu", "--jobs", 2)
    done = subprocess.run(
        workspace.command("guidino", "benchmark", *arguments),
        env=workspace.environment | {"GUIDINO_ENCODER": str(encoder)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def spans(folders: list[Path]) -> list[tuple[datetime, datetime]]:
    """Return the time span of each training from its log."""
    found = []
    for folder in folders:
        log = (folder / "guidino_benchmark.log").read_text()
        begun = datetime.fromisoformat(re.findall(r"^=== guidino benchmark: (\S+ \S+)", log, re.MULTILINE)[0])
        seconds = int(re.findall(r"ended: exit code 0 after (\d+) s", log)[0])
        found.append((begun, begun + timedelta(seconds=seconds)))
    return sorted(found)


def test_all_rows_of_all_tables(workspace, tmp_path, encoder):
    new = {"table1": "7 trainings; 7 not begun", "table2": "4 trainings; 3 done, 1 not begun"}
    new["table3"] = "6 trainings; 2 done, 4 not begun"  # the trainings of earlier tables are kept
    for preset, counted in new.items():
        said = run(workspace, tmp_path, preset, encoder)
        assert counted in said
        runs = rows(tmp_path / preset / "runs.csv")
        assert [row["method"] for row in runs] == [*tiny(preset)["methods"]]
        assert {row["state"] for row in runs} == {"done"}
        compared = {row["method"] for row in rows(tmp_path / preset / "comparison.csv")}
        assert compared == {*tiny(preset)["methods"]}
        if preset == "table1":
            (_, first_end), (second_begin, _), *_ = spans([Path(row["folder"]) for row in runs])
            assert second_begin < first_end  # two at once
