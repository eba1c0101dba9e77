"""Write the table of architectures in docs/reference/architectures.md: their sizes and how long they take.

python docs/tools/architecture_table.py

Only this command measures the milliseconds. A test takes them from the page and compares all other cells.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DINOv3ViTConfig

from nnunetv2_guidino import lists
from nnunetv2_guidino.model.networks.contract import describe
from nnunetv2_guidino.model.networks.networks_by_name import planned_architecture
from nnunetv2_guidino.model.networks.token_network import TokenNetwork

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "architectures.md"
BEGIN, END = "<!-- table: python docs/tools/architecture_table.py -->\n", "<!-- end of the table -->\n"
VIT_S = DINOv3ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536)
PATCH = {2: (256, 256), 3: (64, 64, 64)}
HEAD = "| name | network | | parameters, of them trained | GFLOP | ms | outputs | gates | pretrained weights |"
MS = 6  # that column, counted from the left border
ROUNDS = 3


def table(milliseconds: Callable[[str, int], str]) -> str:
    """Return a table with a row for each architecture and number of dimensions.

    Args:
        milliseconds: Function of name and dimensions that returns the milliseconds of a forward pass.
    """
    rows = [HEAD, "|" + "---|" * (HEAD.count("|") - 1)]
    for name, entry in lists.ARCHITECTURES.items():
        rows += [_row(name, count, milliseconds(name, count)) for count in entry.load().dimensions]
    return "\n".join(rows) + "\n"


def _arch_kwargs(name: str, dimensions: int) -> dict[str, Any]:
    configuration = {
        "patch_size": PATCH[dimensions],
        "normalization_schemes": ["ZScoreNormalization"] * 3,
        "architecture": {"arch_kwargs": {"strides": [[1] * dimensions] + [[2] * dimensions] * 4}},
    }
    on_tokens = issubclass(lists.ARCHITECTURES[name].load(), TokenNetwork)
    settings: dict[str, Any] = {"encoder_config": VIT_S.to_dict()} if on_tokens else {}
    return planned_architecture(name, configuration, **settings)["arch_kwargs"]


def _network_and_patch(name: str, dimensions: int) -> tuple[Any, torch.Tensor]:
    architecture, kwargs = lists.ARCHITECTURES[name].load(), _arch_kwargs(name, dimensions)
    network = architecture(input_channels=3, num_classes=2, deep_supervision=False, **kwargs)
    return network.eval(), torch.zeros(1, 3, *PATCH[dimensions])


def _row(name: str, dimensions: int, milliseconds: str) -> str:
    entry = lists.ARCHITECTURES[name]
    with torch.device("meta"):
        network, patch = _network_and_patch(name, dimensions)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(patch)
    parameters = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    description = describe(network)
    gates = description.gates or list(lists.GATE_POSITIONS)
    cells = [
        f"`{name}`",
        entry.summary,
        f"{dimensions}D",
        f"{parameters / 1e6:.2f} M" + (f", {trained / 1e6:.2f} M" if trained < parameters else ""),
        f"{counter.get_total_flops() / 1e9:.1f}",
        milliseconds,
        str(description.outputs),
        ", ".join(f"`{gate}`" for gate in gates),
        f"`{network.published_weights}`" if network.published_weights else "–",
    ]
    return "| " + " | ".join(cells) + " |"


def measured(name: str, dimensions: int) -> str:
    """Return the least CPU time of a forward pass on one core, in milliseconds."""
    torch.set_num_threads(1)
    network, patch = _network_and_patch(name, dimensions)
    spent = []
    for _ in range(ROUNDS):
        start = time.process_time()
        with torch.no_grad():
            network(patch)
        spent.append(time.process_time() - start)
    return f"{1000 * min(spent):.0f}"


def written(name: str, dimensions: int) -> str:
    """Return the milliseconds that the page holds."""
    for line in PAGE.read_text().splitlines():
        if line.startswith(f"| `{name}` | ") and f" | {dimensions}D | " in line:
            return line.split("|")[MS].strip()
    return "–"


def page(milliseconds: Callable[[str, int], str] = written) -> str:
    """Return the page with its table renewed."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    return before + BEGIN + "\n" + table(milliseconds) + "\n" + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page(measured))
