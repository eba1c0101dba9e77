"""A pretrained vision transformer as (B, n, H, W) -> (B, C, h, w): finding, loading, rebuilding and feeding it."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from huggingface_hub import metadata_load, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's, whatever it is called
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModel
from transformers.utils import logging as transformers_logging

from nnunetv2_guidino.config import ENCODER_VARIABLE, LoRA
from nnunetv2_guidino.encoders.lora import add_adapters, dropouts, linear_layers, merge_adapters
from nnunetv2_guidino.errors import GuidinoError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
# nnU-Net's normalisation schemes that leave [0, 1]; the others leave something near zero mean and unit variance.
UNIT_RANGE_SCHEMES = ("RescaleTo01Normalization", "RGBTo01Normalization")

# What AutoConfig.to_dict adds that says nothing about the architecture (labels, versions, the backbone API).
_NOT_ARCHITECTURE = {
    "transformers_version", "_name_or_path", "architectures", "dtype", "id2label", "label2id", "label_names",
    "num_classes", "problem_type", "stage_names", "out_features", "out_indices",
}  # fmt: skip
# Parameters that a checkpoint may lack because a forward pass never uses them.
_UNUSED_PARAMETERS = ("mask_token", "pooler")
HUB_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "README.md"]
Layer = int | list[int] | None  # GuideConfig.layer
# A volume has hundreds of slices. So many tokens make ViT-S's widest tensor, 1536 floats for each, 100 MB.
TOKENS_AT_ONCE = 2**14
_UNGATED_ALTERNATIVE = "facebook/dinov2-small or timm/vit_small_patch16_dinov3.lvd1689m"


@dataclass(frozen=True)
class EncoderSource:
    """What was loaded and from where; written to the training log and the plans."""

    name: str
    folder: str
    parameters: int
    sha256: str
    licence: str
    licence_url: str | None

    def __str__(self) -> str:
        where = f", {self.licence_url}" if self.licence_url else ""
        return (
            f"{self.name} from {self.folder}: {self.parameters:,} parameters, sha256 {self.sha256}, "
            f"licence {self.licence}{where}"
        )


def find_encoder(encoder: str) -> Path:
    """The local folder with an encoder's config.json and safetensors weights.

    A folder is taken as it is. A name is looked up in the local hub cache first, then on the hub: on a node without
    internet, asking the hub first costs many seconds of retries.

    Raises:
        GuidinoError: If it is not there, saying what to do.
    """
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        return check_folder(folder, encoder)
    if folder.is_absolute() or encoder.startswith((".", "~")) or encoder.count("/") > 1:
        raise GuidinoError(f"encoder {encoder}: there is no such folder")
    try:
        return check_folder(Path(snapshot_download(encoder, allow_patterns=HUB_FILES, local_files_only=True)), encoder)
    except HFValidationError as error:
        raise GuidinoError(f"encoder {encoder!r} is neither a folder nor a name on the Hugging Face hub") from error
    except (LocalEntryNotFoundError, GuidinoError):
        pass  # not cached, or a download was cut short
    with hub_errors(encoder):
        return check_folder(Path(snapshot_download(encoder, allow_patterns=HUB_FILES)), encoder)


@contextmanager
def hub_errors(encoder: str) -> Iterator[None]:
    """Whatever keeps the hub from giving an encoder, as a GuidinoError that says what to do."""
    elsewhere = (
        f"On a machine with internet run\n    hf download {encoder} --local-dir FOLDER\ncopy FOLDER here and set "
        f"{ENCODER_VARIABLE}=FOLDER; or point HF_HOME to a cache that has it."
    )
    try:
        yield
    except GatedRepoError as error:
        raise GuidinoError(
            f"encoder {encoder} is gated. Accept its licence at https://huggingface.co/{encoder} and log in with "
            f"`hf auth login` (or set HF_TOKEN), or use an ungated encoder such as {_UNGATED_ALTERNATIVE}. {elsewhere}"
        ) from error
    except RepositoryNotFoundError as error:
        raise GuidinoError(
            f"encoder {encoder}: no such folder, and the Hugging Face hub has no such model (or it is private and you "
            f"are not logged in: `hf auth login`)"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HTTPError, OSError) as error:
        raise GuidinoError(
            f"encoder {encoder} is not in the local cache ({_hub_cache()}) and the Hugging Face hub cannot be reached. "
            f"{elsewhere}"
        ) from error


def is_cached(encoder: str) -> bool:
    """Whether the encoder can be loaded without a network."""
    try:
        folder = Path(encoder).expanduser()
        check_folder(folder if folder.is_dir() else Path(snapshot_download(encoder, local_files_only=True)), encoder)
    except (GuidinoError, LocalEntryNotFoundError, HFValidationError):
        return False
    return True


def _hub_cache() -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return HF_HUB_CACHE


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def check_folder(folder: Path, encoder: str) -> Path:
    """The folder itself; raises GuidinoError if config or weights are missing."""
    if not (folder / "config.json").is_file():
        raise GuidinoError(
            f"encoder {encoder}: {folder} has no config.json; expected a folder as transformers' save_pretrained or "
            f"`hf download` writes it"
        )
    if not _weight_files(folder):
        raise GuidinoError(f"encoder {encoder}: {folder} has no *.safetensors file (other formats are not loaded)")
    return folder


def read_encoder_config(folder: Path, layer: Layer) -> dict[str, Any]:
    """The architecture in a folder's config.json as plain JSON, enough to rebuild the encoder without that folder.

    Raises:
        GuidinoError: If it is not a vision transformer that returns patch tokens, or has fewer blocks than `layer`.
    """
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except (ValueError, OSError) as error:
        raise GuidinoError(f"encoder {folder}: transformers does not know the model in config.json: {error}") from error
    architecture = {key: value for key, value in config.to_dict().items() if key not in _NOT_ARCHITECTURE}
    if config.model_type == "timm_wrapper":
        architecture["model_args"] = {**(architecture.get("model_args") or {}), "dynamic_img_size": True}
    try:
        with torch.device("meta"):  # no weights are allocated
            vit = build_vit(architecture)
        depth = len(_blocks(vit))
        _patch_size(vit)
    except Exception as error:  # transformers' and timm's architectures fail each in its own way
        raise GuidinoError(_not_a_vit(folder, error)) from error
    layers = _layer_numbers(layer, depth)
    if layers[-1] > depth:
        raise GuidinoError(f"guidino.layer is {layer}, but encoder {folder} has {depth} blocks")
    if len(layers) > 1 and _final_norm(vit) is None:
        raise GuidinoError(
            f"guidino.layer is {layer}, but no final norm is known of {type(vit).__name__}; give one layer"
        )
    return architecture


def _not_a_vit(folder: Path, reason: object) -> str:
    return (
        f"encoder {folder} is not a vision transformer that returns one token per patch; expected DINOv3, DINOv2 or "
        f"another plain ViT ({reason})"
    )


def build_vit(architecture: dict[str, Any]) -> Any:
    """The transformer of read_encoder_config's architecture, with random weights in float32."""
    return AutoModel.from_config(AutoConfig.for_model(**architecture), dtype=torch.float32)


