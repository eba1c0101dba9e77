"""nnU-Net's loss and the terms beside it (equation 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.guide.late_fusion import LateFusion
from nnunetv2_guidino.model.guide.tokenbook import foreground_guide
from nnunetv2_guidino.model.losses.guide_loss import guide_counts
from nnunetv2_guidino.model.losses.target import read_target
from nnunetv2_guidino.model.losses.terms import Step

NEGLIGIBLE = 1e-5  # nnU-Net's weight of an output that counts for nothing: 0, or 1e-6 on several GPUs, before division


class GuidedLoss(nn.Module):
    """nnU-Net's loss + Σ λ · term, over the terms of lists.LOSS_TERMS (equation 2).

    Ignored pixels count in no term.

    Args:
        segmentation_loss: As nnU-Net builds it, for all outputs or, without deep supervision, for one.
        label_manager: nnU-Net's.
        weights: λ of each term, by name; 0 switches it off.
        in_plane: Volumes are anisotropic: an edge lies within a slice (see boundary_band).
        late_fusion: The network's, which learns here: its loss adds a gradient and nothing to the loss's value.

    Shape:
        output: nnU-Net's outputs, finest first, and the guides' logits (B, G, …) behind them: one for the foreground,
            or one for each foreground class or region.
        target: nnU-Net's targets, finest first, or the one (see read_target).

    Raises:
        GuidinoError: If a term is unknown, or nnU-Net's loss would silently leave out outputs, or weigh those that it
            has wrongly because it expects more.
    """

    def __init__(
        self,
        segmentation_loss: nn.Module,
        label_manager: LabelManager,
        weights: Mapping[str, float],
        in_plane: bool = False,
        late_fusion: LateFusion | None = None,
    ):
        super().__init__()
        self.segmentation_loss = segmentation_loss
        self.label_manager = label_manager
        self.weights = {name: weight for name, weight in weights.items() if weight}
        self.in_plane = in_plane
        self.late_fusion = late_fusion
        self.terms = ["seg", *self.weights]
        self._calculate = {name: _loaded(name) for name in self.weights}
        self._last: dict[str, Tensor] = {}

    def forward(self, output: list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        *segmentations, guide_logits = output
        targets = [target] if isinstance(target, Tensor) else target
        annotation = read_target(targets[0], self.label_manager)
        step = Step(segmentations, guide_logits, annotation, self.label_manager, self.in_plane)

        # Late fusion comes first: its tensors are freed before nnU-Net's loss makes as many.
        fuses = self.late_fusion is not None and torch.is_grad_enabled()
        gradient_of_fusion = self.late_fusion_gradient(segmentations[0], guide_logits, targets[0]) if fuses else 0
        terms = {"seg": self._segmentation_term(segmentations, targets)}
        loss = terms["seg"] + gradient_of_fusion
        for name, weight in self.weights.items():
            terms[name] = self._calculate[name](step)
            loss = loss + weight * terms[name]
        self._last = {f"{name}_loss": term.detach() for name, term in terms.items()}
        if not torch.is_grad_enabled():
            self._last |= guide_counts(foreground_guide(guide_logits.sigmoid()), annotation)
        return loss

    def late_fusion_gradient(self, segmentation: Tensor, guide_logits: Tensor, target: Tensor) -> Tensor:
        """Return a scalar 0 whose gradient is that of the fused segmentation's loss by late fusion's parameters.

        Shape:
            segmentation (B, heads, …), guide_logits (B, G, …) and nnU-Net's target (B, 1 or regions, …) -> scalar
        """
        assert self.late_fusion is not None
        of_all: Any = self.segmentation_loss
        of_one = of_all.loss if isinstance(of_all, DeepSupervisionWrapper) else of_all
        # In float32: float16 would round most pixels' gradients, which no loss scale lifts here, to zero.
        fused = self.late_fusion(segmentation.float(), guide_logits)
        parameters = [*self.late_fusion.parameters()]
        gradients = torch.autograd.grad(of_one(fused, target), parameters)
        product = torch.cat([parameter * of for parameter, of in zip(parameters, gradients, strict=True)]).sum()
        return product - product.detach()

    def _segmentation_term(self, segmentations: list[Tensor], targets: list[Tensor]) -> Tensor:
        of_all: Any = self.segmentation_loss
        if isinstance(of_all, DeepSupervisionWrapper):
            _check_outputs(len(segmentations), of_all.weight_factors)
        elif len(targets) == 1:
            return of_all(segmentations[0], targets[0])
        return of_all(segmentations, targets)

    def last_terms(self) -> dict[str, Tensor]:
        """The unweighted terms of the last call, and true and false positives and negatives of the guide.

        The latter only without gradients: in training nobody asks for them.

        They are on the device, where they are computed while the next step is prepared: to ask for their values is to
        wait for them.
        """
        return self._last


def _loaded(name: str) -> Any:
    term = lists.find(lists.LOSS_TERMS, name, "the loss term").load()
    return term() if isinstance(term, type) else term


def _check_outputs(outputs: int, weights: tuple[float, ...]) -> None:
    """Refuse what nnU-Net's loss would cut to the shorter of the two without a word."""
    cut = outputs > len(weights) or any(weight > NEGLIGIBLE for weight in weights[outputs:])
    if cut or any(math.isnan(weight) for weight in weights):
        weighed = ", ".join(f"{weight:.3g}" for weight in weights)
        raise GuidinoError(
            f"the network returns {outputs} segmentation{'s' * (outputs > 1)}, but nnU-Net weighs {len(weights)} "
            f"({weighed}), as architecture.arch_kwargs.strides of the plans say: they need one entry more than the "
            "network has outputs, and three for a single output"
        )
