"""What there is to choose from: one line for each gate, loss term and architecture, loaded when it is asked for.

To add one, write its file and its line here. Settings, options, pictures, tables and tests read these tables, and need
neither torch nor nnU-Net for it. Each table says which contract its targets follow.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from nnunetv2_guidino.errors import GuidinoError


@dataclass(frozen=True)
class Entry:
    """A line of a table.

    Args:
        target: Where it is defined, as "module:attribute".
        summary: What it is, in some words, for options and tables.
    """

    target: str
    summary: str

    def load(self) -> Any:
        """Import the module and return the attribute.

        Raises:
            GuidinoError: If there is no such module or attribute; a module's own failing imports are its own errors.
        """
        module, _, attribute = self.target.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            raise GuidinoError(f"{self.target} cannot be loaded: there is no module {error.name}") from error
        except AttributeError as error:
            raise GuidinoError(f"{self.target} cannot be loaded: {error}") from error


@dataclass(frozen=True)
class LossTerm(Entry):
    """A term of the loss beside nnU-Net's own.

    Args:
        weight: Its λ where the plans set none; 0 is off. The setting is called lambda_NAME.
        label: What the log's picture calls it.
    """

    weight: float
    label: str


# How the guide acts on a feature ("gating"): subclasses of guide.gates.Gate.
GATINGS: dict[str, Entry] = {
    "blend": Entry("nnunetv2_guidino.guide.gates:Blend", "feature · (1 - s + s · guide), s learned per channel"),
    "residual": Entry("nnunetv2_guidino.guide.gates:Residual", "feature · (1 + guide)"),
    "product": Entry("nnunetv2_guidino.guide.gates:Product", "feature · guide, as in the paper"),
}

# Which features it acts on ("gate"): subclasses of guide.positions.Position.
GATES: dict[str, Entry] = {
    "skips": Entry("nnunetv2_guidino.guide.positions:Skips", "every skip and the bottleneck"),
    "bottleneck": Entry("nnunetv2_guidino.guide.positions:Bottleneck", "the coarsest features (the paper's GuiDINO-U)"),
    "input": Entry("nnunetv2_guidino.guide.positions:Input", "the image channels (the paper's GuiDINO-W)"),
}

# Terms of the loss ("lambda_…"): functions of a losses.terms.Step, or modules that are called with it.
LOSS_TERMS: dict[str, LossTerm] = {
    "guide": LossTerm(
        "nnunetv2_guidino.losses.guide:guide_term", "the guide's binary cross-entropy", weight=1.0, label="guide loss"
    ),
    "guide_dice": LossTerm(
        "nnunetv2_guidino.losses.guide:guide_dice_term", "the guide's Dice loss", weight=1.0, label="guide's Dice loss"
    ),
    "boundary": LossTerm(
        "nnunetv2_guidino.losses.boundary:boundary_term", "the boundary's hinge", weight=0.1, label="boundary loss"
    ),
}

# Segmentation networks that plans may name besides nnU-Net's own: subclasses of architectures.contract.Architecture.
ARCHITECTURES: dict[str, Entry] = {
    "nnwnet": Entry("nnunetv2_guidino.architectures.nnwnet:NNWNet", "nnWNet"),
    "segdino": Entry("nnunetv2_guidino.architectures.segdino:SegDINO", "SegDINO on a pretrained vision transformer"),
    "segdino2": Entry("nnunetv2_guidino.architectures.segdino:SegDINO2", "SegDINO's second version"),
    "seg_guidino": Entry("nnunetv2_guidino.architectures.seg_guidino:SegGuiDINO", "Seg-GuiDINO's network"),
    "seg_guidino_partner": Entry(
        "nnunetv2_guidino.architectures.seg_guidino:SegGuiDINOPartner", "Seg-GuiDINO's partner without a guide"
    ),
    "swin_unet": Entry("nnunetv2_guidino.architectures.swin_unet:SwinUnet", "Swin-Unet"),
    "ukan": Entry("nnunetv2_guidino.architectures.ukan:UKAN", "U-KAN"),
    "h2former": Entry("nnunetv2_guidino.architectures.h2former:H2Former", "H2Former"),
}

Line = TypeVar("Line", bound=Entry)


def find(table: Mapping[str, Line], name: str, what: str) -> Line:
    """The line of that name.

    Args:
        what: The table, in the words of whoever asks: "guidino.gate".

    Raises:
        GuidinoError: If there is none, naming those that there are and the nearest.
    """
    if name not in table:
        raise GuidinoError(f"{what} is {name!r}; expected {one_of(table)}{did_you_mean(name, table)}")
    return table[name]


def one_of(names: Iterable[str]) -> str:
    """The names in words."""
    return "one of " + (", ".join(names) or "none that there is")


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """The end of a complaint about an unknown name: the nearest one, or nothing where none is near."""
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""
