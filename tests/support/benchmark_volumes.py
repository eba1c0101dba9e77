"""Guided against plain on volumes at equal iterations and seeds, and what a guide of every n-th slice costs in quality.

    python tests/support/benchmark_volumes.py HIPPOCAMPUS [--iterations 100] [--seeds 3]

HIPPOCAMPUS is a folder with imagesTr and labelsTr of Task04 of the Medical Segmentation Decathlon, or of a part of it.
nnU-Net's own plans and fold 0 of its split; the encoder is the real DINOv2 ViT-S out of a wheel (the extra "demo"). For
the CPU, the voxels have 2 mm instead of 1 mm, and the encoder a smaller input.

The first table: a TokenBook alone is trained on all slices, and its guide computed from every n-th slice. Seconds are
those of a training step of the whole network, measured side by side. The second table: whole trainings.
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
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from hippocampus import VARIANTS, case_names, write_hippocampus
from nnunet_workspace import Workspace
from nnunetv2.run.run_training import get_trainer_from_args
from torch import Tensor

from nnunetv2_guidino.lab.demo.dinov2 import export_dinov2
from nnunetv2_guidino.lab.probe.probing import train_tokenbook
from nnunetv2_guidino.model.guide.slices import between_slices, slice_positions
from nnunetv2_guidino.model.guide.tokenbook import TokenBook
from nnunetv2_guidino.model.losses.guide_loss import guide_counts
from nnunetv2_guidino.model.losses.target import Annotation
from nnunetv2_guidino.nnunet.plans_file import PlansFile

VARIANT = VARIANTS[0]
INPUT_SIZE = 112
EPOCHS = 5
STRIDES = (1, 2, 4)
TOKENBOOK_STEPS = 1000
PLAIN, GUIDED, CLASSES = "plain", "one guide", "a guide for each class"
BY_STRIDE = {stride: GUIDED if stride == 1 else f"slice stride {stride}" for stride in STRIDES}
SETTINGS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    **{setting: {"slice_stride": stride} for stride, setting in BY_STRIDE.items()},
    CLASSES: {"guides": "classes"},
}
COMPARED = (PLAIN, GUIDED, CLASSES)


def plans_name(setting: str) -> str:
    return "nnUNetPlans_" + setting.replace(" ", "_")


def prepared(source: Path, root: Path) -> Workspace:
    """Preprocessed, with a plans file for each of the settings."""
    workspace = Workspace(root)
    write_hippocampus(source, workspace.raw, VARIANT, case_names(source), [])
    spacing = ("-overwrite_target_spacing", 2, 2, 2, "-overwrite_plans_name", "nnUNetPlans2mm")
    processes = ("-npfp", 1, "-np", 2)
    workspace.run("nnUNetv2_plan_and_preprocess", "-d", VARIANT.number, "-c", "3d_fullres", *spacing, *processes)
    encoder = root / "dinov2-small"
    export_dinov2(encoder)
    folder = workspace.preprocessed / VARIANT.dataset
    plans = PlansFile.read(folder / "nnUNetPlans2mm.json")
    for setting, changed in SETTINGS.items():
        given = {"encoder": str(encoder), "min_input_size": INPUT_SIZE, **changed}
        plans.with_guide(given, plans_name=plans_name(setting)).write()
    os.environ |= {name: value for name, value in workspace.environment.items() if name.startswith("nnUNet_")}
    return workspace


def trainer_of(setting: str) -> Any:
    name = f"nnUNetTrainerGuiDINO{'Baseline' if setting == PLAIN else ''}"
    where = (str(VARIANT.number), "3d_fullres", 0, name, plans_name(setting))
    trainer = get_trainer_from_args(*where, device=torch.device("cpu"))
    trainer.initialize()
    return trainer


def volumes(trainer: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each part, tokens (cases, C, D, h, w) and foreground (cases, 1, D, H, W) of a patch in the middle."""
    size = np.array(trainer.configuration_manager.patch_size)
    parts = {}
    for part, dataset in zip(("train", "val"), trainer.get_tr_and_val_datasets(), strict=True):
        tokens, masks = [], []
        for name in dataset.identifiers:
            data, labels, *_ = dataset.load_case(name)
            start = (np.array(data.shape[1:]) - size) // 2
            box = np.stack((start, start + size), axis=1).tolist()
            slices = torch.from_numpy(crop_and_pad_nd(np.asarray(data), box)).float().movedim(1, 0)
            tokens.append(trainer.network.token_encoder(slices).movedim(0, 1))
            masks.append(torch.from_numpy(crop_and_pad_nd(np.asarray(labels), box) > 0))
        parts[part] = torch.stack(tokens), torch.stack(masks)
    return parts


