"""Whether a checkpoint was trained with the guide that plans.json beside it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError

# What a prediction depends on. The encoder's name and folder may differ: its weights are in the checkpoint.
SETTINGS = (
    "layer", "min_input_size", "prototypes", "similarity", "readout", "guides", "slice_stride", "gate", "gating",
    "lora", "classes",
)  # fmt: skip


def check_recorded_guide(file: Path, checkpoint: dict[str, Any], plans: dict[str, Any]) -> None:
    """Compare the guide that a checkpoint was trained with, key by key.

    Args:
        file: The checkpoint's, for the message.
        checkpoint: As read.
        plans: Of plans.json in the model's folder.

    Raises:
        GuidinoError: If they differ, naming the first key that does.
    """
    recorded_plans = checkpoint["init_args"].get("plans")
    if not isinstance(recorded_plans, dict) or PLANS_KEY not in recorded_plans:
        return
    recorded, described = (GuideConfig.from_plans(source) for source in (recorded_plans, plans))
    for key in SETTINGS:
        trained, now = getattr(recorded, key), getattr(described, key)
        if trained != now and not (key == "classes" and trained is None):  # filled in when training started
            raise GuidinoError(
                f"{file} was trained with guidino.{key} {trained}, but plans.json beside it says {now}; put the "
                "plans.json of this training back"
            )
    trained, now = ((config.encoder_source or {}).get("sha256") for config in (recorded, described))
    if trained and now and trained != now:
        raise GuidinoError(
            f"{file} was trained with an encoder of sha256 {trained}, but plans.json beside it says {now}; put the "
            "plans.json of this training back"
        )
