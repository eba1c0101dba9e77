"""Cast the weights of linear layers to the number format of autocast once, for predictions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class CastWeights:
    """Keep copies of a transformer's weights in the format of autocast.

    Autocast keeps no copies of frozen weights, so it casts them in every pass. These copies have the same bits as
    autocast's. They are renewed when the weights have changed or moved, and no state dict contains them.

    Args:
        vit: Transformer whose linear layers are cast.
    """

    def __init__(self, vit: nn.Module) -> None:
        # The patch convolution is left out: DINOv3 computes its position embedding in the format of this convolution.
        linear = [module for module in vit.modules() if isinstance(module, nn.Linear)]
        self._places = [(m._parameters, name) for m in linear for name, _ in m.named_parameters(recurse=False)]
        self._made_of: object = None
        self._copies: list[nn.Parameter] = []

    @contextmanager
    def used(self, device: torch.device) -> Iterator[None]:
        """Let the transformer compute with the copies within this context, without gradients, if autocast is on."""
        weights = [parameters[name] for parameters, name in self._places]
        # Tensors of inference mode have no version, so a change would go unnoticed.
        if not torch.is_autocast_enabled(device.type) or any(w is None or w.is_inference() for w in weights):
            yield
            return
        self._place(self._copies_of(weights, torch.get_autocast_dtype(device.type)))
        try:
            yield
        finally:
            self._place(weights)

    def _copies_of(self, weights: list[nn.Parameter | None], dtype: torch.dtype) -> list[nn.Parameter]:
        present = [weight for weight in weights if weight is not None]
        made_of = dtype, [(weight.data_ptr(), weight._version) for weight in present]
        if made_of != self._made_of:
            with torch.inference_mode(False):
                self._copies = [nn.Parameter(weight.detach().to(dtype), requires_grad=False) for weight in present]
            self._made_of = made_of
        return self._copies

    def _place(self, weights: list[nn.Parameter] | list[nn.Parameter | None]) -> None:
        for (parameters, name), weight in zip(self._places, weights, strict=True):
            parameters[name] = weight
