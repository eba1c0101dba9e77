"""Whether a checkpoint was trained with the guide that plans.json beside it describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.guide.record import RECORD, read_record
from nnunetv2_guidino.plans import OF_TRAINING, first_difference

# The encoder's name and folder may differ, and it has its weights in the checkpoint; their hash must not.
MAY_DIFFER = tuple(key for key in OF_TRAINING if key != "encoder_source")


def check_recorded_guide(file: Path, checkpoint: dict[str, Any], plans: dict[str, Any]) -> None:
    """Compare the guide that a checkpoint was trained with, key by key, before a network is built by plans.json.

    Args:
        file: The checkpoint's, for the message.
        checkpoint: As read.
        plans: Of plans.json in the model's folder.

    Raises:
        GuidinoError: If they differ, naming the first key that does.
    """
    recorded = _recorded(checkpoint)
    if recorded is None:
        return
    if difference := first_difference(GuideConfig.from_plans(plans), recorded, but=MAY_DIFFER):
        raise GuidinoError(
            f"{file} was trained with another guide: {difference.describe('in plans.json beside it', 'in it')}; put "
            "the plans.json of this training back"
        )


def _recorded(checkpoint: dict[str, Any]) -> GuideConfig | None:
    """The guide by the checkpoint's own account; None where it has none."""
    plans = checkpoint["init_args"].get("plans")
    if isinstance(plans, dict) and PLANS_KEY in plans and (plans[PLANS_KEY] or {}).get("classes") is not None:
        return GuideConfig.from_plans(plans)
    record = checkpoint["network_weights"].get(RECORD)
    return None if record is None else read_record(record)
