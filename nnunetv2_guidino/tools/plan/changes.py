"""Change single values of plans that share their preprocessed data with others."""

from __future__ import annotations

from typing import Any

from nnunetv2_guidino.errors import GuidinoError

# What nnUNetv2_preprocess has made of the images, or must know of them: another value would not be true of the data.
OF_THE_DATA = (
    "spacing", "normalization_schemes", "use_mask_for_norm", "preprocessor_name", "data_identifier",
    "median_image_size_in_voxels",
)  # fmt: skip
OF_THE_DATA_PREFIX = "resampling_fn_"
OF_THE_PLANNER = ("inherits_from", "previous_stage", "next_stage")


def change(plans: dict[str, Any], path: str, value: Any) -> str:
    """Change one value, which must be there already and of the same type.

    Args:
        path: Keys with dots between them, such as configurations.2d.batch_size.

    Returns:
        The configuration that it belongs to.

    Raises:
        GuidinoError: If there is no such key, naming those that there are, the type is another, or the value belongs
            to the preprocessed data, which these plans share.
    """
    keys = path.split(".")
    if keys[0] != "configurations" or len(keys) < 3:
        raise GuidinoError(f"{path}: expected configurations.CONFIGURATION.KEY")
    _refuse_of_the_data(path, keys[2])
    section: Any = plans
    for key in keys:
        if not isinstance(section, dict) or key not in section:
            known = f"; there are {', '.join(section)}" if isinstance(section, dict) else ""
            raise GuidinoError(f"{path}: the plans have no {key!r} there{known}")
        parent, section = section, section[key]
    if type(value) is not type(section):
        raise GuidinoError(f"{path} is {section!r} in the plans; expected {type(section).__name__}, not {value!r}")
    parent[keys[-1]] = value
    return keys[1]


def _refuse_of_the_data(path: str, key: str) -> None:
    if key in OF_THE_DATA or key.startswith(OF_THE_DATA_PREFIX):
        raise GuidinoError(
            f"{path} belongs to the preprocessed data, which the new plans share with their source; plan and "
            "preprocess anew for another value: nnUNetv2_plan_experiment, then nnUNetv2_preprocess"
        )
    if key in OF_THE_PLANNER:
        raise GuidinoError(f"{path} says how nnU-Net's configurations build on each other, and stays as it is planned")
