"""plans.json of a model folder: one for all folds, from which the network of each is rebuilt."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json, remove_leftovers, unfinished_path, write_text
from nnunetv2_guidino.plans import first_difference, guide_of, recorded_guide
from nnunetv2_guidino.printable import first_line

# The encoder may lie elsewhere and the libraries may be others; its weights' hash and architecture are compared.
OF_ONE_FOLD = ("encoder", "versions")


class ModelFolder:
    """nnU-Net's …/DatasetXXX/Trainer__Plans__configuration, as one of its folds sees it.

    The guide that plans.json names holds for all folds, from the moment that it is there.

    Args:
        fold: The fold's folder in it.
    """

    def __init__(self, fold: Path):
        self.fold = fold
        self.folder = fold.parent
        self.plans_file = self.folder / "plans.json"

    def recorded(self) -> GuideConfig | None:
        """The guide in plans.json, None where there is no such file or no guide in it.

        Raises:
            GuidinoError: If it cannot be read.
        """
        if not self.plans_file.exists():
            return None
        plans = read_json(self.plans_file, dict)
        return guide_of(plans, self.plans_file) if PLANS_KEY in plans else None

    def shared(self) -> GuideConfig | None:
        """The guide by which this fold has to go; None where there is none yet, or no other fold to share it with.

        It stands in plans.json, and where that is lost or damaged in the other folds' checkpoints.

        Raises:
            GuidinoError: If plans.json is damaged and no fold has a checkpoint.
        """
        if not self._others():
            return None
        try:
            if config := self.recorded():
                return config
        except GuidinoError as error:
            if not self._checkpoints() and not any(self.fold.glob("checkpoint_*.pth")):
                raise GuidinoError(
                    f"{error}. If no other fold is being trained, remove it: it is written anew when a training starts"
                ) from error
        return guide_of_checkpoint(self._checkpoints()[0]) if self._checkpoints() else None

    def refuse_another(self, config: GuideConfig, but: Collection[str] = ()) -> None:
        """Raise GuidinoError if other folds go by another guide, naming the first setting that differs.

        Args:
            but: Settings that may differ (see `first_difference`).
        """
        shared = self.shared()
        if shared is None:
            return
        if difference := first_difference(config, shared, but=(*OF_ONE_FOLD, *but)):
            trained = [file.parent.name for file in self._checkpoints()]
            fold = f"{trained[0]} in {self.folder} was trained" if trained else f"{self.folder} was begun"
            raise GuidinoError(
                f"{fold} with another guide: {difference.describe('here', 'there')}. Give this one a plans file of its "
                "own (guidino plan -o NAME), or remove that model"
            )

    def claim(self, config: GuideConfig, plans: dict[str, Any]) -> None:
        """Write plans.json whole, unless it names this guide. Of folds that start at once with two, one gets through.

        Raises:
            GuidinoError: If other folds go by another guide, or the file cannot be written.
        """
        self.refuse_another(config)
        text = json.dumps(plans, indent=4)
        if self._create(text):
            return
        self.refuse_another(config)  # it may have been written meanwhile
        if not self._is_recorded(config):
            write_text(self.plans_file, text)

    def _create(self, text: str) -> bool:
        """Whether there was no plans.json: there is one now, which was whole from the beginning."""
        remove_leftovers(self.fold, self.plans_file.name)
        unfinished = unfinished_path(self.fold / self.plans_file.name)
        try:
            unfinished.write_text(text, encoding="utf-8")
            os.link(unfinished, self.plans_file)  # unlike renaming, never takes the place of another's
        except OSError:
            if self.plans_file.exists():
                return False
            write_text(self.plans_file, text)  # a file system without links; or says what is wrong
        finally:
            unfinished.unlink(missing_ok=True)
        return True

    def _is_recorded(self, config: GuideConfig) -> bool:
        try:
            recorded = self.recorded()
        except GuidinoError:
            return False
        return recorded is not None and first_difference(config, recorded, but=OF_ONE_FOLD) is None

    def _others(self) -> list[Path]:
        return [fold for fold in sorted(self.folder.glob("fold_*")) if fold != self.fold]

    def _checkpoints(self) -> list[Path]:
        """One of each other fold that has any."""
        first = (next(iter(sorted(fold.glob("checkpoint_*.pth"))), None) for fold in self._others())
        return [file for file in first if file is not None]


def guide_of_checkpoint(file: Path) -> GuideConfig | None:
    """The guide that a checkpoint of nnU-Net was trained with, by its own account; None if it has none.

    Raises:
        GuidinoError: If it cannot be read.
    """
    try:
        # nnU-Net's checkpoints hold more than tensors; what is mapped and not used is not read.
        return recorded_guide(torch.load(file, map_location="cpu", mmap=True, weights_only=False))
    except GuidinoError:
        raise
    except Exception as error:  # a damaged pickle fails in as many ways as there are bytes
        reason = first_line(error)
        raise GuidinoError(f"{file} cannot be read as a checkpoint of nnU-Net, or was cut short: {reason}") from error
