"""Plans files that carry a guide section."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json

FILLED_IN = ("format", "encoder_config", "encoder_source", "classes", "versions")  # by the training
# Settings that say nothing about what a trained network computes.
OF_TRAINING = ("encoder", "encoder_source", "lambda_*", "lora.dropout", "lora.learning_rate", "versions")
# An encoder's name and folder may change, and a checkpoint has its weights; their hash must not.
BUT_THE_WEIGHTS = tuple(key for key in OF_TRAINING if key != "encoder_source")
RECORD = "_extra_state"  # of a guided network's state dict: its own account of its guide, under torch's name


class Difference(NamedTuple):
    """A setting that two guides do not share, by its path ("lora.rank")."""

    key: str
    ours: Any
    theirs: Any

    def describe(self, here: str, there: str) -> str:
        """One clause: what it is here, and what it is there."""
        return f"{PLANS_KEY}.{self.key} is {self.ours!r} {here} and {self.theirs!r} {there}"


def first_difference(ours: GuideConfig, theirs: GuideConfig, but: Collection[str] = ()) -> Difference | None:
    """The first setting that differs; None where both describe the same guide.

    Encoders are the same if their weights' sha256 is and all they both say about the architecture: another version of
    transformers says more or less about the same one, and the weights may lie elsewhere.

    Args:
        but: Paths of settings that may differ, with * as in file names.
    """
    # as JSON, since one of them has been a file
    here, there = (json.loads(json.dumps(config.to_plans())) for config in (ours, theirs))
    return next(_differences(here, there, "", but), None)


def _differences(ours: Any, theirs: Any, path: str, but: Collection[str]) -> Iterator[Difference]:
    if any(fnmatchcase(path, pattern) for pattern in but):
        return
    # timm's arguments are as the user gave them: one that is missing means another model
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and path != "encoder_config.model_args":
        keys = ("sha256",) if path == "encoder_source" else ours
        for key in keys:
            if key in ours and key in theirs:
                yield from _differences(ours[key], theirs[key], f"{path}.{key}".lstrip("."), but)
    elif ours != theirs:
        yield Difference(path, ours, theirs)


def read_record(state: Any) -> GuideConfig:
    """The settings in a state dict's record, a tensor of bytes."""
    return GuideConfig.from_plans({PLANS_KEY: json.loads(bytes(state.tolist()))})


def recorded_guide(content: Mapping[str, Any]) -> GuideConfig | None:
    """The guide that one of nnU-Net's checkpoints was trained with, by its own account; None where it has none.

    Args:
        content: With network_weights, and mostly init_args.
    """
    record = content["network_weights"].get(RECORD)
    if record is not None:
        return read_record(record)
    plans = (content.get("init_args") or {}).get("plans")
    # Version 0.1.0 wrote no record. Without the classes, the section is what the training began with.
    if isinstance(plans, Mapping) and (plans.get(PLANS_KEY) or {}).get("classes") is not None:
        return GuideConfig.from_plans(plans)
    return None


def check_recorded_guide(file: Path, checkpoint: Mapping[str, Any], plans: Mapping[str, Any]) -> None:
    """Compare the guide that a checkpoint was trained with, key by key, before a network is built by plans.json.

    Args:
        file: The checkpoint's, for the message.
        checkpoint: As read.
        plans: Of plans.json in the model's folder.

    Raises:
        GuidinoError: If they differ, naming the first key that does.
    """
    recorded = recorded_guide(checkpoint)
    if recorded is None:
        return
    if difference := first_difference(GuideConfig.from_plans(plans), recorded, but=BUT_THE_WEIGHTS):
        raise GuidinoError(
            f"{file} was trained with another guide: {difference.describe('in plans.json beside it', 'in it')}; put "
            "the plans.json of this training back"
        )


def derive_plans(source_plans: dict[str, Any], name: str, guide: dict[str, Any]) -> dict[str, Any]:
    """A copy of `source_plans` called `name` with the section "guidino"; it shares the source's preprocessed data."""
    return deepcopy(source_plans) | {"plans_name": name, PLANS_KEY: guide}


def guide_settings(plans: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The guide section of `plans`, changed by `given` and complete, so that later defaults do not change it.

    Args:
        given: Values by key; "lora.rank" is a key of the section "lora", which is begun where there is none.

    Raises:
        GuidinoError: For an unknown key or a bad value.
    """
    section = {key: value for key, value in plans.get(PLANS_KEY, {}).items() if key not in FILLED_IN}
    for key, value in given.items():
        if key == "format":
            raise GuidinoError(f"{PLANS_KEY}.format says how the section is written and cannot be set")
        if key in FILLED_IN:
            raise GuidinoError(f"{PLANS_KEY}.{key} is filled in when training starts and cannot be set")
        outer, _, inner = key.partition(".")
        section[outer] = {**(section.get(outer) or {}), inner: value} if inner and outer == "lora" else value
        if inner and outer != "lora":
            raise GuidinoError(f"{PLANS_KEY}.{key} is unknown; only lora has settings of its own")
    complete = GuideConfig.from_plans({PLANS_KEY: section}).to_plans()
    return {key: value for key, value in complete.items() if key == "format" or key not in FILLED_IN}


def guide_of(plans: dict[str, Any], file: Path) -> GuideConfig:
    """The guide that plans describe, those without a section the default one; errors name the file they are from."""
    try:
        return GuideConfig.from_plans(plans)
    except GuidinoError as error:
        raise GuidinoError(f"{file}: {error}") from error


def inherited(plans: Mapping[str, Any], configuration: str, key: str) -> Any:
    """What plans say of a configuration under a key: its own value, or that of the one it inherits from."""
    settings = plans["configurations"][configuration]
    while key not in settings:
        settings = plans["configurations"][settings["inherits_from"]]
    return settings[key]


def read_plans(file: Path) -> dict[str, Any]:
    """Raises GuidinoError, naming the plans beside it, if there is no such file or it is not a JSON object."""
    try:
        return read_json(file, dict)
    except GuidinoError as error:
        if file.exists():
            raise
        beside = sorted(path.stem for path in file.parent.glob("*Plans*.json"))
        there = f"there are {', '.join(beside)}" if beside else "run nnUNetv2_plan_and_preprocess first"
        raise GuidinoError(f"{file} does not exist; {there}") from error
