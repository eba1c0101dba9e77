"""Write docs/reference/support.md: tiny models show what is supported. Each trains, validates and predicts once.

PYTHONPATH=tests/support python docs/tools/support_table.py
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path
from typing import Any

import planned
import torch
from guided_batches import as_target
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tiny_encoders import save_tiny_encoder

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "support.md"
LABELS = {"background": 0, "a": 1, "b": 2}
REGIONS = {"background": 0, "whole": [1, 2], "b": 2}
IGNORE = {"ignore": 3}
ORDER = {"regions_class_order": [1, 2]}
TARGETS: dict[str, dict[str, Any]] = {
    "labels": {"labels": LABELS},
    "regions": {"labels": REGIONS, **ORDER},
    "labels, ignore label": {"labels": LABELS | IGNORE},
    "regions, ignore label": {"labels": REGIONS | IGNORE, **ORDER},
}
VOLUME = (8, 32, 48)
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "2d": {},
    "3d_fullres, 3d_lowres": {"patch_size": VOLUME},
    "3D, anisotropic": {"patch_size": VOLUME, "spacing": (5.0, 1.0, 1.0)},
    "3d_cascade_fullres": {"patch_size": VOLUME, "previous_stage": "3d_lowres"},
}
GUIDES: dict[str, tuple[str, dict[str, Any]]] = {
    "defaults": ("nnUNetTrainerGuiDINO", {}),
    "`guides`: `classes`": ("nnUNetTrainerGuiDINO", {"guides": "classes"}),
    "`gate`: `product`": ("nnUNetTrainerGuiDINO", {"gate": "product"}),
    "`gate_at`: `bottleneck`": ("nnUNetTrainerGuiDINO", {"gate_at": "bottleneck"}),
    "`gate_at`: `input`": ("nnUNetTrainerGuiDINO", {"gate_at": "input"}),
    "`slice_stride`: 3": ("nnUNetTrainerGuiDINO", {"slice_stride": 3}),
    "trainers `…LoRA`": ("nnUNetTrainerGuiDINOLoRA", {}),
}


def probe(target: dict[str, Any], configuration: dict[str, Any], trainer_name: str, guide: dict[str, Any]) -> str:
    """Return a tick, or the name of the error."""
    try:
        _train_validate_predict(planned.build_trainer(trainer_name, guide=guide, **configuration, **target))
    except Exception as error:
        return type(error).__name__
    return "✓"


def _train_validate_predict(trainer: nnUNetTrainer) -> None:
    trainer.initialize()
    manager, settings = trainer.label_manager, trainer.configuration_manager
    size = settings.patch_size
    labels = torch.randint(4 if manager.has_ignore_label else 3, (2, *size))
    target = as_target(labels, manager)
    half = (slice(None), slice(None), *[slice(None, None, 2)] * len(size))
    patch = torch.randn(2, trainer.num_input_channels, *size)
    batch = {"data": patch, "target": [target, target[half]]}
    trainer.network.train()
    assert torch.isfinite(torch.as_tensor(trainer.train_step(batch)["loss"]))
    # nnU-Net gives the coarsest output a weight above zero on several GPUs only
    unused = [name for name, p in trainer.network.named_parameters() if p.requires_grad and p.grad is None]
    assert all(".seg_layers.0." in name for name in unused), unused
    with torch.no_grad():
        assert torch.isfinite(torch.as_tensor(trainer.validation_step(batch)["loss"]))
        predicting = trainer.build_network_architecture(
            *(trainer.plans_manager, settings, trainer.num_input_channels, manager.num_segmentation_heads, False)
        )
        predicting.load_state_dict(trainer.bare_network().state_dict())
        assert predicting.eval()(patch).shape == (2, manager.num_segmentation_heads, *size)


def page() -> str:
    """Return the page. This needs nnU-Net's variables and GUIDINO_ENCODER, as build_trainer does."""
    works = {
        (target, configuration, guide): probe(TARGETS[target], CONFIGURATIONS[configuration], *GUIDES[guide])
        for target in TARGETS
        for configuration in CONFIGURATIONS
        for guide in GUIDES
    }

    def cell(**chosen: str) -> str:
        """Return a tick if every combination with the chosen values works, else the names of the errors."""
        outcomes = {
            outcome
            for (target, configuration, guide), outcome in works.items()
            if chosen.items() <= {"target": target, "configuration": configuration, "guide": guide}.items()
        }
        return "✓" if outcomes == {"✓"} else ", ".join(sorted(outcomes - {"✓"}))

    def table(rows: str, names: dict[str, Any]) -> list[str]:
        lines = [f"| | {' | '.join(CONFIGURATIONS)} |", "|---" * (len(CONFIGURATIONS) + 1) + "|"]
        for name in names:
            cells = [cell(configuration=configuration, **{rows: name}) for configuration in CONFIGURATIONS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        return lines

    about = f"""`python docs/tools/support_table.py` writes this page.
It makes a tiny model for each combination of labels, configuration and setting ({len(works)}).
Each model trains, validates and predicts once; the tests repeat this.
A tick means that the row works with everything in the other table.
Otherwise the cell names the error.

torch 2.6 is the oldest that works: 2.4 and 2.5 cannot compile the gates on several GPUs.
[Check your GPU](../how_to/check_your_gpu.md) tests whether trainings work on yours."""
    tables = [*table("target", TARGETS), "", *table("guide", GUIDES)]
    return "\n".join(["# What is supported", "", about, "", *tables, ""])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary, contextlib.redirect_stdout(io.StringIO()):
        for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
            os.environ[name] = str(Path(temporary) / name)
        planned.mark_file_format(Path(temporary) / "nnUNet_preprocessed")
        os.environ["GUIDINO_ENCODER"] = str(save_tiny_encoder("dinov3", Path(temporary) / "encoder"))
        PAGE.write_text(page())
