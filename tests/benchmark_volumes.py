"""Guided against plain on volumes, at equal iterations and seeds, and what slice stride and guides for classes change.

    python tests/benchmark_volumes.py HIPPOCAMPUS [--iterations 100] [--seeds 3]

HIPPOCAMPUS is a folder with imagesTr and labelsTr of Task04 of the Medical Segmentation Decathlon, or of a part of it.
nnU-Net's own plans and fold 0 of its split; the encoder is the real DINOv2 ViT-S out of a wheel (the extra "demo"). For
the CPU, the planned network has half its features and the encoder a smaller input. Seconds are those of one training
step, measured side by side at the end.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hippocampus import VARIANTS, case_names, write_hippocampus
from nnunet_workspace import Workspace

from nnunetv2_guidino.demo.dinov2 import export_dinov2
from nnunetv2_guidino.plans import derive_plans, guide_settings

VARIANT = VARIANTS[0]
EPOCHS = 5
INPUT_SIZE = 112
SETTINGS: dict[str, dict[str, Any] | None] = {
    "plain": None,
    "guided": {},
    "guided, slice stride 2": {"slice_stride": 2},
    "guided, slice stride 4": {"slice_stride": 4},
    "guided, a guide for each class": {"guides": "classes"},
}


def prepared(source: Path, root: Path) -> Workspace:
    """Preprocessed, with a plans file for each of the settings."""
    workspace = Workspace(root)
    write_hippocampus(source, workspace.raw, VARIANT, case_names(source), [])
    workspace.run("nnUNetv2_plan_and_preprocess", "-d", VARIANT.number, "-c", "3d_fullres", "-npfp", 1, "-np", 2)
    encoder = root / "dinov2-small"
    export_dinov2(encoder)
    folder = workspace.preprocessed / VARIANT.dataset
    plans = json.loads((folder / "nnUNetPlans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    architecture["features_per_stage"] = [features // 2 for features in architecture["features_per_stage"]]
    for i, changed in enumerate(SETTINGS.values()):
        given = {"encoder": str(encoder), "min_input_size": INPUT_SIZE, **(changed or {})}
        derived = derive_plans(plans, f"nnUNetPlans_{i}", guide_settings(plans, given))
        (folder / f"nnUNetPlans_{i}.json").write_text(json.dumps(derived))
    return workspace


def trained(workspace: Workspace, plans: str, guided: bool, seed: int, iterations: int) -> tuple[float, float]:
    """Dice of the validation cases, and of the guide in the last epoch."""
    trainer = f"nnUNetTrainerGuiDINO{'' if guided else 'Baseline'}_{EPOCHS}epochs_{iterations // EPOCHS}iterations"
    trainer += f"_seed{seed}"
    workspace.train(trainer, plans=plans, dataset=VARIANT.number, configuration="3d_fullres")
    fold = workspace.results / VARIANT.dataset / f"{trainer}__{plans}__3d_fullres" / "fold_0"
    dice = json.loads((fold / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"]
    log = next(fold.glob("training_log*.txt")).read_text()
    guide = float(log.rsplit("Guide Dice ", 1)[1].split()[0]) if guided else float("nan")
    return dice, guide


def seconds_per_step(workspace: Workspace) -> list[float]:
    """Forward, loss and backward of each setting in turn, three times; the medians."""
    from nnunetv2.run.run_training import get_trainer_from_args

    os.environ |= {name: value for name, value in workspace.environment.items() if name.startswith("nnUNet_")}
    seconds: list[list[float]] = [[] for _ in SETTINGS]
    trainers = []
    for i, changed in enumerate(SETTINGS.values()):
        name = "nnUNetTrainerGuiDINOBaseline" if changed is None else "nnUNetTrainerGuiDINO"
        trainer = get_trainer_from_args(
            str(VARIANT.number), "3d_fullres", 0, name, f"nnUNetPlans_{i}", device=torch.device("cpu")
        )
        trainer.initialize()
        trainers.append(trainer)
    patch_size = trainers[0].configuration_manager.patch_size
    data = torch.randn(trainers[0].batch_size, 1, *patch_size)
    labels = torch.zeros(len(data), 1, *patch_size)
    labels[..., : patch_size[-1] // 2] = 1
    scales = trainers[0]._get_deep_supervision_scales()
    target = [torch.nn.functional.interpolate(labels, scale_factor=tuple(scale)) for scale in scales]
    for _ in range(3):
        for trainer, measured in zip(trainers, seconds, strict=True):
            begin = time.perf_counter()
            trainer.train_step({"data": data, "target": target})
            measured.append(time.perf_counter() - begin)
    return [float(np.median(measured)) for measured in seconds]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="HIPPOCAMPUS")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = prepared(args.data, Path(temporary))
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in SETTINGS}
        for seed in range(args.seeds):
            for i, (name, changed) in enumerate(SETTINGS.items()):
                result = trained(workspace, f"nnUNetPlans_{i}", changed is not None, seed, args.iterations)
                results[name].append(result)
                print(f"seed {seed}, {name}: Dice {result[0]:.3f}, guide {result[1]:.3f}", flush=True)
        print("| | Dice | guide's Dice | seconds per step |\n|---|---|---|---|")
        for (name, values), seconds in zip(results.items(), seconds_per_step(workspace), strict=True):
            (dice, guide), (dice_sd, guide_sd) = np.mean(values, axis=0), np.std(values, axis=0, ddof=1)
            guide_column = "" if np.isnan(guide) else f"{guide:.3f} ± {guide_sd:.3f}"
            print(f"| {name} | {dice:.3f} ± {dice_sd:.3f} | {guide_column} | {seconds:.1f} |")
