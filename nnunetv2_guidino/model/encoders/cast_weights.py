"""The weights of a transformer's linear layers in the number format of autocast, for predictions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class CastWeights:
    """Casts once what autocast casts again in every pass, since it keeps no copies of frozen weights.

    The copies have the bits of autocast's own. They are made anew when the weights have changed or moved, and are in no
    state dict.

    Args:
        vit: The transformer.
    """

    def __init__(self, vit: nn.Module) -> None:
        # Not those of the patches' convolution: by its format DINOv3 chooses that of its position embedding.
        linear = [module for module in vit.modules() if isinstance(module, nn.Linear)]
        self._places = [(m._parameters, name) for m in linear for name, _ in m.named_parameters(recurse=False)]
        self._made_of: object = None
        self._copies: list[nn.Parameter] = []

    @contextmanager
    def used(self, device: torch.device) -> Iterator[None]:
        """The transformer computes with them meanwhile, without gradients, if autocast is on."""
        weights = [parameters[name] for parameters, name in self._places]
        # Tensors of inference mode do not say when they change.
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
