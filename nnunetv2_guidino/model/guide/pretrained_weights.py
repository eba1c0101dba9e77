"""Support nnU-Net's -pretrained_weights for guided networks, from the checkpoint of a plain or a guided network.

nnUNetv2_train initializes the trainer, hands its network and the checkpoint's name to load_pretrained_weights, and
tells the trainer nothing. That function requires every name in the network's state dict to be in the checkpoint, merges
the two and hands the result to load_state_dict. So only the names in state_dict() decide which checkpoint fits. A plain
checkpoint has other names and no guide, and a frozen checkpoint has no adapters. To accept both, state_dict() looks at
the caller's frame and answers this one caller differently.

The alternatives without this look are worse. A setting in the plans leaves -pretrained_weights as it is, which accepts
the weights of another guide and records the wrong encoder. A command that prepares checkpoints leaves every unprepared
one to nnU-Net's assert. A state dict that always differs from the weights would end in checkpoints.
"""

from __future__ import annotations

import sys
from collections.abc import Container, Mapping
from dataclasses import replace
from typing import Any

from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from torch import Tensor

from nnunetv2_guidino.config import PLANS_KEY, GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.families import family_of
from nnunetv2_guidino.model.encoders.names import is_unused, network_to_stable
from nnunetv2_guidino.model.guide.record import KeepsRecord
from nnunetv2_guidino.nnunet.plans import RECORD, TRAINING_SETTINGS, first_difference, read_record

SEGMENTATION_LAYERS = ".seg_layers."  # nnU-Net does not transfer these layers
FUSION = "late_fusion."  # late fusion adds to the logits of the segmentation layers, so it belongs to them
OPTION = "-pretrained_weights"
# Like nnU-Net's patch size, these settings may change from one training to the next.
OF_SIZE = ("min_input_size", "max_input_size", "slice_stride")


class TakesPretrainedWeights(KeepsRecord):
    """A guided network that nnU-Net's -pretrained_weights can fill; its attribute `network` is the planned network."""

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        # See the module's docstring: nnU-Net does not say why it asks, so the caller's frame has to.
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
    """The weights of a checkpoint by their names there. It passes nnU-Net's check of names with any checkpoint.

    Args:
        checkpoint: A checkpoint as nnU-Net reads it.
    """

    def __init__(self, checkpoint: Mapping[str, Any]):
        super().__init__()
        self.plans = (checkpoint.get("init_args") or {}).get("plans") or {}

    def keys(self) -> Any:
        """Return a container that contains every name: nnU-Net only asks whether a name is among the keys."""
        return _Everything()

    def completed(self, own: Mapping[str, Tensor], settings: GuideConfig) -> tuple[dict[str, Tensor], GuideConfig]:
        """Return all weights of a guided network and its settings.

        A guided checkpoint also brings the encoder, so the returned settings name the encoder of that checkpoint.

        Args:
            own: The network's weights, which stay where the checkpoint has none.
            settings: The network's settings.

        Raises:
            GuidinoError: If a tensor is missing or has another shape, or if the checkpoint has another guide.
        """
        guided = any(name.startswith("tokenbook.") for name in self)
        if guided:
            settings = self._settings_with_their_encoder(settings)
            family = family_of((settings.encoder_config or {})["model_type"])
            weights = network_to_stable(self, family)  # checkpoints of version 0.1.0 have other names
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
        # Adapters start with an update of zero, so a checkpoint of a frozen encoder may lack them.
        return (guided and (".lora_" not in name or name in brought)) or name.startswith("network.")

    def _settings_with_their_encoder(self, settings: GuideConfig) -> GuideConfig:
        """Return the settings with the encoder source of the checkpoint.

        Raises:
            GuidinoError: If the checkpoint has another guide. The error names the first setting that differs.
        """
        if RECORD in self:
            theirs = read_record(self[RECORD])
        elif PLANS_KEY in self.plans:
            theirs = GuideConfig.from_plans(self.plans)
        else:
            raise GuidinoError(f"{OPTION}: the checkpoint does not say which guide it was trained with")
        allowed = [*TRAINING_SETTINGS, *OF_SIZE, "late_fusion"]
        # One guide for the whole foreground has the same shape for any number of classes.
        if settings.guides == theirs.guides == "foreground":
            allowed.append("classes")
        if theirs.lora is None:
            allowed.append("lora")
        if difference := first_difference(settings, theirs, may_differ=allowed):
            raise GuidinoError(
                f"{OPTION}: the checkpoint has another guide: {difference.describe('in the plans', 'there')}. "
                "Give the plans the same guide, or take another checkpoint"
            )
        return replace(settings, encoder_source=theirs.encoder_source)


def _adapted(name: str, own: Container[str]) -> str:
    """Return a weight's name in the network `own`, where peft renames the weights of layers with adapters."""
    layer, _, kind = name.rpartition(".")
    adapted = f"{layer}.base_layer.{kind}"
    return adapted if adapted in own else name


class _Everything(Container[str]):
    def __contains__(self, name: object) -> bool:
        return True
