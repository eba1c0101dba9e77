"""Add the terms of the guide to nnU-Net's loss (equation 2)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import Tensor, nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.guide.late_fusion import LateFusion, PixelSamples
from nnunetv2_guidino.model.guide.tokenbook import foreground_guide
from nnunetv2_guidino.model.losses.guide_loss import guide_counts
from nnunetv2_guidino.model.losses.target import read_target
from nnunetv2_guidino.model.losses.terms import Step

NEGLIGIBLE = 1e-5  # nnU-Net's weight of an output that counts for nothing: 0, or 1e-6 on several GPUs, before division


class GuidedLoss(nn.Module):
    """Compute nnU-Net's loss + Σ λ · term over the terms of lists.LOSS_TERMS (equation 2).

    Ignored pixels count in no term.

    Args:
        segmentation_loss: nnU-Net's loss of all outputs or, without deep supervision, of one.
        label_manager: nnU-Net's label manager.
        weights: λ of each term, by name; 0 switches it off.
        in_plane: True if volumes are anisotropic, so that edges lie within slices (see boundary_band).
        late_fusion: Late fusion of the network, for which the loss keeps pixels of training steps.

    Shape:
        output: nnU-Net's outputs, finest first, followed by the guides' logits (B, G, …); G is 1 for one guide of the
            foreground, else the number of foreground classes or regions.
        target: nnU-Net's targets, finest first, or a single target (see read_target).

    Raises:
        GuidinoError: If a term is unknown, or nnU-Net's loss expects another number of outputs than the network has.
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
        self.samples = PixelSamples()
        self.terms = ["seg", *self.weights]
        self._calculate = {name: _loaded(name) for name in self.weights}
        self._last: dict[str, Tensor] = {}

    def forward(self, output: list[Tensor], target: Tensor | list[Tensor]) -> Tensor:
        *segmentations, guide_logits = output
        targets = [target] if isinstance(target, Tensor) else target
        annotation = read_target(targets[0], self.label_manager)
        step = Step(segmentations, guide_logits, annotation, self.label_manager, self.in_plane)

        if self.late_fusion is not None and torch.is_grad_enabled():
            self.samples.add(segmentations[0], guide_logits, *annotation)
        terms = {"seg": self._segmentation_term(segmentations, targets)}
        loss = terms["seg"]
        for name, weight in self.weights.items():
            terms[name] = self._calculate[name](step)
            loss = loss + weight * terms[name]
        self._last = {f"{name}_loss": term.detach() for name, term in terms.items()}
        if not torch.is_grad_enabled():
            self._last |= guide_counts(foreground_guide(guide_logits.sigmoid()), annotation)
        return loss

    def fit_late_fusion(self) -> None:
        """Fit late fusion to pixels of the last training steps; several GPUs take the values of the first."""
        if self.late_fusion is None or (values := self.samples.fit()) is None:
            return
        for buffer, value in zip((self.late_fusion.weight, self.late_fusion.bias), values, strict=True):
            buffer.copy_(value)
            if dist.is_available() and dist.is_initialized():
                dist.broadcast(buffer, 0)

    def _segmentation_term(self, segmentations: list[Tensor], targets: list[Tensor]) -> Tensor:
        of_all: Any = self.segmentation_loss
        if isinstance(of_all, DeepSupervisionWrapper):
            _check_outputs(len(segmentations), of_all.weight_factors)
        elif len(targets) == 1:
            return of_all(segmentations[0], targets[0])
        return of_all(segmentations, targets)

    def last_terms(self) -> dict[str, Tensor]:
        """Return the unweighted terms of the last call, on the device: reading a value waits for it.

        A call without gradients adds the true and false positives and the false negatives of the guide.
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
