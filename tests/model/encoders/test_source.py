import errno
import shutil
import socket
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.source import find_encoder, is_cached


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "there is no such folder"),
        ("./relative", "there is no such folder .looked for /"),
        ("weights/dinov2/small", "there is no such folder"),
        ("encoders/", "there is no such folder"),
        ("C:\\encoders\\dinov2", "there is no such folder"),
        ("dinov2-small", "there is no folder /.*/dinov2-small, it is not in the local cache"),
        ("bad name!", "neither a folder nor a name"),
        ("facebook/dinov3-vits16-pretrain-lvd1689m", "not in the local cache .*GUIDINO_ENCODER=FOLDER.*HF_HOME"),
    ],
)
def test_missing_encoder_says_what_to_do(name, message, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(GuidinoError, match=f"(?s){message}"):
        find_encoder(name)
    assert not is_cached(name)


def test_a_file_and_an_adapter_are_no_encoder(tiny_encoder, tmp_path):
    with pytest.raises(GuidinoError, match="model.safetensors is a file; expected the folder it lies in"):
        find_encoder(str(tiny_encoder("dinov2") / "model.safetensors"))
    folder = shutil.copytree(tiny_encoder("dinov2"), tmp_path / "adapter")
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(GuidinoError, match="an adapter of peft; expected a folder with a whole encoder"):
        find_encoder(str(folder))


def test_folder_without_config_or_weights_is_refused(tmp_path):
    with pytest.raises(GuidinoError, match=r"has no config.json"):
        find_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(GuidinoError, match=r"has no \*.safetensors"):
        find_encoder(str(tmp_path))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("GatedRepoError", "is gated. Accept its licence at https://huggingface.co/org/model and log in"),
        ("RepositoryNotFoundError", "the Hugging Face hub has no such model"),
        ("LocalEntryNotFoundError", "cannot be reached"),
    ],
)
def test_hub_answers_become_advice(error, message, monkeypatch):
    """The hub cannot be asked here: its answers are faked."""
    import httpx
    from huggingface_hub import errors

    def hub(name, local_files_only=False, **options):
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not cached")
        kind = getattr(errors, error)
        if issubclass(kind, errors.HfHubHTTPError):
            raise kind("refused", response=httpx.Response(403, request=httpx.Request("GET", "https://hub")))
        raise kind("no connection")

    monkeypatch.setattr("nnunetv2_guidino.model.encoders.source.snapshot_download", hub)
    with pytest.raises(GuidinoError, match=message):
        find_encoder("org/model")


def no_hub(monkeypatch, error: BaseException) -> None:
    from huggingface_hub.errors import LocalEntryNotFoundError

    def hub(name, local_files_only=False, **options):
        raise LocalEntryNotFoundError("not cached") if local_files_only else error

    monkeypatch.setattr("nnunetv2_guidino.model.encoders.source.snapshot_download", hub)
    monkeypatch.setattr("nnunetv2_guidino.model.encoders.fetch.snapshot_download", hub)
    monkeypatch.setattr(
        "nnunetv2_guidino.model.encoders.fetch.HfApi.model_info", lambda *_, **__: SimpleNamespace(sha="abc")
    )


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError("timed out"),
        socket.gaierror(-3, "Temporary failure in name resolution"),
        OSError(errno.ENETUNREACH, "Network is unreachable"),
        HTTPError("no connection"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failing_connection_is_told_as_one(error, monkeypatch):
    no_hub(monkeypatch, error)
    with pytest.raises(GuidinoError, match="(?s)hub cannot be reached.*--local-dir"):
        find_encoder("org/model")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "{place}: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/cache/lock"), "/cache/lock: Permission denied"),
        (OSError(errno.EROFS, "Read-only file system", "/cache/x"), "/cache/x: Read-only file system"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "/cache/y"), "/cache/y: File name too long"),
        (OSError("Consistency check failed: 10 bytes of 20\nmore"), "does not give it: Consistency check failed: 10 b"),
        (RuntimeError("Data processing error: No space left on device"), "does not give it: Data processing error"),
    ],
)
def test_trouble_with_the_disk_is_told_as_that(error, message, monkeypatch, tmp_path, capsys):
    no_hub(monkeypatch, error)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/cache")
    with pytest.raises(GuidinoError) as raised:
        find_encoder("org/model")
    assert message.format(place="/cache") in str(raised.value)
    assert "cannot be reached" not in str(raised.value)
    output = tmp_path / "encoder"
    assert main(["encoder", "fetch", "org/model", "-o", str(output)]) == 1
    assert message.format(place=output) in capsys.readouterr().err


def test_refusal_by_the_hub_is_no_failing_connection(monkeypatch):
    response = SimpleNamespace(headers={}, status_code=503, request=None)
    no_hub(monkeypatch, HfHubHTTPError("503 Server Error: Service Unavailable", response=response))
    with pytest.raises(GuidinoError, match="hub does not give it: 503 Server Error") as raised:
        find_encoder("org/model")
    assert "cannot be reached" not in str(raised.value)


def test_offline_mode_is_a_failing_connection(monkeypatch):
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    error = LocalEntryNotFoundError("not cached")
    error.__cause__ = OfflineModeIsEnabled("offline")
    no_hub(monkeypatch, error)
    with pytest.raises(GuidinoError, match="cannot be reached"):
        find_encoder("org/model")


def test_a_cached_encoder_that_is_damaged_is_told_as_that(tiny_encoder, tmp_path, monkeypatch):
    """The hub is not asked: it would answer that all is there."""
    folder = shutil.copytree(tiny_encoder("dinov2"), tmp_path / "snapshot")
    (folder / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    monkeypatch.setattr("nnunetv2_guidino.model.encoders.source.snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(GuidinoError, match="model.safetensors is a Git LFS pointer"):
        find_encoder("org/model")
    assert not is_cached("org/model")


def test_cache_is_asked_before_the_network(tiny_encoder, monkeypatch):
    asked = []

    def hub(name, local_files_only=False, **options):
        asked.append(local_files_only)
        return str(tiny_encoder("dinov2"))

    monkeypatch.setattr("nnunetv2_guidino.model.encoders.source.snapshot_download", hub)
    find_encoder("org/model")
    assert asked == [True]
