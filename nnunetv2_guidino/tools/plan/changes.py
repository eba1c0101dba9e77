"""Change single values of plans that share their preprocessed data with others, and show what differs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import deepcopy
from operator import itemgetter
from typing import Any

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.plans import MISSING
from nnunetv2_guidino.nnunet.plans_file import PlansFile

# nnUNetv2_preprocess made the images with these values; with others, the plans would not describe the data.
DATA_SETTINGS = (
    "spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name", "data_identifier",
    "median_image_size_in_voxels",
)  # fmt: skip
DATA_SETTINGS_PREFIX = "resampling_fn_"
PLANNER_SETTINGS = ("inherits_from", "previous_stage", "next_stage")


def with_values(plans: PlansFile, values: Mapping[str, Any]) -> PlansFile:
    """Return plans with other values, each of which must exist already and have the same type.

    Args:
        plans: The plans to change.
        values: Values by their path, keys with dots between them, such as configurations.2d.batch_size.

    Raises:
        GuidinoError: If there is no such key (the error names the existing ones), the type is another, or the value
            belongs to the preprocessed data, which the plans share.
    """
    if not values:
        return plans
    content = deepcopy(plans.plans)
    for path, value in values.items():
        keys = path.split(".")
        if keys[0] != "configurations" or len(keys) < 3:
            raise GuidinoError(f"{path}: expected configurations.CONFIGURATION.KEY")
        _check_changeable(path, keys[2])
        section: Any = content
        for key in keys:
            if not isinstance(section, dict) or key not in section:
                known = f"; there are {', '.join(section)}" if isinstance(section, dict) else ""
                raise GuidinoError(f"{path}: the plans have no {key!r} there{known}")
            parent, section = section, section[key]
        if type(value) is not type(section):
            raise GuidinoError(f"{path} is {section!r} in the plans; expected {type(section).__name__}, not {value!r}")
        parent[keys[-1]] = value
    return plans.changed(configurations=content["configurations"])


def _check_changeable(path: str, key: str) -> None:
    if key in DATA_SETTINGS or key.startswith(DATA_SETTINGS_PREFIX):
        raise GuidinoError(
            f"{path} belongs to the preprocessed data, which the new plans share with their source; plan and "
            "preprocess anew for another value: nnUNetv2_plan_experiment, then nnUNetv2_preprocess"
        )
    if key in PLANNER_SETTINGS:
        raise GuidinoError(f"{path} says how nnU-Net's configurations build on each other, and stays as it is planned")


def changed_lines(before: PlansFile, after: PlansFile) -> Iterator[str]:
    """Yield a line for each value that differs; one for a section that is left out, or for another network."""
    for key, old, new in sorted(before.differs_from(after), key=itemgetter(0)):
        if new is MISSING:
            yield f"- {key}" + ("" if isinstance(old, dict) else f": {_json(old)}")
        else:
            yield f"+ {key}: {_json(new)}" if old is MISSING else f"~ {key}: {_json(old)} -> {_json(new)}"


def _json(value: Any) -> str:
    architecture = isinstance(value, dict) and "network_class_name" in value
    return json.dumps(value["network_class_name"] if architecture else value, ensure_ascii=False)
