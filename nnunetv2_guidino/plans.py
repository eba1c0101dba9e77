"""Plans files that carry a guide section."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import read_json

FILLED_IN = ("encoder_config", "encoder_source", "classes")  # by the training


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
    GuideConfig.from_plans(plans)  # what is wrong in the source is said of the source
    section = {key: value for key, value in plans.get(PLANS_KEY, {}).items() if key not in FILLED_IN}
    for key, value in given.items():
        if key in FILLED_IN:
            raise GuidinoError(f"{PLANS_KEY}.{key} is filled in when training starts and cannot be set")
        outer, _, inner = key.partition(".")
        section[outer] = {**(section.get(outer) or {}), inner: value} if inner and outer == "lora" else value
        if inner and outer != "lora":
            raise GuidinoError(f"{PLANS_KEY}.{key} is unknown; only lora has settings of its own")
    complete = GuideConfig.from_plans({PLANS_KEY: section}).to_plans()
    return {key: value for key, value in complete.items() if key not in FILLED_IN}


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
