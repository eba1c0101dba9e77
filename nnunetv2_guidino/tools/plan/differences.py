"""What differs between two plans, in lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def differences(before: dict[str, Any], after: dict[str, Any], where: str = "") -> Iterator[str]:
    """One line for each value that differs or is new; one for a whole section that is left out, or for another network.

    Args:
        before: Plans, or a section of them.
        after: The same of others.
        where: Keys that lead to the section, each with a dot behind it.
    """
    for key in sorted({*before, *after}):
        path, old, new = where + key, before.get(key), after.get(key)
        if key not in after:
            yield f"- {path}" + ("" if isinstance(old, dict) else f": {_json(old)}")
        elif isinstance(new, dict) and new and key not in before:
            yield from differences({}, new, f"{path}.")
        elif key not in before:
            yield f"+ {path}: {_json(new)}"
        elif isinstance(old, dict) and isinstance(new, dict) and old and new:
            if old.get(_CLASS) == new.get(_CLASS):
                yield from differences(old, new, f"{path}.")
            else:
                yield f"~ {path}: {_json(old.get(_CLASS))} -> {_json(new.get(_CLASS))}"
        elif old != new:
            yield f"~ {path}: {_json(old)} -> {_json(new)}"


_CLASS = "network_class_name"  # of an architecture: another one has other settings altogether


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
