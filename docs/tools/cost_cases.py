"""Measure what guidance costs in some cases, beside its alternatives, and write docs/benchmarks/cost_*.

    GUIDINO_ENCODER=ENCODER PYTHONPATH=tests/support python docs/tools/cost_cases.py [CASE …]

This plans random images with nnU-Net's own commands in a temporary folder, and runs `guidino cost` on the plans of each
case. It takes some two hours on two cores that have nothing else to do. Then `PYTHONPATH=tests/support python
docs/tools/cost_page.py` renews the tables of the docs.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import nibabel
import numpy as np
from nnunet_workspace import Workspace
from PIL import Image

from nnunetv2_guidino.config import default_encoder
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.source import find_encoder
from nnunetv2_guidino.model.networks.networks_by_name import planned_architecture

BENCHMARKS = Path(__file__).resolve().parents[2] / "docs" / "benchmarks"
PLAIN, RESENC, SEGDINO = "nnUNetPlans", "nnUNetResEncUNetMPlans", "nnUNetPlansSegDINO"


class Case(NamedTuple):
    """A data set of random images of one size, and the batch size of its training."""

    number: int
    shape: tuple[int, ...]
    batch_size: int

    @property
    def configuration(self) -> str:
        return "2d" if len(self.shape) == 2 else "3d_fullres"


CASES = {
    "2d_256": Case(911, (256, 256), batch_size=4),  # the paper's
    "2d_512": Case(912, (512, 512), batch_size=2),
    "3d": Case(913, (8, 128, 128), batch_size=2),  # 128³ with a sixteenth of its slices
}


def run_case(name: str, root: Path) -> None:
    """Plan, measure and copy the results."""
    case, workspace = CASES[name], Workspace(root)
    dataset = f"Dataset{case.number}_Cost{name.replace('_', '')}"
    write_images(workspace.raw / dataset, case.shape)
    workspace.run("nnUNetv2_extract_fingerprint", "-d", case.number, "-np", 1)
    workspace.run("nnUNetv2_plan_experiment", "-d", case.number)
    workspace.run("nnUNetv2_plan_experiment", "-d", case.number, "-pl", "nnUNetPlannerResEncM")
    folder = workspace.preprocessed / dataset
    shutil.copy(workspace.raw / dataset / "dataset.json", folder)  # preprocessing would copy it
    batch = f"configurations.{case.configuration}.batch_size={case.batch_size}"
    names = [f"{plans}B{case.batch_size}" for plans in (PLAIN, RESENC)]
    for plans, name_with_batch in zip((PLAIN, RESENC), names, strict=True):
        where = ("-d", case.number, "-c", case.configuration, "-p", plans, "-o", name_with_batch)
        workspace.run("guidino", "plan", *where, "--set", batch)
    beside = [] if case.configuration != "2d" else ["--beside", names[1], write_segdino(folder, names[0])]
    output = root / name
    command = workspace.command(
        "guidino", "cost", "-d", case.number, "-c", case.configuration, "-p", names[0], *beside,
        "-o", output,
    )  # fmt: skip
    # the threads of a user: the workspace's setting is for machines that run several programs
    environment = {key: value for key, value in workspace.environment.items() if key != "OMP_WAIT_POLICY"}
    subprocess.run(command, env=environment, check=True)
    for ending in ("json", "png"):
        shutil.copy(output / f"cost.{ending}", BENCHMARKS / f"cost_{name}.{ending}")


def write_images(folder: Path, shape: tuple[int, ...]) -> None:
    """Write two images with three channels, and a square or cube in each."""
    random = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    ending = ".png" if len(shape) == 2 else ".nii.gz"
    for case in "ab":
        label = np.zeros(shape, np.uint8)
        label[tuple(slice(side // 4, side // 2) for side in shape)] = 1
        if len(shape) == 2:
            Image.fromarray(random.integers(0, 255, (*shape, 3), np.uint8)).save(folder / f"imagesTr/{case}_0000.png")
            Image.fromarray(label).save(folder / f"labelsTr/{case}.png")
            continue
        for channel in range(3):
            volume = random.normal(size=shape[::-1]).astype(np.float32)
            nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), folder / f"imagesTr/{case}_000{channel}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(label.T.copy(), np.eye(4)), folder / f"labelsTr/{case}.nii.gz")
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "foreground": 1},
        "numTraining": 2,
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(description))


def write_segdino(folder: Path, plans: str) -> str:
    """Write plans with SegDINO instead of the planned network, on the same encoder, and return their name."""
    content = json.loads((folder / f"{plans}.json").read_text())
    settings = content["configurations"]["2d"]
    encoder = read_encoder_config(find_encoder(default_encoder()), None)
    settings["architecture"] = planned_architecture("segdino", settings, encoder_config=encoder)
    (folder / f"{SEGDINO}.json").write_text(json.dumps(content | {"plans_name": SEGDINO}))
    return SEGDINO


if __name__ == "__main__":
    for case_name in sys.argv[1:] or CASES:
        begin = time.monotonic()
        with tempfile.TemporaryDirectory() as temporary:
            run_case(case_name, Path(temporary))
        print(f"{case_name}: {time.monotonic() - begin:.0f} s", flush=True)
