"""Compare guides, and read and complete the plans' section "guidino"."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError

FILLED_IN = ("format", "encoder_config", "encoder_source", "classes", "versions")  # keys that the trainer fills in
# Settings that do not change the output of a trained network.
TRAINING_SETTINGS = ("encoder", "encoder_source", "lambda_*", "lora.dropout", "lora.learning_rate", "versions")
RECORD = "_extra_state"  # torch's key for the record of the guide in a guided network's state dict
MISSING = ...  # stands for a value that one side does not have


class Difference(NamedTuple):
    """A value that differs between two guides or plans; `key` is its path, such as "lora.rank"."""

    key: str
    ours: Any
    theirs: Any

    def describe(self, here: str, there: str) -> str:
        """Return a clause with both values of a guide's setting, for error messages.

        Args:
            here: Place of our value, such as "in plans.json".
            there: Place of the other value.
        """
        return f"{PLANS_KEY}.{self.key} is {self.ours!r} {here} and {self.theirs!r} {there}"


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], path: str = "") -> Iterator[Difference]:
    """Yield each value that differs or that one side lacks; networks of two classes differ as a whole.

    Args:
        ours: A section of plans.
        theirs: The same section of other plans.
        path: Keys that lead to the section, each with a dot behind it.
    """
    for key in dict.fromkeys([*ours, *theirs]):
        here, there = ours.get(key, MISSING), theirs.get(key, MISSING)
        if here is MISSING and isinstance(there, Mapping) and there:
            here = {}
        # timm's arguments are recorded as the user gave them: a missing argument means another model
        sections = isinstance(here, Mapping) and isinstance(there, Mapping) and key != "model_args"
        if sections and (not here or here.get("network_class_name") == there.get("network_class_name")):
            yield from differences(here, there, f"{path}{key}.")
        elif here != there:
            yield Difference(f"{path}{key}", here, there)


def first_difference(ours: GuideConfig, theirs: GuideConfig, may_differ: Collection[str] = ()) -> Difference | None:
    """Return the first setting that differs, None if both describe the same guide.

    Encoders are equal if the sha256 of their weights and all common keys of their architectures are equal. Versions of
    transformers write more or fewer keys for the same architecture, and the weights may be in different folders.

    Args:
        ours: Settings of one guide.
        theirs: Settings of the other guide.
        may_differ: Paths of settings that may differ, with * as in file names.
    """
    # Both pass through JSON, since one of them was read from a file, where tuples have become lists.
    here, there = (json.loads(json.dumps(config.to_plans())) for config in (ours, theirs))
    for found in differences(here, there):
        of_source = found.key.startswith("encoder_source.") and not found.key.endswith(".sha256")
        allowed = any(fnmatchcase(found.key, f"{key}{end}") for key in may_differ for end in ("", ".*"))
        if MISSING not in found and not of_source and not allowed:
            return found
    return None


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


def inherited(plans: Mapping[str, Any], configuration: str, key: str) -> Any:
    """Return the value of a key in a configuration of the plans, its own or that of the configuration it inherits from.

    Raises:
        KeyError: If neither has the key.
    """
    settings = plans["configurations"][configuration]
    while key not in settings:
        settings = plans["configurations"][settings["inherits_from"]]
    return settings[key]