def guide_dice_by_stride(parts: dict[str, tuple[Tensor, Tensor]], seed: int) -> list[float]:
    """Of a TokenBook trained on all slices, the Dice of the guide computed from every n-th."""
    (tokens, masks), (val_tokens, val_masks) = parts["train"], parts["val"]
    torch.manual_seed(seed)
    book = TokenBook(tokens.shape[1], 256, "cosine", "logistic")
    slices, truth = (volumes.transpose(1, 2).flatten(0, 1) for volumes in (tokens, masks))
    train_tokenbook(book, slices, Annotation(truth, torch.ones_like(truth)), TOKENBOOK_STEPS)
    depth = val_tokens.shape[2]
    dice = []
    for stride in STRIDES:
        positions = slice_positions(depth, stride)
        with torch.no_grad():
            logits = torch.stack([book.logits(val_tokens[:, :, z]) for z in positions], dim=2)
        guide = between_slices(logits, positions, depth).sigmoid()
        tp, fp, fn = map(int, guide_counts(guide, Annotation(val_masks, torch.ones_like(val_masks))).values())
        dice.append(2 * tp / (2 * tp + fp + fn))
    return dice


def seconds_per_step() -> dict[str, float]:
    """A training step of each setting in turn, five times; the medians."""
    trainers = {setting: trainer_of(setting) for setting in SETTINGS}
    seconds: dict[str, list[float]] = {setting: [] for setting in SETTINGS}
    first = trainers[PLAIN]
    patch_size = first.configuration_manager.patch_size
    labels = torch.zeros(first.batch_size, 1, *patch_size)
    labels[..., : patch_size[-1] // 2] = 1
    scales = first._get_deep_supervision_scales()
    target = [torch.nn.functional.interpolate(labels, scale_factor=tuple(scale)) for scale in scales]
    batch = {"data": torch.randn(len(labels), 1, *patch_size), "target": target}
    for _ in range(5):
        for setting, trainer in trainers.items():
            begin = time.perf_counter()
            trainer.train_step(batch)
            seconds[setting].append(time.perf_counter() - begin)
    return {setting: float(np.median(measured)) for setting, measured in seconds.items()}


def trained(workspace: Workspace, setting: str, seed: int, iterations: int) -> tuple[float, float]:
    """Dice of the validation cases, and of the guide in the last epoch."""
    kind = "Baseline" if setting == PLAIN else ""
    trainer = f"nnUNetTrainerGuiDINO{kind}_{EPOCHS}epochs_{iterations // EPOCHS}iterations_seed{seed}"
    plans = plans_name(setting)
    workspace.train(trainer, plans=plans, dataset=VARIANT.number, configuration="3d_fullres")
    fold = workspace.results / VARIANT.dataset / f"{trainer}__{plans}__3d_fullres" / "fold_0"
    dice = json.loads((fold / "validation" / "summary.json").read_text())["foreground_mean"]["Dice"]
    log = next(fold.glob("training_log*.txt")).read_text()
    return dice, float("nan") if kind else float(log.rsplit("Guide Dice ", 1)[1].split()[0])


def over_seeds(values: list[float]) -> str:
    return "" if np.isnan(values).all() else f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="HIPPOCAMPUS")
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        workspace = prepared(args.data, Path(temporary))
        parts = volumes(trainer_of(GUIDED))
        by_stride = zip(*(guide_dice_by_stride(parts, seed) for seed in range(args.seeds)), strict=True)
        seconds = seconds_per_step()
        print("| slice stride | guide's Dice | seconds per step |\n|---|---|---|")
        for stride, dice in zip(STRIDES, by_stride, strict=True):
            print(f"| {stride} | {over_seeds(list(dice))} | {seconds[BY_STRIDE[stride]]:.1f} |")

        results: dict[str, list[tuple[float, float]]] = {setting: [] for setting in COMPARED}
        for seed in range(args.seeds):
            for setting in COMPARED:
                results[setting].append(trained(workspace, setting, seed, args.iterations))
                print(f"seed {seed}, {setting}: Dice, and the guide's:", *results[setting][-1], flush=True)
        print("\n| | Dice | guide's Dice | seconds per step |\n|---|---|---|---|")
        for setting, values in results.items():
            dice, guide = (over_seeds(list(column)) for column in zip(*values, strict=True))
            print(f"| {setting} | {dice} | {guide} | {seconds[setting]:.1f} |")
