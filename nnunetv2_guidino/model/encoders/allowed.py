"""Check an encoder's configuration: it may hold sizes and switches, never a file, a network address or code to run."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.families import family_of
from nnunetv2_guidino.printable import first_line, shown

MOST_BLOCKS = 512
LARGEST_NUMBER = 2**16  # a width, a side of an image; ViT-7B's largest is 8192
# transformers would build from the hub, from files or from other code
REFUSED = (
    "attn_implementation", "_attn_implementation", "quantization_config",
    "backbone", "backbone_config", "backbone_kwargs", "use_pretrained_backbone", "use_timm_backbone",
)  # fmt: skip
WITHOUT_MEANING = ("out_features", "out_indices", "stage_names")  # choose a backbone's outputs, which nobody uses here
_DEPTHS = ("num_hidden_layers", "depth")
_WORD = re.compile(r"[\w.+-]{0,80}")


def described_keys(model_type: str) -> frozenset[str]:
    """Return the keys that describe a transformer of this type: those that its configuration adds to the common ones.

    Raises:
        ValueError: If transformers does not know the type.
    """
    config = AutoConfig.for_model(model_type)
    names = {*config.to_dict(), *getattr(config, "attribute_map", {})} - PretrainedConfig().to_dict().keys()
    described = frozenset(name for name in names if not name.startswith("_")).difference(REFUSED, WITHOUT_MEANING)
    return family_of(model_type).keys or described


def checked(architecture: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return the keys of an architecture that describe it, and leave out the others.

    Args:
        architecture: Content of a config.json or of the plans' architecture.
        where: Its place, for the message.

    Raises:
        GuidinoError: For a key that is refused, or a value that is not a bounded number, a switch or a plain word.
    """
    model_type = architecture.get("model_type")
    if not isinstance(model_type, str):
        raise GuidinoError(f"{where}: model_type is {model_type!r}; expected the name of one of transformers' models")
    try:
        keys = described_keys(model_type)
    except Exception as error:  # each of transformers' configurations fails in its own way
        reason = shown(first_line(error))
        raise GuidinoError(f"{where}: transformers does not know the model {model_type!r}: {reason}") from error
    if refused := [key for key in architecture if key in REFUSED]:
        raise GuidinoError(f"{where}: {refused[0]} is refused; remove this key")
    inside = family_of(model_type).inner_keys
    kept = {key: _checked_value(value, key, where, inside(key)) for key, value in architecture.items() if key in keys}
    return {"model_type": model_type, **kept}


def _checked_value(value: Any, key: str, where: str, inside: Collection[str]) -> Any:
    if inside and isinstance(value, Mapping):
        if refused := [inner for inner in value if inner not in inside]:
            sizes = ", ".join(sorted(inside))
            raise GuidinoError(f"{where}: {key}.{refused[0]} is refused; {key} may hold sizes and switches: {sizes}")
        return {inner: _checked_value(item, f"{key}.{inner}", where, ()) for inner, item in value.items()}
    for item in value if isinstance(value, (list, tuple)) else [value]:
        expected = _expected(item, key.rpartition(".")[2])
        if expected is not None:
            raise GuidinoError(f"{where}: {key} is {shown(item)}; expected {expected}")
    return list(value) if isinstance(value, tuple) else value


def _expected(item: Any, key: str) -> str | None:
    """Return a description of the values that a key may have; None if it may have this one."""
    if item is None or isinstance(item, bool):
        return None
    if isinstance(item, (int, float)):
        largest = MOST_BLOCKS if key in _DEPTHS else LARGEST_NUMBER
        return None if math.isfinite(item) and abs(item) <= largest else f"a number of at most {largest}"
    if isinstance(item, str):
        return None if _WORD.fullmatch(item) else "a plain name, no address and no path"
    return "a number, true, false or a name"
