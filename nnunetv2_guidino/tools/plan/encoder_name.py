"""An encoder's name as plans should hold it: of a folder, the whole path."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.source import looks_like_a_path


def absolute_encoder(encoder: str) -> str:
    """The absolute path of a folder, since trainings start elsewhere; a name on the hub as it is.

    Raises:
        GuidinoError: If it can only be meant as a path, and there is no such folder, or it can be neither.
    """
    folder = Path(encoder).expanduser()
    if folder.is_dir():
        return str(folder.absolute())
    if folder.exists():
        raise GuidinoError(f"encoder {encoder} is a file; give the folder that it is in")
    if looks_like_a_path(encoder):
        raise GuidinoError(f"encoder {encoder}: there is no such folder; give one, or a name on the Hugging Face hub")
    try:
        validate_repo_id(encoder)
    except HFValidationError as error:
        raise GuidinoError(f"encoder {encoder!r} is neither a folder nor a name on the Hugging Face hub") from error
    return encoder
