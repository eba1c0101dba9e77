"""Guard plans.json of a model folder: all folds share it, and predictions rebuild each fold's network from it."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import UNFINISHED, locked, read_json, write_text
from nnunetv2_guidino.nnunet.plans import first_difference, guide_of, recorded_guide
from nnunetv2_guidino.printable import first_line

# Folds may load the encoder from different places and use other versions; its hash and architecture must be equal.
OF_ONE_FOLD = ("encoder", "versions")


class ModelFolder:
    """nnU-Net's folder …/DatasetXXX/Trainer__Plans__configuration from the view of one of its folds.

    From the moment that plans.json exists, its guide holds for all folds.

    Args:
        fold: Folder of the fold, inside the model folder.
    """

    def __init__(self, fold: Path):
        self.fold = fold
        self.folder = fold.parent
        self.plans_file = self.folder / "plans.json"

    def recorded(self) -> GuideConfig | None:
        """Return the guide in plans.json, None if there is no file or no guide in it.

        Raises:
            GuidinoError: If the file cannot be read.
        """
        if not self.plans_file.exists():
            return None
        plans = read_json(self.plans_file, dict)
        return guide_of(plans, self.plans_file) if PLANS_KEY in plans else None

    def shared(self) -> GuideConfig | None:
        """Return the guide that this fold must use; None if there is no guide yet or no other fold.

        The guide comes from plans.json. If that file is lost or damaged, it comes from another fold's checkpoint.

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
        """Compare a guide with that of the other folds.

        Args:
            config: Guide of this fold.
            but: Settings that may differ (see `first_difference`).

        Raises:
            GuidinoError: If other folds use another guide. The error names the first setting that differs.
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
        """Write plans.json as a whole, unless it already names this guide.

        If several folds start at once with different guides, only one of them succeeds.

        Args:
            config: Guide of this fold.
            plans: Complete plans to write.

        Raises:
            GuidinoError: If other folds use another guide, or the file cannot be written.
        """
        with locked(self.folder / f"{UNFINISHED}plans.json.lock"):
            self.refuse_another(config)
            if not self._is_recorded(config):
                write_text(self.plans_file, json.dumps(plans, indent=4))

    def _is_recorded(self, config: GuideConfig) -> bool:
        try:
            recorded = self.recorded()
        except GuidinoError:
            return False
        return recorded is not None and first_difference(config, recorded, but=OF_ONE_FOLD) is None

    def _others(self) -> list[Path]:
        return [fold for fold in sorted(self.folder.glob("fold_*")) if fold != self.fold]

    def _checkpoints(self) -> list[Path]:
        """Return one checkpoint of each other fold that has any."""
        first = (next(iter(sorted(fold.glob("checkpoint_*.pth"))), None) for fold in self._others())
        return [file for file in first if file is not None]


def guide_of_checkpoint(file: Path) -> GuideConfig | None:
    """Return the guide that a checkpoint of nnU-Net records, None if it records none.

    Raises:
        GuidinoError: If the file cannot be read.
    """
    try:
        # nnU-Net's checkpoints hold more than tensors, hence weights_only=False. With mmap, torch reads what is used.
        return recorded_guide(torch.load(file, map_location="cpu", mmap=True, weights_only=False))
    except GuidinoError:
        raise
    except Exception as error:  # a damaged pickle may raise any error
        reason = first_line(error)
        raise GuidinoError(f"{file} cannot be read as a checkpoint of nnU-Net, or was cut short: {reason}") from error
