"""What differs between two plans, in lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def differences(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """One line for each value that differs or is new."""
    old, new = dict(_flat(before)), dict(_flat(after))
    for key in sorted({*old, *new}):
        if key not in old:
            yield f"+ {key}: {_json(new[key])}"
        elif key not in new:
            yield f"- {key}: {_json(old[key])}"
        elif old[key] != new[key]:
            yield f"~ {key}: {_json(old[key])} -> {_json(new[key])}"


def _flat(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
