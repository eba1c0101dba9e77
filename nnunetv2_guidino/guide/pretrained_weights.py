"""nnU-Net's -pretrained_weights for guided networks: from a plain network's checkpoint or a guided one's.

nnUNetv2_train initializes the trainer, hands its network and the checkpoint's name to load_pretrained_weights, and
tells the trainer nothing. That function demands of the checkpoint each name in the network's state dict, adds what
else it has of them, and hands the sum to load_state_dict. So the names of state_dict() decide alone what fits, and a
network that takes a plain checkpoint (other names, no guide), or a frozen one to adapt it (no adapters), has to answer
this one caller otherwise than all the others: state_dict() looks who calls. The ways without that look are worse. A
setting in the plans leaves -pretrained_weights as it is, which takes the weights of another guide and writes down the
wrong encoder; a command that prepares checkpoints leaves each one not so prepared to nnU-Net's assert; a state dict
that always differs from the weights would be written into checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from torch import Tensor

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.encoders.families import family_of
from nnunetv2_guidino.encoders.names import is_unused, network_to_stable
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.guide.record import KeepsRecord
from nnunetv2_guidino.plans import OF_TRAINING, RECORD, first_difference, read_record

SEGMENTATION_LAYERS = ".seg_layers."  # nnU-Net does not transfer them
FUSION = "late_fusion."  # it belongs to the segmentation layers, whose logits it adds to
OPTION = "-pretrained_weights"
# Like nnU-Net's patch size, these may change from one training to the next; so may the classes that share a guide.
OF_SIZE = ("min_input_size", "max_input_size", "slice_stride")


class TakesPretrainedWeights(KeepsRecord):
    """A guided network that nnU-Net's -pretrained_weights fills, `network` being the planned one in it."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1)
        if caller.f_code is load_pretrained_weights.__code__:
            return PretrainedWeights(caller.f_locals["saved_model"])
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        if isinstance(state_dict, PretrainedWeights):
            weights, self.settings = state_dict.completed(super().state_dict(), self.settings)
            state_dict = {**weights, RECORD: self.get_extra_state()}
        return super().load_state_dict(state_dict, *args, **kwargs)


class PretrainedWeights(dict[str, Tensor]):
    """What a checkpoint brings, by the names it has there; it demands nothing and takes everything.

    Args:
        checkpoint: nnU-Net's.
    """

    def __init__(self, checkpoint: Mapping[str, Any]):
        super().__init__()
        self.plans = (checkpoint.get("init_args") or {}).get("plans") or {}

    def keys(self) -> Any:
        """Any name at all: nnU-Net asks nothing but whether one is among them."""
        return _Everything()

    def completed(self, own: Mapping[str, Tensor], settings: GuideConfig) -> tuple[dict[str, Tensor], GuideConfig]:
        """A guided network's weights, its own where the checkpoint brings none, and its settings.

        From a guided checkpoint comes the encoder too, so that the settings then name the encoder of that checkpoint.

        Raises:
            GuidinoError: If a tensor is missing or has another shape, or the guide is another.
        """
        guided = any(name.startswith("tokenbook.") for name in self)
        if guided:
            settings = self._settings_with_their_encoder(settings)
            family = family_of((settings.encoder_config or {})["model_type"])
            weights = network_to_stable(self, family)  # of version 0.1.0 too
            brought = {_adapted(name, own): tensor for name, tensor in weights.items()}
        else:
            brought = {f"network.{name}": tensor for name, tensor in self.items()}
        wanted = [name for name in own if self._is_wanted(name, brought, guided)]
        expected = f"expected one of the same planned network{' and guide' if guided else ''}"
        for name in wanted:
            if name not in brought:
                raise GuidinoError(f"{OPTION}: the checkpoint has no {name}; {expected}")
            if brought[name].shape != own[name].shape:
                theirs, ours = tuple(brought[name].shape), tuple(own[name].shape)
                raise GuidinoError(f"{OPTION}: {name} has shape {theirs} there, {ours} here; {expected}")
        return {**own, **{name: brought[name] for name in wanted}}, settings

    @staticmethod
    def _is_wanted(name: str, brought: Container[str], guided: bool) -> bool:
        if name == RECORD or name.startswith(FUSION) or SEGMENTATION_LAYERS in name:
            return False
        if is_unused(name) and name not in brought:
            return False
        # Adapters begin with an update of zero, so that a frozen encoder can be adapted.
        return (guided and (".lora_" not in name or name in brought)) or name.startswith("network.")

    def _settings_with_their_encoder(self, settings: GuideConfig) -> GuideConfig:
        """Raises GuidinoError if the checkpoint's guide is another, naming the first setting that differs."""
        if RECORD in self:
            theirs = read_record(self[RECORD])
        elif PLANS_KEY in self.plans:
            theirs = GuideConfig.from_plans(self.plans)
        else:
            raise GuidinoError(f"{OPTION}: the checkpoint does not say which guide it was trained with")
        allowed = [*OF_TRAINING, *OF_SIZE, "late_fusion"]
        if settings.guides == theirs.guides == "foreground":
            allowed.append("classes")
        if theirs.lora is None:
            allowed.append("lora")
        if difference := first_difference(settings, theirs, but=allowed):
            raise GuidinoError(
                f"{OPTION}: the checkpoint has another guide: {difference.describe('in the plans', 'there')}. "
                "Give the plans the same guide, or take another checkpoint"
            )
        return replace(settings, encoder_source=theirs.encoder_source)


def _adapted(name: str, own: Container[str]) -> str:
    """A weight's name in a network whose layer of that name may have adapters."""
    layer, _, kind = name.rpartition(".")
    adapted = f"{layer}.base_layer.{kind}"
    return adapted if adapted in own else name


class _Everything(Container[str]):
    def __contains__(self, name: object) -> bool:
        return True
