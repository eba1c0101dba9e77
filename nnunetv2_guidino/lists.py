"""List all gates, loss terms, architectures and converters, one line each; a target is imported only when it is used.

To add one, write its file and its line here. Settings, options, pictures, tables and tests read these tables without
importing torch or nnU-Net. The comment above each table names the contract of its targets.
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
        target: Definition of the entry, as "module:attribute".
        summary: Short description for options and tables.
    """

    target: str
    summary: str

    def load(self) -> Any:
        """Import the module and return the attribute.

        Raises:
            GuidinoError: If the module or the attribute does not exist.
            ModuleNotFoundError: If the module itself imports a module that is missing.
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
    """A loss term beside nnU-Net's own (equation 2).

    Args:
        weight: Weight λ that holds if the plans set no lambda_NAME; 0 switches the term off.
        label: Name of the term in the log's picture.
    """

    weight: float
    label: str


# Actions of the guide on a feature ("gate"): subclasses of guide.gates.Gate.
GATES: dict[str, Entry] = {
    "blend": Entry("nnunetv2_guidino.model.guide.gates:Blend", "feature · (1 - s + s · guide), s learned per channel"),
    "residual": Entry("nnunetv2_guidino.model.guide.gates:Residual", "feature · (1 + guide)"),
    "product": Entry("nnunetv2_guidino.model.guide.gates:Product", "feature · guide, as in the paper"),
}

# Features on which the guide acts ("gate_at"): subclasses of guide.positions.Position.
GATE_POSITIONS: dict[str, Entry] = {
    "skips": Entry("nnunetv2_guidino.model.guide.positions:Skips", "every skip and the bottleneck"),
    "bottleneck": Entry(
        "nnunetv2_guidino.model.guide.positions:Bottleneck", "the coarsest features (the paper's GuiDINO-U)"
    ),
    "input": Entry("nnunetv2_guidino.model.guide.positions:Input", "the image channels (the paper's GuiDINO-W)"),
}

# Terms of the loss ("lambda_…"): functions of a losses.terms.Step, or modules that are called with it.
LOSS_TERMS: dict[str, LossTerm] = {
    "guide": LossTerm(
        "nnunetv2_guidino.model.losses.guide_loss:guide_term",
        "the guide's binary cross-entropy",
        weight=1.0,
        label="guide loss",
    ),
    "guide_dice": LossTerm(
        "nnunetv2_guidino.model.losses.guide_loss:guide_dice_term",
        "the guide's Dice loss",
        weight=1.0,
        label="guide's Dice loss",
    ),
    "boundary": LossTerm(
        "nnunetv2_guidino.model.losses.boundary:boundary_term",
        "the boundary's hinge",
        weight=0.1,
        label="boundary loss",
    ),
}

# Segmentation networks that plans may name besides nnU-Net's own: subclasses of architectures.contract.Architecture.
ARCHITECTURES: dict[str, Entry] = {
    "nnwnet": Entry("nnunetv2_guidino.model.networks.nnwnet:NNWNet", "nnWNet"),
    "segdino": Entry("nnunetv2_guidino.model.networks.segdino:SegDINO", "SegDINO on a pretrained vision transformer"),
    "segdino2": Entry("nnunetv2_guidino.model.networks.segdino:SegDINO2", "SegDINO's second version"),
    "seg_guidino": Entry("nnunetv2_guidino.model.networks.seg_guidino:SegGuiDINO", "Seg-GuiDINO's network"),
    "seg_guidino_partner": Entry(
        "nnunetv2_guidino.model.networks.seg_guidino:SegGuiDINOPartner", "Seg-GuiDINO's partner without a guide"
    ),
    "swin_unet": Entry("nnunetv2_guidino.model.networks.swin_unet:SwinUnet", "Swin-Unet"),
    "ukan": Entry("nnunetv2_guidino.model.networks.ukan:UKAN", "U-KAN"),
    "h2former": Entry("nnunetv2_guidino.model.networks.h2former:H2Former", "H2Former"),
}

# Converters of data sets as published: the file in dataset_conversion without .py, and a summary.
CONVERTERS: dict[str, tuple[str, str]] = {
    "kvasir-seg": ("Dataset501_KvasirSEG", "Kvasir-SEG: polyps in colonoscopy images"),
    "isic2017": ("Dataset502_ISIC2017", "ISIC 2017: skin lesions in dermoscopy images"),
    "tn3k": ("Dataset503_TN3K", "TN3K: thyroid nodules in ultrasound images"),
    "folder": ("folder", "any pair of folders images/ and masks/"),
}

Line = TypeVar("Line", bound=Entry)


def find(table: Mapping[str, Line], name: str, what: str) -> Line:
    """Return the line of a table.

    Args:
        table: Table to search.
        name: Name of the line.
        what: Name of the setting or option for the error message, such as "guidino.gate_at".

    Raises:
        GuidinoError: If the table has no such name. The error lists the valid names and the nearest one.
    """
    if name not in table:
        raise GuidinoError(f"{what} is {name!r}; expected {one_of(table)}{did_you_mean(name, table)}")
    return table[name]


def one_of(names: Iterable[str]) -> str:
    """Return the names as a phrase, "one of A, B"."""
    return "one of " + (", ".join(names) or "none that there is")


def did_you_mean(name: object, names: Iterable[str]) -> str:
    """Return the end of an error message with the name nearest to an unknown one, or "" if no name is near."""
    near = difflib.get_close_matches(str(name), list(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""
