"""TokenEncoder turns a patch (B, n, H, W) into a pretrained vision transformer's tokens (B, C, h, w)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.architecture import Layer, build_vit, checked_layers
from nnunetv2_guidino.model.encoders.cast_weights import CastWeights
from nnunetv2_guidino.model.encoders.families import family_of
from nnunetv2_guidino.model.encoders.lora import add_adapters, dropouts, linear_layers, merge_adapters, reached
from nnunetv2_guidino.model.encoders.names import to_installed, to_stable
from nnunetv2_guidino.model.encoders.precision import fits_float16, largest_activation, native_precision
from nnunetv2_guidino.model.encoders.source import EncoderSource, describe
from nnunetv2_guidino.model.encoders.token_memory import TokenMemory, equal_weights
from nnunetv2_guidino.model.encoders.vit_weights import pretrained_vit

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# nnU-Net's normalisation schemes with values in [0, 1]; the others give about zero mean and unit variance.
UNIT_RANGE_SCHEMES = ("RescaleTo01Normalization", "RGBTo01Normalization")

# A volume has hundreds of slices. With 1536 floats for each token, ViT-S's widest tensor has 100 MB.
TOKENS_AT_ONCE = 2**14
TOKENS_WITHOUT_GRADIENT = 2**16  # only the tensors of one block are in memory then

MEASURED_PATCHES = 14  # side of the images on which the largest activation is measured

# Parameters that no patch token depends on: the substitute for masked patches, and the pooling of the whole image. DDP
# does not accept trainable parameters without a gradient.
_WITHOUT_GRADIENT = ("mask_token", "pooler")


class TokenEncoder(nn.Module):
    """Return a vision transformer's patch tokens, and prepare the input as the transformer was trained.

    The input is the first channels of an nnU-Net patch, one for each normalisation scheme; channels that a cascade
    appends are left out. One channel is repeated, three channels are used as they are, and other numbers pass a learned
    1×1 convolution that starts as the mean. Channels in [0, 1] are normalised with ImageNet's mean and standard
    deviation. The image is enlarged until its shorter side has `min_input_size` pixels, but not beyond the area of a
    square with side `max_input_size`. Larger images are reduced to this area. Then each side is resized to the nearest
    multiple of the patch.

    The transformer is frozen: it has no gradients and stays in evaluation mode after `.train()`, because DINOv3
    rescales its position embedding at random in training mode. Only LoRA's adapters get gradients, and their dropout
    follows `.train()`. A `trainable` transformer gets gradients as a whole and stays in evaluation mode too.

    A large batch, such as the slices of a volume, is encoded in parts, so memory does not grow with its size. With
    gradients, the backward pass encodes the parts once more.

    In the state dict, the transformer's tensors have names of our own, which no version of transformers, timm or peft
    changes. `load_state_dict` also takes the names of all these versions.

    Args:
        architecture: Architecture as read_encoder_config returns it. The weights are random until `load_pretrained` or
            `load_state_dict`.
        layer: Number of the block whose tokens are used, from 1; None for the last. The tokens of several blocks are
            concatenated. Later blocks are not built.
        normalization_schemes: nnU-Net's normalisation scheme of each image channel.
        min_input_size: Shorter side of the input in pixels, if the input is not elongated.
        lora: Settings of adapters on the transformer's linear layers; None for no adapters.
        merge_lora: True for predictions: build no adapters, and merge those in the weights that `load_state_dict` gets.
            Folds of an ensemble with equal encoders then share the tokens of a tile (see TokenMemory).
        trainable: True to train the transformer itself.
        max_input_size: Side in pixels of the largest square, at least min_input_size; None for no limit.

    Shape:
        (B, n, H, W) with n >= len(normalization_schemes) -> (B, C, h, w)
    """

    vit: Any  # transformers gives no types
    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        architecture: dict[str, Any],
        layer: Layer,
        normalization_schemes: Sequence[str],
        min_input_size: int,
        lora: LoRA | None = None,
        merge_lora: bool = False,
        trainable: bool = False,
        max_input_size: int | None = None,
    ):
        super().__init__()
        self.architecture = architecture
        self.min_input_size = min_input_size
        self.max_input_size = None if max_input_size is None else max(min_input_size, max_input_size)
        self.image_channels = len(normalization_schemes)
        self.vit = build_vit(architecture).requires_grad_(False).eval()
        self.family = family_of(architecture["model_type"])
        blocks = self.family.blocks(self.vit)
        *hidden, self.last_layer = checked_layers(layer, len(blocks))
        del blocks[self.last_layer :]
        if trainable:
            for name, parameter in self.vit.named_parameters():
                parameter.requires_grad_(not any(part in name for part in _WITHOUT_GRADIENT))
        self.keeps_hidden_tokens = bool(hidden)
        self._hidden_tokens: list[Tensor] = []
        for number in hidden:
            blocks[number - 1].register_forward_hook(self._keep_hidden_tokens)
        self.patch_size = self.family.patch_size(self.vit)
        self._options = self.family.forward_options(self.vit)
        self.lora = lora
        self.has_adapters = lora is not None and not merge_lora
        self.trainable = trainable
        self.has_gradients = self.has_adapters or trainable  # of the transformer
        self.memory = TokenMemory() if merge_lora else None
        self.cast_weights = CastWeights(self.vit) if merge_lora else None
        self.fits_float16 = False  # set when the weights are known
        self.not_adapted: list[str] = []  # linear layers without adapters, which would get no gradients there
        if lora is not None and self.has_adapters:
            self._adapted = self._layers_to_adapt(blocks)
            add_adapters(self.vit, lora, self._adapted)
        self.register_state_dict_post_hook(_to_stable_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_to_installed_names)  # type: ignore[no-untyped-call]
        self.channels: int = self.family.width(self.vit) * (len(hidden) + 1)

        schemes = [*normalization_schemes] * (3 if self.image_channels == 1 else 1)
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if len(schemes) == 3 else _grey_statistics(len(schemes))
        unit_range = torch.tensor([scheme in UNIT_RANGE_SCHEMES for scheme in schemes])
        shift = torch.where(unit_range, torch.tensor(mean), 0.0)
        scale = torch.where(unit_range, 1 / torch.tensor(std), 1.0)
        self.register_buffer("shift", shift[None, :, None, None], persistent=False)
        self.register_buffer("scale", scale[None, :, None, None], persistent=False)
        self.to_rgb: nn.Conv2d | None = None
        if len(schemes) != 3:
            self.to_rgb = nn.Conv2d(len(schemes), 3, kernel_size=1)
            nn.init.constant_(self.to_rgb.weight, 1 / len(schemes))
            nn.init.zeros_(self.to_rgb.bias)  # type: ignore[arg-type]

    def _layers_to_adapt(self, blocks: nn.Module) -> list[str]:
        linear = linear_layers(blocks, self.vit)
        device = next(self.vit.parameters()).device
        if device.type == "meta":
            self.vit.to(device)  # timm computes rotary periods on the CPU
        image = torch.zeros(1, 3, 2 * self.patch_size, 3 * self.patch_size, device=device)
        adapted = reached(self.vit, linear, lambda: self.vit(pixel_values=image, **self._options).last_hidden_state)
        if not adapted:
            raise GuidinoError(
                f"guidino.lora: the attention and MLP of {type(self.vit).__name__} pass their layers by, so that "
                f"adapters would not be trained; set guidino.lora to null"
            )
        self.not_adapted = [name for name in linear if name not in adapted]
        return adapted

    def train(self, mode: bool = True) -> TokenEncoder:
        super().train(mode)
        self.vit.eval()
        if self.has_adapters:
            for dropout in dropouts(self.vit):
                dropout.train(mode)
        return self

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the transformer's input size in pixels for a patch of height×width pixels."""
        factor = self._factor(height, width)
        patches = (max(1, int(side * factor / self.patch_size + 0.5)) for side in (height, width))
        rows, columns = patches
        return rows * self.patch_size, columns * self.patch_size

    def _factor(self, height: int, width: int) -> float:
        """Return the factor by which a patch is enlarged or, below 1, reduced."""
        factor = max(1.0, self.min_input_size / min(height, width))
        if self.max_input_size is not None:
            factor = min(factor, self.max_input_size / math.sqrt(height * width))
        return factor

    def forward(self, patch: Tensor) -> Tensor:
        images = patch[:, : self.image_channels]
        if self.memory is None or not _predicting():
            return self._encode(images)
        return self.memory.recall(images, self._encode)

    def _encode(self, images: Tensor) -> Tensor:
        height, width = self.input_size(*images.shape[2:])
        tokens_per_image = (height // self.patch_size) * (width // self.patch_size)
        # The learned convolution lies before the transformer, so its gradient passes through the transformer.
        with nullcontext() if self.to_rgb is not None or self.has_gradients else torch.no_grad():
            most = TOKENS_AT_ONCE if torch.is_grad_enabled() else TOKENS_WITHOUT_GRADIENT
            chunks = torch.split(images, max(1, most // tokens_per_image))
            encode = self._tokens
            if len(chunks) > 1 and torch.is_grad_enabled() and not self.keeps_hidden_tokens:
                # Only the chunks are kept for the backward pass, and no tensor inside the transformer. With hidden
                # tokens everything is kept, because torch.compile cannot collect these inside a checkpoint.
                encode = partial(checkpoint, encode, use_reentrant=False)
            return torch.cat([encode(chunk) for chunk in chunks])

    def _tokens(self, image: Tensor) -> Tensor:
        if self.image_channels == 1:
            image = image.expand(-1, 3, -1, -1)
        image = (image - self.shift) * self.scale
        if self.to_rgb is not None:
            image = self.to_rgb(image)
        height, width = self.input_size(*image.shape[2:])
        if (height, width) != tuple(image.shape[2:]):
            is_reduced = self._factor(*image.shape[2:]) < 1
            image = F.interpolate(image, size=(height, width), mode="bilinear", antialias=is_reduced)
        # [CLS, registers…, patches…]: the patches come last, after any number of other tokens.
        rows, columns = height // self.patch_size, width // self.patch_size
        own = self.scale.dtype  # the weights' format too; nnU-Net's autocast may have changed the image's
        cast = nullcontext() if self.cast_weights is None or not _predicting() else self.cast_weights.used(image.device)
        with native_precision(image.device, self.training, self.fits_float16), cast:
            patches = self._all_tokens(image.to(own))[:, -rows * columns :].to(own)
        return patches.transpose(1, 2).unflatten(2, (rows, columns))

    def _all_tokens(self, image: Tensor) -> Any:
        if not self.keeps_hidden_tokens:
            return self.vit(pixel_values=image, **self._options).last_hidden_state
        self._hidden_tokens.clear()
        last = self.vit(pixel_values=image, **self._options).last_hidden_state
        norm: Any = self.family.final_norm(self.vit)
        tokens = torch.cat([*map(norm, self._hidden_tokens), last], dim=2)
        self._hidden_tokens.clear()  # kept tensors would keep the graph of this pass in memory
        return tokens

    def _keep_hidden_tokens(self, block: nn.Module, args: Any, output: Any) -> None:
        self._hidden_tokens.append(output[0] if isinstance(output, tuple) else output)

    def load_pretrained(self, folder: Path, name: str) -> EncoderSource:
        """Load pretrained weights and describe them.

        Args:
            folder: Folder that find_encoder returned.
            name: Name that the user gave.

        Raises:
            GuidinoError: If the weights do not fit the architecture.
        """
        pretrained = pretrained_vit(folder, self.architecture)
        parameters = sum(p.numel() for p in pretrained.parameters())
        del self.family.blocks(pretrained)[self.last_layer :]
        if self.lora is not None and self.has_adapters:
            add_adapters(pretrained, self.lora, self._adapted)  # they start without effect, as in self.vit
        # self.vit is not replaced by `pretrained`: in some models, from_pretrained does not set buffers that are not in
        # the file (the rotary periods of timm 1.0.22's DINOv3).
        self.vit.load_state_dict(pretrained.state_dict())
        activation = largest_activation(self.vit, self._all_tokens, MEASURED_PATCHES * self.patch_size)
        # Training as a whole moves the activations further than adapters do.
        self.fits_float16 = fits_float16(activation) and not self.trainable
        source = describe(folder, name, parameters, pretrained.config)
        return replace(source, largest_activation=activation)


def _predicting() -> bool:
    return not (torch.is_grad_enabled() or torch.compiler.is_compiling())


def _to_stable_names(module: TokenEncoder, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    for name, tensor in to_stable(_taken_out(state, f"{prefix}vit."), module.family).items():
        state[f"{prefix}vit.{name}"] = tensor


def _to_installed_names(module: TokenEncoder, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    weights = to_stable(_taken_out(state, f"{prefix}vit."), module.family)
    if module.lora is not None and not module.has_adapters:
        merge_adapters(weights, module.lora)
    own = module.vit.state_dict(keep_vars=True)  # the parameters themselves: copying them onto themselves is fast
    installed = to_installed(weights, own, module.family)
    if module.memory is not None:
        convolution = {} if module.to_rgb is None else module.to_rgb.state_dict(prefix=f"{prefix}to_rgb.")
        theirs = {name: state[name] for name in convolution if name in state}
        if equal_weights(own, installed) and equal_weights(convolution, theirs):
            module.memory.start_again()
            installed = own  # loading changes nothing
        else:
            module.memory.forget()
    for name, tensor in installed.items():
        state[f"{prefix}vit.{name}"] = tensor


def _taken_out(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): state.pop(key) for key in [key for key in state if key.startswith(prefix)]}


def _grey_statistics(channels: int) -> tuple[list[float], list[float]]:
    return [sum(IMAGENET_MEAN) / 3] * channels, [sum(IMAGENET_STD) / 3] * channels
