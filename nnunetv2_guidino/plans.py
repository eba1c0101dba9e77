"""Plans files that carry a guide section."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from copy import deepcopy
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError

FILLED_IN = ("format", "encoder_config", "encoder_source", "classes", "versions")  # by the training
# Settings that say nothing about what a trained network computes.
OF_TRAINING = (
    "encoder", "encoder_source", "lambda_*", "lora.dropout", "lora.learning_rate", "versions"
)  # fmt: skip


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


def set_in_plans(plans: dict[str, Any], path: str, value: Any) -> None:
    """Change one value, which must be there already and of the same type.

    Args:
        path: Keys with dots between them, such as configurations.2d.batch_size.

    Raises:
        GuidinoError: If there is no such key, naming those that there are, or the type is another.
    """
    *outer, last = path.split(".")
    section: Any = plans
    for key in [*outer, last]:
        if not isinstance(section, dict) or key not in section:
            known = f"; there are {', '.join(section)}" if isinstance(section, dict) else ""
            raise GuidinoError(f"{path}: the plans have no {key!r} there{known}")
        parent, section = section, section[key]
    if type(value) is not type(section):
        raise GuidinoError(f"{path} is {section!r} in the plans; expected {type(section).__name__}, not {value!r}")
    parent[last] = value


def preprocessed_folder(dataset: str) -> Path:
    """A data set's folder in nnUNet_preprocessed, by name or number; raises GuidinoError if nnU-Net knows none."""
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    root = os.environ.get("nnUNet_preprocessed")
    if not root:
        raise GuidinoError("nnUNet_preprocessed is not set; export nnUNet_preprocessed=FOLDER")
    try:
        return Path(root) / maybe_convert_to_dataset_name(dataset)
    except (RuntimeError, ValueError) as error:
        raise GuidinoError(f"-d {dataset}: {str(error).splitlines()[0]}") from error


def read_plans(file: Path) -> dict[str, Any]:
    """Raises GuidinoError, naming the plans beside it, if there is no such file or it is not a JSON object."""
    try:
        plans = json.loads(file.read_text())
    except FileNotFoundError as error:
        beside = sorted(path.stem for path in file.parent.glob("*Plans*.json"))
        there = f"there are {', '.join(beside)}" if beside else "run nnUNetv2_plan_and_preprocess first"
        raise GuidinoError(f"{file} does not exist; {there}") from error
    except (OSError, json.JSONDecodeError) as error:
        raise GuidinoError(f"{file} cannot be read as a plans file: {error}") from error
    if not isinstance(plans, dict):
        raise GuidinoError(f"{file} is not a plans file: expected a JSON object")
    return plans


def write_new_plans(file: Path, plans: dict[str, Any]) -> None:
    """Raises GuidinoError if the file exists: results that were made with it would no longer be what they say."""
    text = json.dumps(plans, indent=4)
    try:
        with file.open("x") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise GuidinoError(f"{file} exists already; give -o another name") from error
