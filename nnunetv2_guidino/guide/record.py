"""What a checkpoint says about its own guide: plans.json, from which its network is rebuilt, may be another's."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.encoders.architecture import configuration
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.plans import OF_TRAINING, RECORD, first_difference, read_record


class KeepsRecord(nn.Module):
    """A network whose state dict holds its settings, as one more tensor, and that refuses the weights of others.

    nnU-Net hands a network nothing but the weights when it predicts, and not one of them tells how a guide gates. The
    record is torch's extra state: no parameter and no buffer, so that neither DistributedDataParallel nor an optimizer
    sees it. Weights without one (of version 0.1.0) are taken as they are.
    """

    settings: GuideConfig

    def __init__(self) -> None:
        super().__init__()
        self.register_load_state_dict_pre_hook(_without_record)  # type: ignore[no-untyped-call]

    def get_extra_state(self) -> Tensor:
        """The section "guidino" as JSON, in bytes."""
        text = json.dumps(self.settings.to_plans())
        return torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Raises GuidinoError if the weights belong to another guide, naming the first setting that differs."""
        ours, theirs = _with_defaults(self.settings), _with_defaults(read_record(state))
        if difference := first_difference(ours, theirs, but=OF_TRAINING):
            raise GuidinoError(
                f"these weights were trained with another guide: {difference.describe('in plans.json', 'with them')}. "
                "Both must come from one training: plans.json in the model's folder has been changed or replaced"
            )


def _with_defaults(settings: GuideConfig) -> GuideConfig:
    """The settings, where what they leave out of the encoder's architecture has the value with which it is built."""
    if settings.encoder_config is None:
        return settings
    try:
        complete = configuration(settings.encoder_config).to_dict()
    except GuidinoError:  # another version's record may say what cannot be built here; it is compared as it is
        return settings
    return replace(settings, encoder_config=complete)


def _without_record(module: KeepsRecord, state: dict[str, Any], prefix: str, *_: object) -> None:
    state.setdefault(prefix + RECORD, module.get_extra_state())
