"""More published networks in plain functional form: heads on tokens, and U-KAN."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from published import Published
from scipy.interpolate import BSpline
from torch import Tensor

KNOTS = -1 + 0.4 * np.arange(-3, 9)  # of cubic splines on five intervals in [-1, 1]


def spline_bases(values: Tensor) -> Tensor:
    """The eight cubic B-splines, by SciPy: (…) -> (…, 8)."""
    elements = [BSpline.basis_element(KNOTS[i : i + 5], extrapolate=False) for i in range(8)]
    return torch.tensor(np.stack([np.nan_to_num(element(values.numpy())) for element in elements], axis=-1))


def resized(x: Tensor, size: tuple[int, ...], align_corners: bool) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)


class PublishedSegDINO(Published):
    """SegDINO's head."""

    def __call__(self, maps: list[Tensor], size: tuple[int, ...], transposed: bool) -> Tensor:
        maps = [
            self.convolution(f"projections.{i}.1", self.convolution(f"projections.{i}.0", tokens))
            for i, tokens in enumerate(maps)
        ]
        if transposed:
            maps[0] = F.conv_transpose2d(maps[0], *self.of("decoder.enlarge"), stride=4)
        sides = maps[0].shape[2:]
        joined = torch.cat([maps[0], *(resized(tokens, sides, True) for tokens in maps[1:])], dim=1)
        return resized(self.convolution("decoder.seg_layers.0", joined), size, True)


class PublishedSegDINO2(Published):
    """The head of SegDINO's second version."""

    def __call__(self, maps: list[Tensor], size: tuple[int, ...]) -> Tensor:
        below: Tensor | None = None
        for level in (3, 2, 1, 0):
            x = self.convolution(f"projections.{level}", maps[level])
            x = resized(x, tuple(side * 2 ** (3 - level) for side in x.shape[2:]), False)
            x = self.separable("refinements", level, self.convolution(f"decoder.smoothings.{level}", x))
            if below is not None:
                x = x + resized(below, x.shape[2:], False)
            below = self.separable("joinings", level, x)
        assert below is not None
        return resized(self.convolution("decoder.seg_layers.0", below), size, False)

    def separable(self, name: str, level: int, x: Tensor) -> Tensor:
        key = f"decoder.{name}.{level}"
        y = self.convolution(f"{key}.convolutions.0", x, groups=x.shape[1])
        y = F.gelu(self.group_norm(f"{key}.convolutions.2", self.convolution(f"{key}.convolutions.1", y), 32))
        return x + self.weights[f"{key}.strength"] * y


class PublishedSegGuiDINO(Published):
    """Seg-GuiDINO's head without its guide, and its partner's."""

    def __call__(self, tokens: Tensor, size: tuple[int, ...], partner: bool) -> Tensor:
        x = self.convolution("projection.0" if partner else "projection", tokens)
        if partner:
            x = F.gelu(self.group_norm("projection.1", x, 32))
        x = self.group_norm("decoder.convolutions.1", self.convolution("decoder.convolutions.0", x), 32)
        return resized(self.convolution("decoder.seg_layers.0", F.gelu(x)), size, False)


class PublishedUKAN(Published):
    """U-KAN."""

    def __call__(self, x: Tensor) -> Tensor:
        skips = []
        for stage in range(3):
            x = F.relu(F.max_pool2d(self.convolved(f"encoder.stages.{stage}", x), 2))
            skips.append(x)
        for stage in range(2):
            x = self.convolution(f"encoder.embeddings.{stage}", x, stride=2)
            x = self.kan_block(f"encoder.blocks.{stage}", self.map_norm(f"encoder.embedding_norms.{stage}", x))
            skips.append(x)
        for stage in (4, 3, 2, 1, 0):
            x = self.convolved(f"decoder.stages.{stage}", x)
            x = F.relu(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False))
            if stage > 0:
                x = x + skips[stage - 1]
            if stage > 2:
                x = self.kan_block(f"decoder.blocks.{stage - 3}", x)
        return self.convolution("decoder.seg_layers.0", x)

    def convolved(self, key: str, x: Tensor) -> Tensor:
        x = F.relu(self.batch_norm(f"{key}.1", self.convolution(f"{key}.0", x)))
        return F.relu(self.batch_norm(f"{key}.4", self.convolution(f"{key}.3", x)))

    def kan_block(self, key: str, x: Tensor) -> Tensor:
        y = self.map_norm(f"{key}.norm", x)
        for index in range(3):
            y = self.kan_linear(f"{key}.linears.{index}.", y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
            y = self.convolution(f"{key}.convolutions.{index}.0", y, groups=y.shape[1])
            y = F.relu(self.batch_norm(f"{key}.convolutions.{index}.1", y))
        return self.map_norm(f"{key}.last_norm", x + y)

    def kan_linear(self, key: str, x: Tensor) -> Tensor:
        """SiLU times a weight, plus on each edge its spline times its scaler."""
        base, spline, scaler = (self.weights[f"{key}{name}"] for name in NAMES)
        coefficients = spline * scaler[:, :, None]
        return F.linear(F.silu(x), base) + torch.einsum("...ik,oik->...o", spline_bases(x), coefficients)


NAMES = ("base_weight", "spline_weight", "spline_scaler")
