"""Damage is told as what it is."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, Dinov2Config

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.damage import check_finite
from nnunetv2_guidino.model.encoders.source import find_encoder, is_cached
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a21\nsize 88253104\n"
PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Log in</title></head></html>"


@pytest.fixture
def folder(tiny_encoder, tmp_path):
    return shutil.copytree(tiny_encoder("dinov2"), tmp_path / "encoder")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", POINTER, "is a Git LFS pointer, not the file itself"),
        ("config.json", POINTER, "is a Git LFS pointer"),
        ("model.safetensors", PAGE, "is a web page, not the file itself"),
        ("config.json", PAGE, "is a web page"),
        ("model.safetensors", b"", "is empty"),
        ("config.json", b"", "is empty"),
        ("model.safetensors", b"\x10\x00", "is cut short: it has 2 bytes"),
        ("model.safetensors", b"PK\x03\x04" + b"x" * 5000, "is no safetensors file, whatever its name"),
        ("model.safetensors", (20).to_bytes(8, "little") + b"[1, 2, 3]           ", "is no safetensors file"),
    ],
)
def test_damaged_files_are_named(name, content, message, folder, capsys):
    (folder / name).write_bytes(content)
    with pytest.raises(GuidinoError, match=rf"{name} {message}.*Download it again"):
        find_encoder(str(folder))
    assert not is_cached(str(folder))
    assert main(["encoder", "check", str(folder)]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("part", [0.001, 0.01, 0.5, 0.99])
def test_weights_cut_short_are_told_as_that(part, folder):
    weights = folder / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(GuidinoError, match="model.safetensors is cut short"):
        find_encoder(str(folder))


def load(folder) -> None:
    TokenEncoder(read_encoder_config(folder, None), None, ["ZScoreNormalization"] * 3, 64).load_pretrained(folder, "x")


def test_weights_of_another_width_are_told_as_that(folder, tmp_path):
    wider = Dinov2Config(hidden_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=56, patch_size=14)
    AutoModel.from_config(wider).save_pretrained(tmp_path / "wider")
    shutil.copy(tmp_path / "wider" / "model.safetensors", folder)
    with pytest.raises(GuidinoError, match=r"another width or size: .* has shape \(.*64.*\) among the weights, and \("):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_refused(value, folder, capsys):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "fc1.weight" in name)
    weights[name].view(-1)[5] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(GuidinoError, match=r"encoder .*fc1.weight contains NaN or infinite values"):
        load(folder)
    assert main(["encoder", "check", str(folder)]) == 1
    assert "contains NaN or infinite values" in capsys.readouterr().err


def test_large_numbers_and_integers_are_finite():
    check_finite({"a": torch.full((1000,), torch.finfo(torch.float32).max), "b": torch.tensor(7)}, "x")
    check_finite({"half": torch.full((1000,), 65504.0, dtype=torch.float16)}, "x")
    with pytest.raises(GuidinoError, match="checkpoint.pth: c contains NaN or infinite values"):
        check_finite({"c": torch.tensor([float("inf"), float("-inf")])}, "checkpoint.pth")


def test_index_of_weights_is_not_taken_for_weights(folder):
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    find_encoder(str(folder))
