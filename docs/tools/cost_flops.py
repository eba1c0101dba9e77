"""Print the table of estimates in docs/explanation/cost.md: operations of a plain and of a guided step.

python docs/tools/cost_flops.py
"""

from __future__ import annotations

import torch
from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
from torch.utils.flop_counter import FlopCounterMode

from nnunetv2_guidino.model.encoders.known_encoders import KNOWN_ENCODERS
from nnunetv2_guidino.model.guide.slices import slice_positions
from nnunetv2_guidino.tools.doctor.rehearsal import Rehearsal
from nnunetv2_guidino.tools.plan.encoder_cost import encoder_cost

CASES = [((512, 512), 1), ((256, 256), 1), ((128, 128, 128), 1), ((128, 128, 128), 4)]
BACKWARD = 3  # a forward and a backward pass count as three forward passes


def planned_flops(patch_size: tuple[int, ...]) -> int:
    """Return the operations of one patch in the network that nnU-Net plans for it."""
    rehearsal = Rehearsal(torch.device("cpu"), patch_size)
    network = rehearsal.plans()["configurations"][rehearsal.configuration]["architecture"]
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        get_network_from_plans(
            network["network_class_name"], network["arch_kwargs"], network["_kw_requires_import"], 3, 2,
            allow_init=False, deep_supervision=True,
        )(torch.zeros(1, 3, *patch_size))  # fmt: skip
    return counter.get_total_flops()


def row(patch_size: tuple[int, ...], stride: int) -> str:
    slices = len(slice_positions(patch_size[0], stride)) if len(patch_size) == 3 else 1
    plain, cells = BACKWARD * planned_flops(patch_size), []
    for size in "sl":
        architecture = KNOWN_ENCODERS[f"facebook/dinov3-vit{size}16-pretrain-lvd1689m"].architecture
        encoder = slices * encoder_cost(architecture, None, 256, patch_size[-2:], max_input_size=256).flops
        cells.append(f"{1 + encoder / plain:.2f} ×")
    name = "×".join(map(str, patch_size)) + (f", `slice_stride` {stride}" if stride > 1 else "")
    return f"| {name} | {plain / 1e9:,.0f} | {' | '.join(cells)} |"


if __name__ == "__main__":
    print("| patch | GFLOPs of a plain step | guided, ViT-S/16 | guided, ViT-L/16 |\n|---|---|---|---|")
    for case in CASES:
        print(row(*case))
