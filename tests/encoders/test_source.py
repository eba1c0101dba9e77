import pytest

from nnunetv2_guidino.encoders.source import find_encoder, is_cached
from nnunetv2_guidino.errors import GuidinoError


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("/no/such/folder", "there is no such folder"),
        ("./relative", "there is no such folder"),
        ("bad name!", "neither a folder nor a name"),
        ("facebook/dinov3-vits16-pretrain-lvd1689m", "not in the local cache .*GUIDINO_ENCODER=FOLDER.*HF_HOME"),
    ],
)
def test_missing_encoder_says_what_to_do(name, message, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(GuidinoError, match=f"(?s){message}"):
        find_encoder(name)
    assert not is_cached(name)


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

    monkeypatch.setattr("nnunetv2_guidino.encoders.source.snapshot_download", hub)
    with pytest.raises(GuidinoError, match=message):
        find_encoder("org/model")


def test_cache_is_asked_before_the_network(tiny_encoder, monkeypatch):
    asked = []

    def hub(name, local_files_only=False, **options):
        asked.append(local_files_only)
        return str(tiny_encoder("dinov2"))

    monkeypatch.setattr("nnunetv2_guidino.encoders.source.snapshot_download", hub)
    find_encoder("org/model")
    assert asked == [True]
