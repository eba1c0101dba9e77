"""Find an encoder in a folder, in the hub's cache or on the hub, and describe it with its licence and its hash."""

from __future__ import annotations

import errno
import hashlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load, snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError is httpx's, whatever it is called
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from nnunetv2_guidino.config import ENCODER_VARIABLE
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.damage import check_files
from nnunetv2_guidino.printable import first_line

USE = f"set {ENCODER_VARIABLE}=FOLDER"
HUB_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", "README.md"]
_RECORDED_VERSIONS = ("nnunetv2-guidino", "nnunetv2", "torch", "transformers", "timm", "peft")
_CONNECTION_ERRORS = {
    getattr(errno, name, None)
    for name in ("ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT")
} - {None}
_UNGATED_ALTERNATIVE = "facebook/dinov2-small or timm/vit_small_patch16_dinov3.lvd1689m"


@dataclass(frozen=True)
class EncoderSource:
    """Description of a loaded encoder and its origin, for the training log and the plans."""

    name: str
    folder: str
    parameters: int
    sha256: str
    licence: str
    licence_url: str | None
    largest_activation: float | None = None  # of a vision transformer (see precision.largest_activation)

    def __str__(self) -> str:
        where = f", {self.licence_url}" if self.licence_url else ""
        return (
            f"{self.name} from {self.folder}: {self.parameters:,} parameters, sha256 {self.sha256}, "
            f"licence {self.licence}{where}"
        )


def versions() -> dict[str, str]:
    """Return the versions of this package and of the packages that build, adapt and train its networks.

    A trained model records them, for the case that a later version computes other results.
    """
    return {name: _version(name) for name in _RECORDED_VERSIONS}


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def find_encoder(encoder: str, use: str = USE) -> Path:
    """Return the local folder with an encoder's config.json and safetensors weights.

    A name is looked up in the local hub cache first, then on the hub: on a node without internet, asking the hub first
    costs many seconds of retries.

    Args:
        encoder: Folder or name on the hub.
        use: Instruction to use a FOLDER instead, for the error message.

    Raises:
        GuidinoError: If the encoder is not found. The error says what to do.
    """
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        return check_folder(folder, encoder)
    if folder.is_file():
        raise GuidinoError(f"encoder {encoder} is a file; expected the folder it lies in, with config.json beside it")
    if looks_like_a_path(encoder):
        raise GuidinoError(f"encoder {encoder}: there is no such folder (looked for {folder.absolute()})")
    cached = _in_cache(encoder)
    if cached is not None and not _is_incomplete(cached):
        return check_folder(cached, encoder)
    with hub_errors(encoder, use=use):
        return check_folder(Path(snapshot_download(encoder, allow_patterns=HUB_FILES)), encoder)


def looks_like_a_path(encoder: str) -> bool:
    """Names on the hub have one slash at most, between owner and model."""
    path_like = Path(encoder).is_absolute() or encoder.startswith((".", "~")) or encoder.endswith("/")
    return path_like or encoder.count("/") > 1 or "\\" in encoder


def _in_cache(encoder: str) -> Path | None:
    try:
        return Path(snapshot_download(encoder, allow_patterns=HUB_FILES, local_files_only=True))
    except HFValidationError as error:
        raise GuidinoError(f"encoder {encoder!r} is neither a folder nor a name on the Hugging Face hub") from error
    except LocalEntryNotFoundError:
        return None
    except OSError as error:
        raise GuidinoError(_told_as_is(encoder, error)) from error


def _is_incomplete(folder: Path) -> bool:
    """Return True if a download was interrupted, so that the hub has to be asked again."""
    return not (folder / "config.json").is_file() or not _weight_files(folder)


@contextmanager
def hub_errors(encoder: str, folder: Path | None = None, use: str = USE) -> Iterator[None]:
    """Turn every error of the hub within this context into a GuidinoError that says what to do.

    Failed connections and disks that are full or write-protected get different messages.

    Args:
        encoder: Name of the encoder.
        folder: Folder to which the encoder is written; None for the hub's cache.
        use: Instruction to use a FOLDER instead, as in find_encoder.
    """
    elsewhere = (
        f"On a machine with internet run `hf download {encoder} --local-dir FOLDER`, copy FOLDER here and {use}; or "
        "point HF_HOME to a cache that has it."
    )
    try:
        yield
    except HFValidationError as error:
        raise GuidinoError(f"encoder {encoder!r} is neither a folder nor a name on the Hugging Face hub") from error
    except GatedRepoError as error:
        raise GuidinoError(
            f"encoder {encoder} is gated. Accept its licence at https://huggingface.co/{encoder} and log in with "
            f"`hf auth login` (or set HF_TOKEN), or use an ungated encoder such as {_UNGATED_ALTERNATIVE}. {elsewhere}"
        ) from error
    except RepositoryNotFoundError as error:
        raise GuidinoError(
            f"encoder {encoder}: there is no folder {Path(encoder).absolute()}, and the Hugging Face hub has no such "
            f"model (or it is private and you are not logged in: `hf auth login`)"
        ) from error
    except (HTTPError, OSError, RuntimeError) as error:  # hf_xet raises RuntimeError
        if not _is_connection_problem(error):
            raise GuidinoError(_told_as_is(encoder, error, folder)) from error
        raise GuidinoError(
            f"encoder {encoder}: there is no folder {Path(encoder).absolute()}, it is not in the local cache "
            f"({_hub_cache()}), and the Hugging Face hub cannot be reached ({first_line(error)}). {elsewhere}"
        ) from error


