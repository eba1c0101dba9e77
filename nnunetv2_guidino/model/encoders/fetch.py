"""Download an encoder from the Hugging Face hub into a folder, for nodes without internet."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, snapshot_download

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.source import HUB_FILES, check_folder, file_sha256, hub_errors


def fetch(name: str, folder: Path) -> list[Path]:
    """Download config, weights and model card, and compare the weights' SHA-256 with the hub's.

    A second call after an interruption continues the download.

    Args:
        name: Name on the hub.
        folder: Folder to create or to complete.

    Returns:
        The weight files.

    Raises:
        GuidinoError: If the hub does not deliver the encoder, or the hash of a file differs from the hub's.
    """
    with hub_errors(name, folder):
        info = HfApi().model_info(name, files_metadata=True)
        # files and hashes come from one commit, in case the model is updated meanwhile
        snapshot_download(name, revision=info.sha, allow_patterns=HUB_FILES, local_dir=folder)
    check_folder(folder, name)
    hashes = {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs is not None}
    weights = sorted(folder.glob("*.safetensors"))
    for path in weights:
        expected, found = hashes.get(path.name), file_sha256([path])
        if found != expected:
            raise GuidinoError(
                f"{path} is damaged: its SHA-256 is {found}, but on the hub it is {expected}. Remove it and fetch again"
            )
    return weights
