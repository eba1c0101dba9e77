"""The trainers whose networks are measured: ours, and nnU-Net's own."""

from __future__ import annotations

from typing import Any

NNUNETS_OWN = "nnUNetTrainer"


def imported_trainer(name: str) -> Any:
    """nnU-Net's own trainer or, by any other name, one of ours; nothing is imported that it does not need."""
    if name == NNUNETS_OWN:
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

        return nnUNetTrainer
    from nnunetv2_guidino.training.naming import trainer_class

    return trainer_class(name)
