"""Parse a trainer's name and make the class of that name; the trainer modules are imported on the first request.

All classes that trainer_class makes are attributes of this module too, so that pickle finds them.
"""

from __future__ import annotations

import functools
import re
import sys
from typing import TYPE_CHECKING, Any

from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.training.one_line_errors import show_errors_as_one_line

if TYPE_CHECKING:
    from nnunetv2_guidino.training.baseline import nnUNetTrainerGuiDINOBaseline

GRAMMAR = (
    "nnUNetTrainerGuiDINO[Paper][LoRA][_<N>epochs][_<M>iterations][_<n>cases][_seed<k>] or "
    "nnUNetTrainerGuiDINOBaseline[Paper][_<N>epochs][_<M>iterations][_<n>cases][_seed<k>], for example "
    "nnUNetTrainerGuiDINO_100epochs_seed1"
)
# the recipe in section 4.2 of the paper: AdamW, learning rate 1e-4, 400 epochs, batches of at most 4
PAPER = {"epochs": 400, "largest_batch": 4, "adamw": True}
_NAME = re.compile(
    r"nnUNetTrainerGuiDINO(?P<kind>Baseline(?:Paper)?|(?:Paper)?(?:LoRA)?)"
    r"(?:_(?P<epochs>[1-9]\d*)epochs)?(?:_(?P<iterations>[1-9]\d*)iterations)?(?:_(?P<cases>[1-9]\d*)cases)?"
    r"(?:_seed(?P<seed>\d+))?"
)


@functools.cache
def trainer_class(name: str) -> type[nnUNetTrainerGuiDINOBaseline]:
    """Return the trainer class of that name: one of the two trainers, or a subclass with the settings in the name.

    The class has this name as its __name__ too, because nnU-Net writes __name__ into folders and checkpoints.

    Raises:
        GuidinoError: If the name does not follow the grammar. The error shows the grammar.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise GuidinoError(f"there is no trainer {name}. The names are {GRAMMAR}")
    from nnunetv2_guidino.training.baseline import nnUNetTrainerGuiDINOBaseline
    from nnunetv2_guidino.training.guided import nnUNetTrainerGuiDINO

    kind = match["kind"]
    base = nnUNetTrainerGuiDINOBaseline if "Baseline" in kind else nnUNetTrainerGuiDINO
    if name == base.__name__:
        return base
    settings: dict[str, Any] = dict(PAPER) if "Paper" in kind else {}
    if "LoRA" in kind:
        settings["lora"] = LoRA()
    settings |= {key: int(match[key]) for key in ("epochs", "iterations", "cases", "seed") if match[key] is not None}
    return type(name, (base,), {"__module__": __name__, "__doc__": base.__doc__, **settings})


def __getattr__(name: str) -> type:
    if _NAME.fullmatch(name):
        return trainer_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@functools.cache
def asked_by_nnunet(name: str) -> type[nnUNetTrainerGuiDINOBaseline] | None:
    """Return the trainer class of that name to nnU-Net's search, None for other names that begin like ours.

    Another name may belong to a user's subclass, which nnU-Net finds later in its search, or it may be a typing error.
    So the function prints the grammar and does not fail.
    """
    show_errors_as_one_line()
    try:
        return trainer_class(name)
    except GuidinoError as error:
        print(f"nnunetv2-guidino: {error}. nnU-Net looks on for one of yours.", file=sys.stderr)
        return None
