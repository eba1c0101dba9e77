"""Plans files that carry a guide section."""

from __future__ import annotations

from copy import deepcopy
from typing import Any


def derive_plans(source_plans: dict[str, Any], name: str, guide: dict[str, Any]) -> dict[str, Any]:
    """A copy of `source_plans` called `name` with the section "guidino"; it shares the source's preprocessed data."""
    return deepcopy(source_plans) | {"plans_name": name, "guidino": guide}
