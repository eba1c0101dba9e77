"""Measure the Dice of a guide that is computed from every n-th slice of a volume.

    PYTHONPATH=tests/support python docs/tools/benchmark_volumes.py HIPPOCAMPUS [SEEDS]

HIPPOCAMPUS is a folder with imagesTr and labelsTr of Task04 of the Medical Segmentation Decathlon, or of a part of it.
The script uses nnU-Net's own plans with voxels of 2 mm, fold 0 of its split, and the real DINOv2 ViT-S of the extra
"demo". For each seed (default 3), it trains a TokenBook on all slices.
"""

from __future__ import annotations

import os
import sys
import tempfile
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
PLANS = "nnUNetPlans2mm"
INPUT_SIZE = 112
STRIDES = (1, 2, 4)
TOKENBOOK_STEPS = 1000


def initialized_trainer(source: Path, root: Path) -> Any:
    """Preprocess the data in `root`, and return a guided trainer of it."""
    workspace = Workspace(root)
    write_hippocampus(source, workspace.raw, VARIANT, case_names(source), [])
    spacing = ("-overwrite_target_spacing", 2, 2, 2, "-overwrite_plans_name", PLANS)
    processes = ("-npfp", 1, "-np", 2)
    workspace.run("nnUNetv2_plan_and_preprocess", "-d", VARIANT.number, "-c", "3d_fullres", *spacing, *processes)
    encoder = root / "dinov2-small"
    export_dinov2(encoder)
    folder = workspace.preprocessed / VARIANT.dataset
    guide = {"encoder": str(encoder), "min_input_size": INPUT_SIZE}
    PlansFile.read(folder / f"{PLANS}.json").with_guide(guide, plans_name=f"{PLANS}_guided").write()
    os.environ |= {name: value for name, value in workspace.environment.items() if name.startswith("nnUNet_")}
    where = (str(VARIANT.number), "3d_fullres", 0, "nnUNetTrainerGuiDINO", f"{PLANS}_guided")
    trainer = get_trainer_from_args(*where, device=torch.device("cpu"))
    trainer.initialize()
    return trainer


def volumes(trainer: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """Return tokens (cases, C, D, h, w) and foreground (cases, 1, D, H, W) of the central patches of each part."""
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
    """Train a TokenBook on all slices, and return the Dice of its guide for each stride."""
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


if __name__ == "__main__":
    data, seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3
    with tempfile.TemporaryDirectory() as temporary:
        parts = volumes(initialized_trainer(data, Path(temporary)))
    by_stride = zip(*(guide_dice_by_stride(parts, seed) for seed in range(seeds)), strict=True)
    print("| slice stride | guide's Dice |\n|---|---|")
    for stride, dice in zip(STRIDES, by_stride, strict=True):
        print(f"| {stride} | {np.mean(dice):.3f} ± {np.std(dice, ddof=1):.3f} |")
