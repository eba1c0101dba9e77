"""Add LoRA's adapters to the token encoder for training, and merge them into the weights for prediction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.errors import GuidinoError

# The functions import peft themselves: frozen encoders and predictions do not need it, and start faster without.
ADAPTER_NAME = "default"


def linear_layers(blocks: nn.Module, vit: nn.Module) -> list[str]:
    """Return the names in `vit` of the blocks' linear layers: the attention's projections and the MLP's layers.

    Raises:
        GuidinoError: If there are none. The error lists the kinds of layers in the blocks.
    """
    inside = set(blocks.modules())
    names = [name for name, module in vit.named_modules() if isinstance(module, nn.Linear) and module in inside]
    if not names:
        kinds = sorted({type(module).__name__ for module in inside if any(True for _ in module.parameters(False))})
        raise GuidinoError(
            f"guidino.lora: {type(vit).__name__} has no linear layers in its blocks to adapt, only {', '.join(kinds)}; "
            f"set guidino.lora to null"
        )
    return names


def reached(vit: nn.Module, layers: Sequence[str], forward: Callable[[], Tensor]) -> list[str]:
    """Return the layers whose outputs the tokens depend on, in their order. Adapters on other layers get no gradients.

    Some attentions multiply by the weight of a layer without calling the layer, so its adapters would have no effect.

    Args:
        vit: The transformer.
        layers: Names of its linear layers.
        forward: Function that runs the transformer and returns its tokens.
    """
    added: dict[str, Tensor] = {}

    def add(name: str, output: Tensor) -> Tensor:
        added[name] = output.new_zeros((), requires_grad=True)  # an adapter adds to the output too
        return output + added[name]

    modules = dict(vit.named_modules())
    hooks = [
        modules[name].register_forward_hook(lambda _module, _args, output, name=name: add(name, output))
        for name in layers
    ]
    try:
        with torch.enable_grad():
            forward().sum().backward()  # type: ignore[no-untyped-call]
    finally:
        for hook in hooks:
            hook.remove()
    return [name for name in layers if name in added and added[name].grad is not None]


def peft_config(lora: LoRA, target_modules: list[str], encoder: str | None = None) -> Any:
    """Return peft's configuration for adapters.

    Args:
        lora: Settings of the adapters.
        target_modules: Names of the adapted layers.
        encoder: Folder or name of the encoder that the adapters fit.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_modules,
        base_model_name_or_path=encoder,
    )


def add_adapters(vit: nn.Module, lora: LoRA, target_modules: list[str]) -> None:
    """Replace linear layers by peft's, in place. Only the adapters are trainable, and they start without effect."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(peft_config(lora, target_modules), vit, ADAPTER_NAME)


def dropouts(vit: nn.Module) -> Iterator[nn.Module]:
    """Return the dropout modules of the adapters."""
    return (module for name, module in vit.named_modules() if name.endswith("lora_dropout"))


def merge_adapters(state: dict[str, Tensor], lora: LoRA) -> None:
    """Merge the adapters into the weights of their layers, in place: W + alpha / rank · B · A.

    Weights without adapters do not change.

    Args:
        state: Weights by the names that Family.stable_name returns.
        lora: Settings with which the adapters were trained.
    """
    for key in [key for key in state if key.endswith(".lora_A.weight")]:
        layer = key.removesuffix(".lora_A.weight")
        down, up, weight = state.pop(key), state.pop(f"{layer}.lora_B.weight"), state[f"{layer}.weight"]
        update = (lora.alpha / lora.rank) * (up.float() @ down.float())
        state[f"{layer}.weight"] = (weight.float() + update).to(weight.dtype)


def parameter_counts(parts: Mapping[str, nn.Module]) -> str:
    """Return one line with the trainable and total parameters of each part, and the layers that LoRA leaves out."""
    counts: list[str] = []
    left_out: list[str] = []
    for name, module in parts.items():
        parameters = list(module.parameters())
        if not parameters:
            continue
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        counts.append(f"{name} {trainable:,} / {sum(p.numel() for p in parameters):,}")
        left_out += getattr(module, "not_adapted", [])
    text = "Parameters, trainable / total: " + ", ".join(counts)
    if left_out:
        text += f"; no LoRA on {len(left_out)} layers that the encoder passes by, {left_out[0]} for one"
    return text
