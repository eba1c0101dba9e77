"""nnU-Net's own commands on a small data set in a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from nnunetv2_guidino.lab.demo.demo_data import Pair, phantom_cases

DATASET = "Dataset901_Small"
TINY_PLANS = "nnUNetPlansTiny"


class Workspace:
    """nnU-Net's three folders and commands, two processes at the most, on the CPU."""

    def __init__(self, root: Path):
        self.root = root
        self.raw, self.preprocessed, self.results = (
            root / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
        )
        self.environment = {
            **os.environ,
            "nnUNet_raw": str(self.raw),
            "nnUNet_preprocessed": str(self.preprocessed),
            "nnUNet_results": str(self.results),
            "nnUNet_def_n_proc": "1",
            "nnUNet_n_proc_DA": "1",
            "OMP_WAIT_POLICY": "passive",  # spinning threads starve the other processes of a small machine
            "PYTHONWARNINGS": "ignore",
        }

    def command(self, name: str, *arguments: object) -> list[str]:
        return [str(Path(sys.executable).parent / name), *map(str, arguments)]

    def run(self, name: str, *arguments: object, **environment: str) -> str:
        """The command's output; its failure is the test's."""
        done = subprocess.run(
            self.command(name, *arguments),
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-8000:]
        return done.stdout

    def train(
        self,
        trainer: str,
        *options: object,
        plans: str = TINY_PLANS,
        dataset: int = 901,
        configuration: str = "2d",
        fold: int | str = 0,
        **environment: str,
    ) -> str:
        where = (dataset, configuration, fold, "-tr", trainer, "-p", plans, "-device", "cpu")
        return self.run("nnUNetv2_train", *where, *options, **environment)

    def model_folder(self, trainer: str, plans: str = TINY_PLANS, configuration: str = "2d") -> Path:
        return self.results / DATASET / f"{trainer}__{plans}__{configuration}"


def write_dataset(folder: Path, cases: list[Pair], validation: int) -> None:
    """An nnU-Net data set of RGB images and masks, the last `validation` cases in fold 0's validation."""
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for case, image, mask in cases:
        Image.fromarray(image).save(folder / "imagesTr" / f"{case}_0000.png")
        Image.fromarray(mask.astype(np.uint8)).save(folder / "labelsTr" / f"{case}.png")
    description = {
        "channel_names": {"0": "R", "1": "G", "2": "B"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": len(cases),
        "file_ending": ".png",
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    names = [case.name for case in cases]
    (folder / "splits_final.json").write_text(json.dumps([{"train": names[:-validation], "val": names[-validation:]}]))


def small_cases(real_data_root: Path) -> list[Pair]:
    """Twelve colonoscopies of 64×64 pixels, or the demo's phantoms where no real images are at hand."""
    source = real_data_root / "kvasir-seg-352"
    if not source.is_dir():
        return phantom_cases("train", 12, seed=0)
    split = json.loads((source / "split.json").read_text())
    cases = []
    for name in [*split["train"][:8], *split["val"][:4]]:
        stem = Path(name).stem
        image = Image.open(next((source / "images").glob(f"{stem}.*"))).convert("RGB").resize((64, 64))
        mask = Image.open(next((source / "masks").glob(f"{stem}.*"))).convert("L").resize((64, 64))
        cases.append(Pair(stem, np.asarray(image), np.asarray(mask) > 127))
    return cases


def prepared_workspace(root: Path, cases: list[Pair], validation: int) -> Workspace:
    """Planned and preprocessed, with the split in place and a sibling of the plans that has few features."""
    workspace = Workspace(root)
    write_dataset(workspace.raw / DATASET, cases, validation)
    processes = ("-npfp", 1, "-np", 1)  # each imports torch
    workspace.run("nnUNetv2_plan_and_preprocess", "-d", 901, "-c", "2d", "--verify_dataset_integrity", *processes)
    folder = workspace.preprocessed / DATASET
    shutil.copy(workspace.raw / DATASET / "splits_final.json", folder)
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    plans["plans_name"] = TINY_PLANS
    architecture = plans["configurations"]["2d"]["architecture"]["arch_kwargs"]
    architecture["features_per_stage"] = [min(8 * 2**i, 32) for i in range(architecture["n_stages"])]
    (folder / f"{TINY_PLANS}.json").write_text(json.dumps(plans))
    return workspace
