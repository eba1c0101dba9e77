"""TokenBook turns tokens into a guide (equation 1)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from nnunetv2_guidino.model.guide.autocast import without_autocast

START_OFFSET = -2.0  # a guide of 0.12: most tokens are background
AFFINE_EDGE = 1e-6  # below this value of ½ ± ½·s, its tangent replaces the logarithm


def foreground_guide(guides: Tensor) -> Tensor:
    """Return the one guide that gates features: the maximum of all guides.

    Shape:
        guides (B, G, …) -> (B, 1, …)
    """
    return guides.amax(1, keepdim=True)


def affine_logits(similarity: Tensor) -> Tensor:
    """Return the logits of ½ + ½·s.

    They are finite and have a gradient for every s, also for an s that rounding moves out of [-1, 1].

    Shape:
        any -> the same
    """

    def log(value: Tensor) -> Tensor:
        return value.clamp(min=AFFINE_EDGE).log() + (value - AFFINE_EDGE).clamp(max=0) / AFFINE_EDGE

    return log(0.5 + 0.5 * similarity) - log(0.5 - 0.5 * similarity)


class TokenBook(nn.Module):
    """Compare every token with K learned prototypes and compute a guide from the weighted mean similarity.

    s = Σ_k α_k · sim(token, p_k), with α ≥ 0 and Σ α = 1 (equation 1). A 1×1 projection, which all guides share, maps
    the tokens first. Each guide has its own prototypes, α and read-out.

    Read-outs:
        logistic: σ(τ·s + b) with learned τ (start 10·√K) and b (start -2). The mean of K random unit prototypes has a
            norm near 1/√K, so s starts that small, and τ brings its logit back to the order of one.
        affine: ½ + ½·s, as in the reference code. Under nnU-Net's SGD and equation 3 alone it stays flat for hundreds
            of steps.

    Projection, similarity and read-out are computed in float32.

    Args:
        channels: Width C of the tokens.
        prototypes: Number K of prototypes.
        similarity: "cosine" or "dot" (scaled by 1/√C, as in attention).
        readout: "logistic" or "affine".
        guides: Number G of guides.

    Shape:
        tokens (B, C, h, w) -> guides (B, G, h, w) in [0, 1].
    """

    def __init__(self, channels: int, prototypes: int, similarity: str, readout: str, guides: int = 1):
        super().__init__()
        self.guides = guides
        self.similarity = similarity
        self.readout = readout
        self.projection = nn.Conv2d(channels, channels, kernel_size=1)
        # Cosine similarity ignores the length of a prototype, but an optimizer's step turns a long prototype less.
        # Prototypes of length √C hardly learned a small foreground under nnU-Net's SGD
        # (docs/explanation/how_it_works.md).
        spread = 0.02 if similarity == "cosine" else 1.0
        self.prototypes = nn.Parameter(spread * torch.randn(guides, prototypes, channels))
        self.weight_logits = nn.Parameter(torch.zeros(guides, prototypes))
        if readout == "logistic":
            self.scale = nn.Parameter(torch.full((guides, 1, 1), 10 * math.sqrt(prototypes)))
            self.offset = nn.Parameter(torch.full((guides, 1, 1), START_OFFSET))

    @property
    def weights(self) -> Tensor:
        """Return α of equation 1, of shape (G, K): non-negative, and for each guide the sum is one."""
        return self.weight_logits.softmax(1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits(tokens).sigmoid()

    def logits(self, tokens: Tensor) -> Tensor:
        """Return the logits of the guides. The guides' loss needs them: σ has no gradient where it rounds to 0 or 1.

        Shape:
            tokens (B, C, h, w) -> (B, G, h, w) in float32; their σ is the guides.
        """
        with without_autocast(tokens):
            # A matrix product in place of the 1×1 convolution gives its weight's gradient the strides that DDP expects.
            weight, bias = (parameter.float() for parameter in self.projection.parameters())
            projected = F.linear(tokens.float().movedim(1, -1), weight.flatten(1), bias)
            similarity = self._similarity(projected.movedim(-1, 1))
            if self.readout == "logistic":
                return self.scale.float() * similarity + self.offset.float()
            return affine_logits(similarity)

    def _similarity(self, projected: Tensor) -> Tensor:
        """Return s of equation 1: (B, C, h, w) -> (B, G, h, w)."""
        prototypes = self.prototypes.float()
        if self.similarity == "cosine":
            projected = F.normalize(projected, dim=1)
            prototypes = F.normalize(prototypes, dim=2)
        else:
            projected = projected / math.sqrt(projected.shape[1])
        # Both similarities are linear in the prototype. Summing the weighted prototypes first therefore needs one 1×1
        # convolution instead of K, and no (B, K, h, w) tensor.
        mean_prototype = (self.weights.float()[:, None] @ prototypes)[:, 0]
        return torch.einsum("bchw,gc->bghw", projected, mean_prototype)
