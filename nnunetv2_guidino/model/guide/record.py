"""Store the guide's settings in the checkpoint, since the plans.json beside it may belong to another training."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.architecture import configuration
from nnunetv2_guidino.nnunet.plans import RECORD, TRAINING_SETTINGS, first_difference, read_record


class KeepsRecord(nn.Module):
    """A network whose state dict holds its settings as one more tensor, and that refuses weights of another guide.

    nnU-Net hands a network only the weights when it predicts, and no weight tells how a guide gates. The record is
    torch's extra state. It is neither a parameter nor a buffer, so DistributedDataParallel and the optimizer do not see
    it. The network loads weights without a record (of version 0.1.0) unchecked.
    """

    settings: GuideConfig

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_without_record)  # type: ignore[no-untyped-call]

    def get_extra_state(self) -> Tensor:
        """Return the section "guidino" as JSON, in a tensor of bytes."""
        text = json.dumps(self.settings.to_plans())
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Compare the record of the loaded weights with this network's settings.

        Raises:
            GuidinoError: If the weights belong to another guide. The error names the first setting that differs.
        """
        ours, theirs = _with_defaults(self.settings), _with_defaults(read_record(state))
        if difference := first_difference(ours, theirs, may_differ=TRAINING_SETTINGS):
            raise GuidinoError(
                f"these weights were trained with another guide: {difference.describe('in plans.json', 'with them')}. "
                "Both must come from one training: plans.json in the model's folder has been changed or replaced"
            )


def _with_defaults(settings: GuideConfig) -> GuideConfig:
    """Fill the values that the encoder's architecture leaves out with the defaults by which the encoder is built."""
    if settings.encoder_config is None:
        return settings
    try:
        complete = configuration(settings.encoder_config).to_dict()
    except GuidinoError:  # a record of another version may describe an encoder that cannot be built here
        return settings
    return replace(settings, encoder_config=complete)


def _without_record(module: KeepsRecord, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Give weights without a record the network's own, so that strict loading does not miss it."""
    state.setdefault(prefix + RECORD, module.get_extra_state())
