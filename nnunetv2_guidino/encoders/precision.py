"""The number format in which a vision transformer computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies matrices of bfloat16 without emulating it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # torch has no public question for it, and earlier ones had none at all.
    return device.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def native_precision(device: torch.device) -> AbstractContextManager[object]:
    """Matrices are multiplied in bfloat16 where the device can, and in float32 where not, whatever autocast says.

    nnU-Net's autocast is in float16, which ends at 65504: the residual stream of large DINOv3 goes beyond. bfloat16 has
    float32's range. Norms, the residual stream and all parameters stay in float32.
    """
    if device.type not in ("cpu", "cuda"):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device))
