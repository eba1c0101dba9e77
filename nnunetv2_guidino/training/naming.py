"""What a trainer's name means, and the class of that name."""

from __future__ import annotations

import functools
import re

from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.training.baseline import nnUNetTrainerGuiDINOBaseline
from nnunetv2_guidino.training.guided import (
    nnUNetTrainerGuiDINO,
    nnUNetTrainerGuiDINOLoRA,
    nnUNetTrainerGuiDINOPaper,
    nnUNetTrainerGuiDINOPaperLoRA,
)

GRAMMAR = (
    "nnUNetTrainerGuiDINO[Paper][LoRA][_<N>epochs][_<M>iterations][_seed<k>] or "
    "nnUNetTrainerGuiDINOBaseline[_<N>epochs][_<M>iterations][_seed<k>], for example "
    "nnUNetTrainerGuiDINO_100epochs_seed1"
)
_NAME = re.compile(
    r"nnUNetTrainerGuiDINO(?P<kind>Baseline|(?:Paper)?(?:LoRA)?)"
    r"(?:_(?P<epochs>[1-9]\d*)epochs)?(?:_(?P<iterations>[1-9]\d*)iterations)?(?:_seed(?P<seed>\d+))?"
)


@functools.cache
def trainer_class(name: str) -> type[nnUNetTrainer]:
    """The trainer of that name, which is its __name__ too: nnU-Net writes that into folders and checkpoints.

    Raises:
        GuidinoError: For a name outside the grammar, which it shows.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise GuidinoError(f"there is no trainer {name}. The names are {GRAMMAR}")
    base = {
        "": nnUNetTrainerGuiDINO,
        "LoRA": nnUNetTrainerGuiDINOLoRA,
        "Paper": nnUNetTrainerGuiDINOPaper,
        "PaperLoRA": nnUNetTrainerGuiDINOPaperLoRA,
        "Baseline": nnUNetTrainerGuiDINOBaseline,
    }[match["kind"]]
    if name == base.__name__:
        return base
    settings = {key: int(match[key]) for key in ("epochs", "iterations", "seed") if match[key] is not None}
    return type(name, (base,), {"__module__": __name__, "__doc__": base.__doc__, **settings})
