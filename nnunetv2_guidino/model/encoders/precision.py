"""Choose the number format in which a vision transformer multiplies matrices."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

LARGEST_FLOAT16 = 65504
# Other images than the measured ones may have larger activations, and adapters change them.
MARGIN = 8


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def has_bfloat16(device: torch.device) -> bool:
    """Return True if the device multiplies matrices of bfloat16 without emulation."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if not hasattr(torch.cpu, "get_capabilities"):  # earlier versions of torch do not know it
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def native_precision(
    device: torch.device, training: bool, fits_float16: bool = False
) -> AbstractContextManager[object]:
    """Return a context that multiplies matrices in bfloat16 if the device has it.

    Other devices multiply in float32; other GPUs multiply in float16 if the activations fit it.

    nnU-Net's autocast on GPUs uses float16. Its largest value is 65504, which the residual stream of large DINOv3
    models exceeds. bfloat16 has the range of float32. Norms, the residual stream and all parameters stay in float32.

    CPUs predict in float32, as nnU-Net does on CPUs: bfloat16 changes the Dice of single cases by some thousandths
    (docs/tools/number_formats.py). The randomness of a training is far larger.
    """
    if device.type not in ("cpu", "cuda"):
        return nullcontext()
    if has_bfloat16(device):
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=training or device.type == "cuda")
    return torch.autocast(device.type, dtype=torch.float16, enabled=fits_float16 and device.type == "cuda")


class _Products(TorchFunctionMode):
    """Keep the largest absolute values of what goes into matrix products of layers and of what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.largest: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        if func in (F.linear, F.conv2d):  # not hooks of layers: some attentions multiply by a weight themselves
            self.largest += [tensor.detach().abs().amax() for tensor in (args[0], output)]
        return output


def largest_activation(vit: nn.Module, run: Callable[[Tensor], object], size: int) -> float:
    """Return the largest absolute value among the inputs and outputs of a transformer's matrix products.

    It is measured in float32 on two images: normal noise, and zeros.

    Args:
        vit: The transformer.
        run: Function that runs the transformer on images (2, 3, size, size).
        size: Side of the images in pixels.
    """
    noise = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    images = torch.cat([noise, torch.zeros_like(noise)]).to(next(vit.parameters()).device)
    with torch.no_grad(), _Products() as products:
        run(images)
    return float(torch.stack(products.largest).amax())


def fits_float16(activation: object) -> bool:
    """Return True if float16 holds products with this largest activation; False if `activation` is no number."""
    return isinstance(activation, (int, float)) and MARGIN * activation <= LARGEST_FLOAT16