def _is_connection_problem(error: BaseException) -> bool:
    if isinstance(error, HfHubHTTPError):
        return False  # the hub was reached and refused
    if isinstance(error, LocalEntryNotFoundError):
        return error.__cause__ is None or _is_connection_problem(error.__cause__)
    if isinstance(error, (HTTPError, ConnectionError, TimeoutError, socket.gaierror)):
        return True  # OfflineModeIsEnabled is a ConnectionError
    return isinstance(error, OSError) and error.errno in _CONNECTION_ERRORS


def _told_as_is(encoder: str, error: BaseException, folder: Path | None = None) -> str:
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        other = "set HF_HOME to another folder" if folder is None else "give -o another folder"
        place = error.filename or folder or _hub_cache()
        return f"encoder {encoder}: {place}: {error.strerror}. Make room or give permission there, or {other}"
    return f"encoder {encoder}: the Hugging Face hub does not give it: {first_line(error)}"


def is_cached(encoder: str) -> bool:
    """Return True if the encoder can be loaded without internet."""
    try:
        folder = Path(encoder).expanduser()
        cached = folder if folder.is_dir() else _in_cache(encoder)
        return cached is not None and bool(check_folder(cached, encoder))
    except GuidinoError:
        return False


def _hub_cache() -> str:
    from huggingface_hub.constants import HF_HUB_CACHE

    return HF_HUB_CACHE


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def check_folder(folder: Path, encoder: str) -> Path:
    """Return the folder itself; raise GuidinoError if config.json or the weights are missing or damaged."""
    if not (folder / "config.json").is_file():
        raise GuidinoError(
            f"encoder {encoder}: {folder} has no config.json; expected a folder as transformers' save_pretrained or "
            f"`hf download` writes it"
        )
    if not _weight_files(folder):
        raise GuidinoError(f"encoder {encoder}: {folder} has no *.safetensors file (other formats are not loaded)")
    if (folder / "adapter_config.json").is_file():
        raise GuidinoError(
            f"encoder {encoder}: {folder} has an adapter_config.json, so it holds an adapter of peft; expected a "
            f"folder with a whole encoder"
        )
    check_files(folder)
    return folder


def describe(folder: Path, name: str, parameters: int, config: Any = None) -> EncoderSource:
    """Describe the encoder that was loaded from `folder`.

    Args:
        folder: Folder that find_encoder returned.
        name: Name that the user gave.
        parameters: Number of parameters of the whole encoder, including unused ones.
        config: transformers' configuration of the encoder; None for a network of another library.
    """
    licence, address = _licence(folder, name, config)
    return EncoderSource(name, str(folder.resolve()), parameters, file_sha256(_weight_files(folder)), licence, address)


def file_sha256(paths: Sequence[Path]) -> str:
    """Return the SHA-256 of the files' bytes, one file after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _licence(folder: Path, encoder: str, config: Any) -> tuple[str, str | None]:
    """Return name and address of the licence, from the model card beside the weights or from family and hub page."""
    card = folder / "README.md"
    try:
        metadata = (metadata_load(card) if card.is_file() else None) or {}
    except Exception:  # another encoding or invalid YAML; the card is of no use then
        metadata = {}
    metadata = {key: value for key, value in metadata.items() if isinstance(value, str)}
    name = metadata.get("license_name") or metadata.get("license")
    kind = f"{getattr(config, 'model_type', '')} {getattr(config, 'architecture', '')}"
    if name in (None, "other") and "dinov3" in kind:
        name = "dinov3-license"
    if name == "dinov3-license":
        return name, "https://ai.meta.com/resources/models-and-libraries/dinov3-license"
    page = None if Path(encoder).expanduser().is_dir() else f"https://huggingface.co/{encoder}"
    return name or "unknown (no model card beside the weights)", metadata.get("license_link") or page
