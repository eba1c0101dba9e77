"""The architectures and how large they are. Writes the table of docs/reference/architectures.md.

python tests/support/architecture_table.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DINOv3ViTConfig

from nnunetv2_guidino import lists
from nnunetv2_guidino.architectures.contract import describe
from nnunetv2_guidino.architectures.registry import planned_architecture

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "architectures.md"
BEGIN, END = "<!-- table: python tests/support/architecture_table.py -->\n", "<!-- end of the table -->\n"
VIT_S = DINOv3ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536)
PATCH = {2: (256, 256), 3: (64, 64, 64)}
PRETRAINED = {
    "swin_unet": "Swin-T, ImageNet-1k",
    "h2former": "ResNet-34, ImageNet-1k",
    **dict.fromkeys(("segdino", "segdino2", "seg_guidino", "seg_guidino_partner"), "a vision transformer: DINOv3"),
}


def table() -> str:
    """A row for each architecture and dimension."""
    head = "| name | network | | parameters, of them trained | GFLOP | outputs | gates | pretrained in its paper |"
    rows = [head, "|" + "---|" * 8]
    rows += [_row(name, count) for name, entry in lists.ARCHITECTURES.items() for count in entry.load().dimensions]
    return "\n".join(rows) + "\n"


def _row(name: str, dimensions: int) -> str:
    configuration = {
        "patch_size": PATCH[dimensions],
        "normalization_schemes": ["ZScoreNormalization"] * 3,
        "architecture": {"arch_kwargs": {"strides": [[1] * dimensions] + [[2] * dimensions] * 4}},
    }
    entry = lists.ARCHITECTURES[name]
    settings: dict[str, Any] = {"encoder_config": VIT_S.to_dict()} if "DINO" in PRETRAINED.get(name, "") else {}
    kwargs = planned_architecture(name, configuration, **settings)["arch_kwargs"]
    with torch.device("meta"):
        network = entry.load()(input_channels=3, num_classes=2, deep_supervision=False, **kwargs).eval()
        patch = torch.empty(1, 3, *PATCH[dimensions])
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(patch)
    parameters = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    description = describe(network)
    gates = description.gates or list(lists.GATES)
    cells = [
        f"`{name}`",
        entry.summary,
        f"{dimensions}D",
        f"{parameters / 1e6:.2f} M" + (f", {trained / 1e6:.2f} M" if trained < parameters else ""),
        f"{counter.get_total_flops() / 1e9:.1f}",
        str(description.outputs),
        ", ".join(f"`{gate}`" for gate in gates),
        PRETRAINED.get(name, "–"),
    ]
    return "| " + " | ".join(cells) + " |"


def page() -> str:
    """The page, with its table renewed."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table() + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page())
