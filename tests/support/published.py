"""The published networks in plain functional form, to compare outputs: each is a function of weights and an input.

Weights are a module's state dict. Nothing of the package is used here, so that a slip there does not repeat here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


def randomise(module: nn.Module) -> nn.Module:
    """Draw every weight, norm and running statistic of a module anew, in float64; variances are above zero."""
    generator = torch.Generator().manual_seed(0)
    for key, tensor in module.double().state_dict().items():
        if key.endswith("num_batches_tracked"):
            continue
        values = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)
        fan_in = max(1, tensor[0].numel()) if tensor.ndim > 1 else 4
        tensor.copy_(0.5 + values.abs() if key.endswith("running_var") else values * (2 / fan_in) ** 0.5)
    return module


class Published:
    """Layers by the names of their weights.

    Args:
        weights: A state dict; it is copied, for training changes running statistics.
        training: Whether batch norms take the batch's statistics.
    """

    def __init__(self, weights: dict[str, Tensor], training: bool = False):
        self.weights = {key: tensor.detach().clone() for key, tensor in weights.items()}
        self.training = training

    def of(self, key: str) -> tuple[Tensor, Tensor | None]:
        """The weight and the bias of a layer."""
        return self.weights[f"{key}.weight"], self.weights.get(f"{key}.bias")

    def convolution(self, key: str, x: Tensor, stride: int = 1, padding: int | None = None, groups: int = 1) -> Tensor:
        weight, bias = self.of(key)
        padding = weight.shape[-1] // 2 if padding is None else padding
        return (F.conv2d if x.ndim == 4 else F.conv3d)(x, weight, bias, stride, padding, groups=groups)

    def batch_norm(self, key: str, x: Tensor) -> Tensor:
        mean, variance = self.weights[f"{key}.running_mean"], self.weights[f"{key}.running_var"]
        return F.batch_norm(x, mean.clone(), variance.clone(), *self.of(key), self.training, eps=1e-5)

    def layer_norm(self, key: str, x: Tensor) -> Tensor:
        """Over the last axis."""
        return F.layer_norm(x, x.shape[-1:], *self.of(key), eps=1e-5)

    def map_norm(self, key: str, x: Tensor) -> Tensor:
        """A layer norm over the channels of a map."""
        return self.layer_norm(key, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def group_norm(self, key: str, x: Tensor, groups: int) -> Tensor:
        return F.group_norm(x, groups, *self.of(key), eps=1e-5)


class PublishedNNWNet(Published):
    """nnWNet."""

    def __call__(self, patch: Tensor) -> list[Tensor]:
        local = self.convolved("stem.1", self.convolved("stem.0", patch))
        first = [self.mixed("first_encoder.globals.0", local)]
        for level in range(4):
            local = self.convolved(f"first_encoder.convolutions.{level}", local)
            local = self.convolved(f"first_encoder.downs.{level}", local, stride=2)
            first.append(self.mixed(f"first_encoder.globals.{level + 1}", local))
        second = first[4:]
        both = local
        for level in (3, 2, 1, 0):
            raised = self.raised("first_decoder", level, self.residual(f"first_decoder.blocks.{level}", both))
            both = torch.cat((raised, first[level]), dim=1)
            second.insert(0, self.mixed(f"first_decoder.globals.{level}", both))
        third = second[:1]
        for level in range(4):
            local = self.residual(f"second_encoder.blocks.{level}", both)
            local = self.convolved(f"second_encoder.downs.{level}", local, stride=2)
            both = torch.cat((local, second[level + 1]), dim=1)
            if level < 3:
                third.append(self.mixed(f"second_encoder.globals.{level}", both))
        local = self.residual("decoder.blocks.4", both)
        outputs: list[Tensor] = []
        for level in (3, 2, 1, 0):
            raised = self.raised("decoder", level, local)
            local = self.residual(f"decoder.blocks.{level}", torch.cat((raised, third[level]), dim=1))
            read = local if level == 0 else raised
            outputs.insert(0, self.convolution(f"decoder.seg_layers.{level}", read))
        return outputs

    def convolved(self, key: str, x: Tensor, stride: int = 1) -> Tensor:
        return F.gelu(self.batch_norm(f"{key}.1", self.convolution(f"{key}.0", x, stride)))

    def raised(self, decoder: str, level: int, x: Tensor) -> Tensor:
        mode = "bilinear" if x.ndim == 4 else "trilinear"
        x = F.interpolate(x, scale_factor=2, mode=mode, align_corners=True)
        return self.convolved(f"{decoder}.ups.{level}", x)

    def residual(self, key: str, x: Tensor) -> Tensor:
        y = self.convolution(f"{key}.convolutions.1", self.convolved(f"{key}.convolutions.0", x))
        y = self.batch_norm(f"{key}.convolutions.2", y)
        if f"{key}.shortcut.0.weight" in self.weights:
            x = self.batch_norm(f"{key}.shortcut.1", self.convolution(f"{key}.shortcut.0", x))
        return F.gelu(x + y)

    def mixed(self, key: str, x: Tensor) -> Tensor:
        pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
        x = self.convolution(f"{key}.convolution", x)
        normed = self.group_norm(f"{key}.mixer_norm", x, 1)
        x = x + pool(normed, 3, 1, 1, count_include_pad=False) - normed
        hidden = F.gelu(self.convolution(f"{key}.mlp.1", self.group_norm(f"{key}.mlp.0", x, 1)))
        return x + self.convolution(f"{key}.mlp.3", hidden)


class PublishedSwinBlock(Published):
    """A Swin block, on maps that its windows fill."""

    def swin(self, key: str, x: Tensor, heads: int, window: Sequence[int], shift: Sequence[int]) -> Tensor:
        """(B, h, w, C) -> the same: a token sees those that lie in one window with it, once the grid is moved."""
        batch, height, width, channels = x.shape
        rows, columns = (axis.flatten() for axis in torch.meshgrid(*map(torch.arange, (height, width)), indexing="ij"))
        cells = torch.stack([(rows - shift[0]) // window[0], (columns - shift[1]) // window[1]])
        apart = (cells[:, :, None] != cells[:, None]).any(dim=0)
        down, right = rows[:, None] - rows + window[0] - 1, columns[:, None] - columns + window[1] - 1
        index = (down * (2 * window[1] - 1) + right).masked_fill(apart, 0)
        bias = self.weights[f"{key}.attn.relative_position_bias_table"][index].permute(2, 0, 1)
        normed = self.layer_norm(f"{key}.norm1", x)
        parts = F.linear(normed, *self.of(f"{key}.attn.qkv")).reshape(batch, height * width, 3, heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(-2, -1) / (channels / heads) ** 0.5 + bias
        seen = (scores.masked_fill(apart, -torch.inf).softmax(dim=-1) @ v).transpose(1, 2).reshape(x.shape)
        x = x + F.linear(seen, *self.of(f"{key}.attn.proj"))
        return x + self.mlp(f"{key}.mlp", self.layer_norm(f"{key}.norm2", x))

    def mlp(self, key: str, x: Tensor) -> Tensor:
        return F.linear(F.gelu(F.linear(x, *self.of(f"{key}.fc1"))), *self.of(f"{key}.fc2"))


class PublishedH2Former(PublishedSwinBlock):
    """H2Former, but for its attention in the MLPs, which weighs channels here."""

    def __call__(self, patch: Tensor, heads: Sequence[int], window: Sequence[int]) -> Tensor:
        x = self.convolution("encoder.resnet.conv1", patch)
        x = F.max_pool2d(F.relu(self.batch_norm("encoder.resnet.bn1", x)), 3, 2, 1)
        mixed = self.map_norm("encoder.first_norm", self.scales("encoder.mixings.0", patch))
        features: list[Tensor] = []
        for level in range(4):
            if level > 0:
                mixed = self.scales(f"encoder.mixings.{level}", self.map_norm(f"encoder.norms.{level - 1}", x))
            x = (self.resnet(f"encoder.resnet.layer{level + 1}.0", x) + mixed).permute(0, 2, 3, 1)
            for index in range(2):
                covered = x.shape[1] == window[0]
                shift = [0 if covered or index == 0 else side // 2 for side in window]
                x = self.swin(f"encoder.transformers.{level}.{index}", x, heads[level], window, shift)
            x = x.permute(0, 3, 1, 2)
            features.append(x)
        for level in (2, 1, 0):
            x = F.conv_transpose2d(x, *self.of(f"decoder.ups.{level}"), stride=2)
            x = self.convolution(f"decoder.joinings.{level}.0", torch.cat((x, features[level]), dim=1))
            x = F.relu(self.batch_norm(f"decoder.joinings.{level}.1", x))
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        return self.convolution("decoder.seg_layers.0", x)

    def resnet(self, key: str, x: Tensor) -> Tensor:
        stride = 1 if ".layer1." in key else 2
        y = F.relu(self.batch_norm(f"{key}.bn1", self.convolution(f"{key}.conv1", x, stride)))
        y = self.batch_norm(f"{key}.bn2", self.convolution(f"{key}.conv2", y))
        if f"{key}.downsample.0.weight" in self.weights:
            x = self.batch_norm(f"{key}.downsample.1", self.convolution(f"{key}.downsample.0", x, stride))
        return F.relu(x + y)

    def scales(self, key: str, x: Tensor) -> Tensor:
        count = sum(name.startswith(f"{key}.convolutions.") for name in self.weights) // 2
        maps = [self.convolution(f"{key}.convolutions.{i}", x, 2, padding=2**i - 1) for i in range(count)]
        return self.attention(f"{key}.attention", torch.cat(maps, dim=1).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def attention(self, key: str, x: Tensor) -> Tensor:
        means = x.flatten(1, -2).mean(dim=1)
        weight, _ = self.of(f"{key}.convolution")
        gate = F.conv1d(means[:, None], weight, padding=1).sigmoid()
        return x + x * gate.reshape(len(x), *[1] * (x.ndim - 2), -1)

    def mlp(self, key: str, x: Tensor) -> Tensor:
        tokens = super().mlp(key, x).flatten(1, 2)
        return self.attention(f"{key}.attention", tokens).reshape(x.shape)