def _blocks(vit: Any) -> nn.ModuleList | nn.Sequential:
    if hasattr(vit, "timm_model"):
        return vit.timm_model.blocks
    depth = vit.config.num_hidden_layers
    return next(m for m in vit.modules() if isinstance(m, nn.ModuleList) and len(m) == depth)


def _layer_numbers(layer: Layer, depth: int) -> list[int]:
    if isinstance(layer, list):
        return layer
    return [depth if layer is None else layer]


def _final_norm(vit: Any) -> Any:
    if hasattr(vit, "timm_model"):
        return vit.timm_model.norm
    return getattr(vit, "norm", None) or getattr(vit, "layernorm", None)


def _patch_size(vit: Any) -> int:
    size = vit.timm_model.patch_embed.patch_size if hasattr(vit, "timm_model") else vit.config.patch_size
    height, width = (size, size) if isinstance(size, int) else size
    if height != width:
        raise ValueError(f"patches of {height}×{width} pixels are not square")
    return int(height)


def _forward_options(vit: Any) -> dict[str, bool]:
    # DINO's position embeddings follow the image size; the original ViT has to be told to.
    name = "interpolate_pos_encoding"
    return {name: True} if name in inspect.signature(vit.forward).parameters else {}


def _check_patch_tokens(vit: Any, folder: Path) -> None:
    patch = _patch_size(vit)
    try:
        with torch.no_grad():
            tokens = vit(
                pixel_values=torch.zeros(1, 3, 2 * patch, 3 * patch), **_forward_options(vit)
            ).last_hidden_state
    except Exception as error:
        raise GuidinoError(_not_a_vit(folder, error)) from error
    if tokens.ndim != 3 or tokens.shape[1] < 6:
        raise GuidinoError(_not_a_vit(folder, f"an image of 2×3 patches gave a tensor of shape {tuple(tokens.shape)}"))


