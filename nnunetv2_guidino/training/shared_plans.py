"""Guard plans.json of a model folder: all folds share it, and predictions rebuild each fold's network from it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import UNFINISHED, locked, read_json, write_text
from nnunetv2_guidino.nnunet.model_folder import read_checkpoint
from nnunetv2_guidino.nnunet.plans import first_difference, recorded_guide
from nnunetv2_guidino.nnunet.plans_file import PlansFile

# Folds may differ in these settings: where the encoder lies, and versions. Its hash and architecture must be equal.
FOLD_SETTINGS = ("encoder", "versions")


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
        return PlansFile(self.plans_file, plans).guide if PLANS_KEY in plans else None

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

    def refuse_another(self, config: GuideConfig, may_differ: Collection[str] = ()) -> None:
        """Compare a guide with that of the other folds.

        Args:
            config: Guide of this fold.
            may_differ: Further settings that may differ (see `first_difference`).

        Raises:
            GuidinoError: If other folds use another guide. The error names the first setting that differs.
        """
        shared = self.shared()
        if shared is None:
            return
        if difference := first_difference(config, shared, may_differ=(*FOLD_SETTINGS, *may_differ)):
            trained = [file.parent.name for file in self._checkpoints()]
            fold = f"{trained[0]} in {self.folder} was trained" if trained else f"{self.folder} was begun"
            raise GuidinoError(
                f"{fold} with another guide: {difference.describe('here', 'there')}. Give this one a plans file of its "
                "own (guidino plan -o NAME), or remove that model"
            )

    def resumed_guide(
        self, checkpoint: Path, config: GuideConfig, asked_for: Collection[str], log: Callable[[str], None]
    ) -> GuideConfig:
        """Return the guide of a checkpoint of this fold, with which its training is resumed.

        Args:
            checkpoint: The checkpoint.
            config: Guide of the plans.
            asked_for: Keys that the plans name. Other settings come from the defaults and the environment, which may
                have changed.
            log: Takes a message if plans.json is damaged: the checkpoint has all that is needed of it.

        Raises:
            GuidinoError: If the plans ask for another guide, or plans.json in the model folder has another.
        """
        try:
            recorded = self.recorded()
        except GuidinoError as error:
            log(f"{error}. The checkpoint has what is needed of it")
            recorded = None
        trained = guide_of_checkpoint(checkpoint) or recorded
        if trained is None:
            raise GuidinoError(f"{checkpoint} was trained without a guide")
        if recorded and (difference := first_difference(recorded, trained, may_differ=FOLD_SETTINGS)):
            raise GuidinoError(
                f"{checkpoint} was trained with another guide than the rest of its folder: "
                f"{difference.describe('in plans.json', 'there')}. Restore the plans.json of this training, or train "
                "this fold anew"
            )
        if difference := first_difference(config, trained, may_differ=trained.to_plans().keys() - asked_for):
            raise GuidinoError(
                f"{PLANS_KEY}.{difference.key} is {difference.ours!r} in the plans, but this model was trained with "
                f"{difference.theirs!r} ({checkpoint}). Give other settings a plans file of their own"
            )
        return trained

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
        return recorded is not None and first_difference(config, recorded, may_differ=FOLD_SETTINGS) is None

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
    return recorded_guide(read_checkpoint(file, mmap=True))
