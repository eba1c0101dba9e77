"""The number format in which a vision transformer computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def has_bfloat16(device: torch.device) -> bool:
    """Whether to multiply matrices in bfloat16: on GPUs that do not emulate it, and on a CPU under autocast in it."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    # On a CPU predictions would change by more than 0.001 Dice in single cases, so there it has to be asked for.
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16


def native_precision(device: torch.device) -> AbstractContextManager[object]:
    """Matrices are multiplied in bfloat16 or in float32 (see has_bfloat16), never in autocast's float16.

    nnU-Net's autocast on GPUs is in float16, which ends at 65504: the residual stream of large DINOv3 goes beyond.
    bfloat16 has float32's range. Norms, the residual stream and all parameters stay in float32.
    """
    if device.type not in ("cpu", "cuda"):
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=has_bfloat16(device))
