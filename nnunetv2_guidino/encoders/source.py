"""Where an encoder comes from: a folder, the hub's cache or the hub; its licence and its hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's, whatever it is called
    GatedRepoError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from nnunetv2_guidino.config import ENCODER_VARIABLE
from nnunetv2_guidino.errors import GuidinoError

HUB_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "README.md"]
_RECORDED_VERSIONS = ("nnunetv2-guidino", "nnunetv2", "torch", "transformers", "timm", "peft")
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


def versions() -> dict[str, str]:
    """The versions of this package and of those that build, adapt and train its networks, by distribution name.

    Recorded with a trained model, they say where to look should a later version ever compute something else.
    """
    return {name: _version(name) for name in _RECORDED_VERSIONS}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


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


def describe(folder: Path, name: str, parameters: int, config: Any) -> EncoderSource:
    """What was loaded from `folder`.

    Args:
        folder: As find_encoder returns it.
        name: What the user called it.
        parameters: Of the whole transformer.
        config: transformers' configuration of it.
    """
    licence, address = _licence(folder, name, config)
    return EncoderSource(name, str(folder.resolve()), parameters, file_sha256(_weight_files(folder)), licence, address)


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
