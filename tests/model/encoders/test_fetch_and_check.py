import hashlib
import shutil
from types import SimpleNamespace

import pytest
from tiny_encoders import FAMILIES, PATCH, WIDTH

from nnunetv2_guidino.cli import main


@pytest.fixture
def hub(monkeypatch, tiny_encoder):
    """The hub cannot be asked here: one that holds a tiny encoder is faked."""
    origin = tiny_encoder("dinov2")
    fake = SimpleNamespace(asked=[], sha256=hashlib.sha256((origin / "model.safetensors").read_bytes()).hexdigest())

    def model_info(self, name, files_metadata):
        lfs = SimpleNamespace(sha256=fake.sha256)
        siblings = [SimpleNamespace(rfilename="model.safetensors", lfs=lfs), SimpleNamespace(rfilename="x", lfs=None)]
        return SimpleNamespace(sha="abc", siblings=siblings)

    def snapshot_download(name, revision, allow_patterns, local_dir):
        fake.asked.append((name, revision))
        shutil.copytree(origin, local_dir, dirs_exist_ok=True)

    monkeypatch.setattr("nnunetv2_guidino.model.encoders.fetch.HfApi.model_info", model_info)
    monkeypatch.setattr("nnunetv2_guidino.model.encoders.fetch.snapshot_download", snapshot_download)
    return fake


def test_fetched_encoder_works(hub, tmp_path, capsys):
    folder = tmp_path / "encoder"
    for _ in range(2):
        assert main(["encoder", "fetch", "org/model", "-o", str(folder)]) == 0
        assert f"export GUIDINO_ENCODER={folder}" in capsys.readouterr().out
    assert hub.asked == [("org/model", "abc")] * 2
    assert main(["encoder", "check", str(folder), "--size", "64"]) == 0


def test_damaged_download_is_refused(hub, tmp_path, capsys):
    hub.sha256 = "0" * 64
    assert main(["encoder", "fetch", "org/model", "-o", str(tmp_path / "encoder")]) == 1
    assert "model.safetensors is damaged: its SHA-256 is" in capsys.readouterr().err


def test_fetch_without_network_says_what_to_do(tmp_path, capsys):
    assert main(["encoder", "fetch", "org/model", "-o", str(tmp_path / "encoder")]) == 1
    assert "On a machine with internet run" in capsys.readouterr().err


def test_fetch_refuses_what_is_no_name(tmp_path, capsys):
    assert main(["encoder", "fetch", "bad name!", "-o", str(tmp_path / "encoder")]) == 1
    assert "neither a folder nor a name on the Hugging Face hub" in capsys.readouterr().err


@pytest.mark.parametrize("family", FAMILIES)
def test_check_prints_grid_and_seconds(family, tiny_encoder, capsys):
    assert main(["encoder", "check", str(tiny_encoder(family)), "--size", "64", "--layer", "1,2"]) == 0
    printed = capsys.readouterr().out
    side = round(64 / PATCH[family])
    assert f"{side}×{side} tokens of width {2 * WIDTH}" in printed
    assert "s per image on cpu" in printed
    assert "its matrix products fit float16 on GPUs without bfloat16" in printed


@pytest.mark.parametrize("family", ["swin", "bert"])
def test_check_refuses_what_is_no_vit(family, tiny_encoder, capsys):
    assert main(["encoder", "check", str(tiny_encoder(family))]) == 1
    assert "not a vision transformer" in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--size", "0"), ("--size", "-5"), ("--layer", "0"), ("--layer", "-1")])
def test_check_refuses_sizes_and_layers_that_there_are_not(option, value, tiny_encoder, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["encoder", "check", str(tiny_encoder("dinov2")), f"{option}={value}"])
    assert f"argument {option}: {value}: expected " in capsys.readouterr().err
