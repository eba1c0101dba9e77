"""Read, write and compare plans with a guide section."""

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

FILLED_IN = ("format", "encoder_config", "encoder_source", "classes", "versions")  # keys that the trainer fills in
# Settings that do not change the output of a trained network.
OF_TRAINING = ("encoder", "encoder_source", "lambda_*", "lora.dropout", "lora.learning_rate", "versions")
# An encoder's name and folder may change, since a checkpoint contains the weights; the hash of the weights must not.
BUT_THE_WEIGHTS = tuple(key for key in OF_TRAINING if key != "encoder_source")
RECORD = "_extra_state"  # torch's key for the record of the guide in a guided network's state dict


class Difference(NamedTuple):
    """A setting that differs between two guides; `key` is its path, such as "lora.rank"."""

    key: str
    ours: Any
    theirs: Any

    def describe(self, here: str, there: str) -> str:
        """Return a clause with both values, for error messages.

        Args:
            here: Place of our value, such as "in plans.json".
            there: Place of the other value.
        """
        return f"{PLANS_KEY}.{self.key} is {self.ours!r} {here} and {self.theirs!r} {there}"


def first_difference(ours: GuideConfig, theirs: GuideConfig, but: Collection[str] = ()) -> Difference | None:
    """Return the first setting that differs, None if both describe the same guide.

    Encoders are equal if the sha256 of their weights and all common keys of their architectures are equal. Versions of
    transformers write more or fewer keys for the same architecture, and the weights may be in different folders.

    Args:
        ours: Settings of one guide.
        theirs: Settings of the other guide.
        but: Paths of settings that may differ, with * as in file names.
    """
    # Both pass through JSON, since one of them was read from a file, where tuples have become lists.
    here, there = (json.loads(json.dumps(config.to_plans())) for config in (ours, theirs))
    return next(_differences(here, there, "", but), None)


def _differences(ours: Any, theirs: Any, path: str, but: Collection[str]) -> Iterator[Difference]:
    if any(fnmatchcase(path, pattern) for pattern in but):
        return
    # timm's arguments are recorded as the user gave them: a missing argument means another model
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping) and path != "encoder_config.model_args":
        keys = ("sha256",) if path == "encoder_source" else ours
        for key in keys:
            if key in ours and key in theirs:
                yield from _differences(ours[key], theirs[key], f"{path}.{key}".lstrip("."), but)
    elif ours != theirs:
        yield Difference(path, ours, theirs)


def read_record(state: Any) -> GuideConfig:
    """Return the settings in a state dict's record, a tensor of bytes."""
    return GuideConfig.from_plans({PLANS_KEY: json.loads(bytes(state.tolist()))})


def recorded_guide(content: Mapping[str, Any]) -> GuideConfig | None:
    """Return the guide that a checkpoint of nnU-Net records, None if it records none.

    Args:
        content: Content of the checkpoint: network_weights, and usually init_args.
    """
    record = content["network_weights"].get(RECORD)
    if record is not None:
        return read_record(record)
    plans = (content.get("init_args") or {}).get("plans")
    # Version 0.1.0 wrote no record, only the plans. A section without classes is not yet that of a trained guide.
    if isinstance(plans, Mapping) and (plans.get(PLANS_KEY) or {}).get("classes") is not None:
        return GuideConfig.from_plans(plans)
    return None


def check_recorded_guide(file: Path, checkpoint: Mapping[str, Any], plans: Mapping[str, Any]) -> None:
    """Compare the guide that a checkpoint records with plans.json, before plans.json is used to build a network.

    Args:
        file: Path of the checkpoint, for the error message.
        checkpoint: Content of the checkpoint.
        plans: Content of plans.json in the model folder.

    Raises:
        GuidinoError: If the guides differ. The error names the first key that differs.
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
    """Return a copy of `source_plans` with the name `name` and the section "guidino" set to `guide`.

    The new plans share the preprocessed data of the source.
    """
    return deepcopy(source_plans) | {"plans_name": name, PLANS_KEY: guide}


def guide_settings(plans: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the guide section of `plans` with the values in `given`, complete, so that new defaults cannot change it.

    Args:
        plans: Plans with or without a guide section.
        given: Values by key. A key such as "lora.rank" belongs to the section "lora", which is created if missing.

    Raises:
        GuidinoError: If a key is unknown or a value is invalid.
    """
    section = {key: value for key, value in GuideConfig.from_plans(plans).to_plans().items() if key not in FILLED_IN}
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
    """Return the guide that plans describe, the default guide for plans without a section.

    Raises:
        GuidinoError: If the section is invalid. The error names `file`, from which the plans were read.
    """
    try:
        return GuideConfig.from_plans(plans)
    except GuidinoError as error:
        raise GuidinoError(f"{file}: {error}") from error


def inherited(plans: Mapping[str, Any], configuration: str, key: str) -> Any:
    """Return the value of a key in a configuration of the plans, its own or that of the configuration it inherits from.

    Raises:
        KeyError: If neither has the key.
    """
    settings = plans["configurations"][configuration]
    while key not in settings:
        settings = plans["configurations"][settings["inherits_from"]]
    return settings[key]


def read_plans(file: Path) -> dict[str, Any]:
    """Read a plans file.

    Raises:
        GuidinoError: If the file does not exist, where the error names the plans beside it, or is not a JSON object.
    """
    try:
        return read_json(file, dict)
    except GuidinoError as error:
        if file.exists():
            raise
        beside = sorted(path.stem for path in file.parent.glob("*Plans*.json"))
        there = f"there are {', '.join(beside)}" if beside else "run nnUNetv2_plan_and_preprocess first"
        raise GuidinoError(f"{file} does not exist; {there}") from error