class TokenEncoder(nn.Module):
    """A vision transformer's patch tokens, with the input brought to what it was trained on.

    Input: the first channels of an nnU-Net patch, one per normalisation scheme; what a cascade appends behind them is
    left out. One channel is repeated, three go as they are, other counts pass a learned 1×1 convolution that starts as
    the mean. Channels in [0, 1] get ImageNet's mean and standard deviation; the others pass as they are. The image is
    enlarged until its shorter side has `min_input_size` pixels, then resized to the nearest multiples of the patch.

    The transformer is frozen: no gradients, and evaluation mode whatever `.train()` says (DINOv3 rescales its position
    embedding at random in training mode). LoRA's adapters alone get gradients, and their dropout follows `.train()`.

    Args:
        architecture: As read_encoder_config returns it. The weights are random until `load_pretrained` or
            `load_state_dict`.
        layer: The block whose tokens are used, from 1; None is the last; several are concatenated. Later blocks are not
            built.
        normalization_schemes: nnU-Net's, one per image channel.
        min_input_size: Pixels of the shorter side.
        lora: Adapters on the transformer's linear layers; None for none.
        merge_lora: Build no adapters, but merge those in the weights that `load_state_dict` gets: as fast as without.

    A large batch, such as the slices of a volume, is encoded in parts, so that its size does not count in memory; where
    there are gradients, the parts are encoded once more in the backward pass.

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
    ):
        super().__init__()
        self.architecture = architecture
        self.min_input_size = min_input_size
        self.image_channels = len(normalization_schemes)
        self.vit = build_vit(architecture).requires_grad_(False).eval()
        blocks = _blocks(self.vit)
        *hidden, self.last_layer = _layer_numbers(layer, len(blocks))
        del blocks[self.last_layer :]
        self.keeps_hidden_tokens = bool(hidden)
        self._hidden_tokens: list[Tensor] = []
        for number in hidden:
            blocks[number - 1].register_forward_hook(self._keep_hidden_tokens)
        self.patch_size = _patch_size(self.vit)
        self._options = _forward_options(self.vit)
        self.lora = lora
        self.has_adapters = lora is not None and not merge_lora
        if lora is not None and not merge_lora:
            self._adapted = linear_layers(blocks, self.vit)
            add_adapters(self.vit, lora, self._adapted)
        elif lora is not None:
            self.register_load_state_dict_pre_hook(_merge_before_loading)  # type: ignore[no-untyped-call]
        width = self.vit.timm_model.num_features if hasattr(self.vit, "timm_model") else self.vit.config.hidden_size
        self.channels: int = width * (len(hidden) + 1)

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

    def train(self, mode: bool = True) -> TokenEncoder:
        super().train(mode)
        self.vit.eval()
        if self.has_adapters:
            for dropout in dropouts(self.vit):
                dropout.train(mode)
        return self

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """The transformer's input size in pixels for a patch of height×width pixels."""
        factor = max(1.0, self.min_input_size / min(height, width))
        patches = (max(1, int(side * factor / self.patch_size + 0.5)) for side in (height, width))
        rows, columns = patches
        return rows * self.patch_size, columns * self.patch_size

    def forward(self, patch: Tensor) -> Tensor:
        images = patch[:, : self.image_channels]
        height, width = self.input_size(*images.shape[2:])
        tokens_per_image = (height // self.patch_size) * (width // self.patch_size)
        chunks = torch.split(images, max(1, TOKENS_AT_ONCE // tokens_per_image))
        # The learned convolution lies before the transformer, so its gradient has to pass through.
        with nullcontext() if self.to_rgb is not None or self.has_adapters else torch.no_grad():
            encode = self._tokens
            if len(chunks) > 1 and torch.is_grad_enabled() and not self.keeps_hidden_tokens:
                # Kept for the backward pass are the chunks alone, not what the transformer makes of them. Hidden tokens
                # are kept nevertheless: torch.compile could not collect them in here.
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
            image = F.interpolate(image, size=(height, width), mode="bilinear", align_corners=False)
        # [CLS, registers…, patches…]: the patches are the last ones, whatever lies before them.
        rows, columns = height // self.patch_size, width // self.patch_size
        patches = self._all_tokens(image)[:, -rows * columns :]
        return patches.transpose(1, 2).unflatten(2, (rows, columns))

    def _all_tokens(self, image: Tensor) -> Any:
        if not self.keeps_hidden_tokens:
            return self.vit(pixel_values=image, **self._options).last_hidden_state
        self._hidden_tokens.clear()
        last = self.vit(pixel_values=image, **self._options).last_hidden_state
        return torch.cat([*map(_final_norm(self.vit), self._hidden_tokens), last], dim=2)

    def _keep_hidden_tokens(self, block: nn.Module, args: Any, output: Any) -> None:
        self._hidden_tokens.append(output[0] if isinstance(output, tuple) else output)

    def load_pretrained(self, folder: Path, name: str) -> EncoderSource:
        """Load pretrained weights and describe them.

        Args:
            folder: As find_encoder returns it.
            name: What the user called it.

        Raises:
            GuidinoError: If the weights do not fit the architecture.
        """
        misfit = "the weights cannot be loaded into the architecture in config.json"
        with _quiet_transformers():
            try:
                pretrained, info = AutoModel.from_pretrained(
                    folder,
                    config=AutoConfig.for_model(**self.architecture),
                    dtype=torch.float32,
                    use_safetensors=True,
                    local_files_only=True,
                    trust_remote_code=False,
                    output_loading_info=True,
                )
            except (OSError, ValueError, RuntimeError, SafetensorError) as error:
                raise GuidinoError(f"encoder {folder}: {misfit}: {error}") from error
        missing = [key for key in info["missing_keys"] if not any(unused in key for unused in _UNUSED_PARAMETERS)]
        if missing:
            raise GuidinoError(f"encoder {folder}: {misfit}: {len(missing)} tensors are missing, {missing[0]} for one")
        _check_patch_tokens(pretrained, folder)
        parameters = sum(p.numel() for p in pretrained.parameters())
        del _blocks(pretrained)[self.last_layer :]
        if self.lora is not None and self.has_adapters:
            add_adapters(pretrained, self.lora, self._adapted)  # zero, as in self.vit
        # `pretrained` itself is not used: from_pretrained leaves buffers that are not in the file unset in some models
        # (the rotary periods of timm 1.0.22's DINOv3).
        self.vit.load_state_dict(pretrained.state_dict())
        licence, licence_url = _licence(folder, name, pretrained.config)
        return EncoderSource(
            name, str(folder.resolve()), parameters, file_sha256(_weight_files(folder)), licence, licence_url
        )


def _merge_before_loading(module: TokenEncoder, state: dict[str, Tensor], *_: object) -> None:
    assert module.lora is not None
    merge_adapters(state, module.lora)


def _grey_statistics(channels: int) -> tuple[list[float], list[float]]:
    return [sum(IMAGENET_MEAN) / 3] * channels, [sum(IMAGENET_STD) / 3] * channels


def file_sha256(paths: Sequence[Path]) -> str:
    """Of the files' bytes, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _licence(folder: Path, encoder: str, config: Any) -> tuple[str, str | None]:
    """Name and address, from the model card beside the weights, else from the family and the hub's page."""
    card = folder / "README.md"
    metadata = (metadata_load(card) if card.is_file() else None) or {}
    name = metadata.get("license_name") or metadata.get("license")
    if name in (None, "other") and "dinov3" in f"{config.model_type} {getattr(config, 'architecture', '')}":
        name = "dinov3-license"
    if name == "dinov3-license":
        return name, "https://ai.meta.com/resources/models-and-libraries/dinov3-license"
    page = None if Path(encoder).expanduser().is_dir() else f"https://huggingface.co/{encoder}"
    return name or "unknown (no model card beside the weights)", metadata.get("license_link") or page


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bar and no table of unused weights in the training log; what matters is checked and raised."""
    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
