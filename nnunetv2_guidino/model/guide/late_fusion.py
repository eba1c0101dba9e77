"""Late fusion adds the guide's evidence to the segmentation's logits, as it was fitted on training patches."""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from nnunetv2_guidino.model.guide.gates import guide_at

# Pixels of one epoch to which late fusion is fitted: enough for two numbers per class, and little beside a batch.
LAST_STEPS = 128
PIXELS_PER_STEP = 512
SMOOTH = 1e-5  # of the soft Dice, as in nnU-Net's loss
# Of the squares of weight and bias. A network that separates its training patches leaves nothing to fit, and without
# this penalty both would run off to values that fail on new images.
PENALTY = 0.01


class LateFusion(nn.Module):
    """Predict logit + w · guide logit + b for each foreground head of a segmentation.

    Network and guide are two observers of one pixel. The log-odds of independent observers add up, but both contain
    the prior odds of the foreground, which must count once: b takes the second prior off. w and b of each foreground
    class or region start at 0. They are fitted after each epoch to pixels of this epoch's last training patches (see
    PixelSamples), so they belong to the network and the guide as these are then. No validation case takes part, and
    neither the network nor the guide learns from late fusion.

    One guide for the foreground joins the logit of each class, and a guide for each class or region joins its own.

    Args:
        classes: Number of foreground classes or regions.

    Shape:
        segmentation (B, heads, …): a head for each region, or one for the background and one for each class;
        guide_logits (B, G, …) at the tokens' resolution -> as segmentation
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, classes: int):
        super().__init__()
        self.register_buffer("weight", torch.zeros(classes))
        self.register_buffer("bias", torch.zeros(classes))
        self.register_load_state_dict_pre_hook(_from_one_weight)  # type: ignore[no-untyped-call]

    def forward(self, segmentation: Tensor, guide_logits: Tensor) -> Tensor:
        background, foreground = segmentation.tensor_split([segmentation.shape[1] - len(self.weight)], dim=1)
        weight, bias = (values.reshape(-1, *[1] * (segmentation.ndim - 2)) for values in (self.weight, self.bias))
        evidence = weight * guide_at(guide_logits, segmentation.shape[2:]) + bias
        return torch.cat([background, foreground + evidence.to(foreground)], dim=1)


class Pixels(NamedTuple):
    """Logits and annotation of n pixels.

    Shape:
        segmentation (n, heads), guides (n, G), masks (n, K) and valid (n, 1) boolean
    """

    segmentation: Tensor
    guides: Tensor
    masks: Tensor
    valid: Tensor


class PixelSamples:
    """Keep random pixels of the last steps of an epoch, and fit the weights of late fusion to them.

    The pixels are the same in each epoch, so that they do not depend on earlier epochs or on a resumed training. They
    stay on the device, so that no step waits.
    """

    def __init__(self) -> None:
        self._steps: deque[Pixels] = deque(maxlen=LAST_STEPS)
        self._generator: torch.Generator | None = None

    @torch.no_grad()
    def add(self, segmentation: Tensor, guide_logits: Tensor, masks: Tensor, valid: Tensor) -> None:
        """Keep pixels of a training step.

        Shape:
            segmentation (B, heads, …), guide_logits (B, G, …) at the tokens' resolution, masks (B, K, …) and
            valid (B, 1, …) boolean
        """
        if self._generator is None or not self._steps:
            self._generator = torch.Generator(segmentation.device).manual_seed(0)
        draw = partial(torch.randint, size=(PIXELS_PER_STEP,), generator=self._generator, device=segmentation.device)
        patch, place = draw(len(segmentation)), draw(valid[0].numel())
        tensors = (segmentation, guide_at(guide_logits, segmentation.shape[2:]), masks, valid)
        segmentation, guides, masks, valid = (tensor.flatten(2)[patch, :, place] for tensor in tensors)
        self._steps.append(Pixels(segmentation.float(), guides.float(), masks, valid))

    def fit(self) -> tuple[Tensor, Tensor] | None:
        """Return w and b of each class or region, (K,) each, and forget the pixels; None if no pixel is usable."""
        if not self._steps:
            return None
        pixels = Pixels(*(torch.cat(tensors).cpu() for tensors in zip(*self._steps, strict=True)))
        self._steps.clear()
        # GradScaler skips a step that overflows in float16, so its pixels must not count here either.
        finite = torch.cat([pixels.segmentation, pixels.guides], dim=1).isfinite().all(1)
        usable = pixels.valid[:, 0] & finite
        return weight_and_bias(*(tensor[usable] for tensor in pixels[:3])) if usable.any() else None


def weight_and_bias(segmentation: Tensor, guides: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    """Return w and b with the lowest loss of the fused logits: nnU-Net's cross-entropy and Dice, and a penalty.

    Shape:
        as in Pixels -> (K,) and (K,)
    """
    classes, exclusive = masks.shape[1], segmentation.shape[1] > masks.shape[1]
    weight, bias = (torch.zeros(classes, requires_grad=True) for _ in range(2))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")
    truth = masks.float()
    labels = (masks * torch.arange(1, classes + 1)).sum(1)

    def loss() -> Tensor:
        foreground = segmentation[:, -classes:] + weight * guides + bias
        if exclusive:
            fused = torch.cat([segmentation[:, :-classes], foreground], dim=1)
            entropy, probabilities = F.cross_entropy(fused, labels), fused.softmax(1)[:, -classes:]
        else:
            entropy, probabilities = F.binary_cross_entropy_with_logits(foreground, truth), foreground.sigmoid()
        overlap, sizes = (probabilities * truth).sum(0), probabilities.sum(0) + truth.sum(0)
        dice = ((2 * overlap + SMOOTH) / (sizes + SMOOTH)).mean()
        return entropy - dice + PENALTY * (weight.square() + bias.square()).sum()

    def step() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(step)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()


def can_fuse(heads: int, classes: int, guides: int) -> bool:
    """Return True if the guides give evidence for each foreground head: one guide cannot tell several regions apart."""
    exclusive = heads == 1 + classes  # a background, and a class for each further head
    return exclusive or heads == guides == classes


def _from_one_weight(module: LateFusion, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Read a model of version 0.2.0.dev0, which had one weight for all classes and no bias."""
    weight = state.get(f"{prefix}weight")
    if weight is not None and weight.ndim == 0:
        state[f"{prefix}weight"] = weight.expand_as(module.weight)
        state[f"{prefix}bias"] = torch.zeros_like(module.bias)
