"""LoRA on the token encoder: adapters that peft puts in for training, and their merging into the weights to predict."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.errors import GuidinoError

# peft is imported where adapters are built: a frozen encoder and a prediction do without it, and start faster.
ADAPTER_NAME = "default"


def linear_layers(blocks: nn.Module, vit: nn.Module) -> list[str]:
    """Names in `vit` of its blocks' linear layers: in a vision transformer, the attention projections and the MLP.

    Raises:
        GuidinoError: If there are none, listing what there is.
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
    """Those of the layers whose output the tokens depend on, in their order: there alone adapters get gradients.

    Some attentions multiply by their layer's weight without calling the layer, and so pass its adapters by.

    Args:
        vit: The transformer.
        layers: Names of its linear layers.
        forward: A pass through it.
    """
    added: dict[str, Tensor] = {}

    def add(name: str, output: Tensor) -> Tensor:
        added[name] = output.new_zeros((), requires_grad=True)  # what an adapter does
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
    """peft's configuration of adapters on the layers of these names, of the `encoder` that they fit."""
    from peft import LoraConfig

    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=target_modules,
        base_model_name_or_path=encoder,
    )


def add_adapters(vit: nn.Module, lora: LoRA, target_modules: list[str]) -> None:
    """Replace the linear layers by peft's, in place; only the adapters are trainable. Their update starts at zero."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(peft_config(lora, target_modules), vit, ADAPTER_NAME)


def dropouts(vit: nn.Module) -> Iterator[nn.Module]:
    """The adapters' dropout."""
    return (module for name, module in vit.named_modules() if name.endswith("lora_dropout"))


def merge_adapters(state: dict[str, Tensor], lora: LoRA) -> None:
    """Turn the weights of an encoder with adapters into those of one without, in place: W + alpha / rank · B · A.

    Weights without adapters stay as they are.

    Args:
        state: By the names that Family.stable_name gives.
        lora: What the adapters were trained with.
    """
    for key in [key for key in state if key.endswith(".lora_A.weight")]:
        layer = key.removesuffix(".lora_A.weight")
        down, up, weight = state.pop(key), state.pop(f"{layer}.lora_B.weight"), state[f"{layer}.weight"]
        update = (lora.alpha / lora.rank) * (up.float() @ down.float())
        state[f"{layer}.weight"] = (weight.float() + update).to(weight.dtype)


def parameter_counts(parts: Mapping[str, nn.Module]) -> str:
    """One line: trainable / total parameters of each part, and which layers LoRA has to leave out."""
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
