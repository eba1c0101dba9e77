"""`guidino guide` on model folders that are damaged: one clear line for each, and nothing written."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nnunetv2_guidino.cli import main

CHECKPOINT = "fold_0/checkpoint_final.pth"


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> dict[str, Path]:
    """Where the model of the first test is kept for the others."""
    return {"folder": tmp_path_factory.mktemp("kept")}


@pytest.fixture
def model(kept, model_folder, tmp_path) -> Path:
    """A sound model folder, to damage, and an image beside it."""
    sound = kept["folder"] / "model"
    if not sound.is_dir():
        shutil.copytree(model_folder(), sound)
    (tmp_path / "images").mkdir()
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / "images" / "a_0000.png")
    return shutil.copytree(sound, tmp_path / "damaged")


def complaint(model: Path, capsys: pytest.CaptureFixture[str], *options: str) -> str:
    """The one line that the command prints; nothing may be left in the output."""
    output = model.parent / "out"
    arguments = ["guide", "-m", model, "-i", model.parent / "images", "-o", output, "-device", "cpu", *options]
    assert main(list(map(str, arguments))) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    assert error.startswith("guidino guide: error: ")
    assert list(output.rglob("*")) == []
    return error


def edit_json(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text())
    for key, value in changes.items():
        if value is ...:
            del content[key]
        else:
            content[key] = value
    file.write_text(json.dumps(content))


def edit_configuration(model: Path, **changes: Any) -> None:
    configurations = json.loads((model / "plans.json").read_text())["configurations"]
    configuration = configurations["2d"] | changes
    configurations["2d"] = {key: value for key, value in configuration.items() if value is not ...}
    edit_json(model / "plans.json", configurations=configurations)


def edit_checkpoint(model: Path, change) -> None:
    checkpoint = torch.load(model / CHECKPOINT, weights_only=False)
    torch.save(change(checkpoint) or checkpoint, model / CHECKPOINT)


def guided(model: Path, **settings: Any) -> None:
    plans = json.loads((model / "plans.json").read_text())
    edit_json(model / "plans.json", guidino=plans["guidino"] | settings)


def without(key: str):
    return lambda checkpoint: {name: value for name, value in checkpoint.items() if name != key}


def drop_weight(checkpoint) -> None:
    checkpoint["network_weights"].pop("tokenbook.prototypes")


def nan_weights(checkpoint) -> None:
    checkpoint["network_weights"]["tokenbook.prototypes"][0, 0, 0] = float("nan")


def foreign_trainer(checkpoint) -> None:
    checkpoint["trainer_name"] = "nnUNetTrainerOfSomebody"


def foreign_configuration(checkpoint) -> None:
    checkpoint["init_args"]["configuration"] = "3d_lowres"


def other_labels(model: Path) -> None:
    edit_json(model / "dataset.json", labels={"background": 0, "a": 1, "b": 2})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda m: (m / "plans.json").write_text('{"plans_name": "nnU'), "plans.json"),
        (lambda m: (m / "plans.json").write_text("[]"), "plans.json"),
        (lambda m: (m / "plans.json").write_text(""), "plans.json"),
        (lambda m: edit_json(m / "plans.json", configurations=...), "plans.json has no configurations"),
        (lambda m: edit_json(m / "plans.json", configurations={}), "plans.json has no configuration 2d"),
        (lambda m: edit_json(m / "plans.json", configurations={"2d": {}}), "plans.json does not describe"),
        (lambda m: edit_json(m / "plans.json", image_reader_writer=...), "the key 'image_reader_writer' is missing"),
        (lambda m: edit_json(m / "plans.json", image_reader_writer="Mine"), "does not say how images are read"),
        (lambda m: edit_json(m / "plans.json", transpose_backward=...), "the key 'transpose_backward' is missing"),
        (lambda m: edit_configuration(m, preprocessor_name="Mine"), "nnU-Net has no preprocessor_class"),
        (lambda m: edit_configuration(m, resampling_fn_probabilities=...), "'resampling_fn_probabilities' is missing"),
        (lambda m: edit_json(m / "plans.json", guidino=...), "plans.json"),
        (lambda m: edit_json(m / "plans.json", guidino=[]), "guidino"),
        (lambda m: guided(m, gate_at="bottleneck"), "guidino.gate_at"),
        (lambda m: guided(m, layer=1), "guidino.layer"),
        (lambda m: guided(m, layer=99), "guidino.layer"),
        (lambda m: guided(m, classes=0), "guidino.classes"),
        (lambda m: guided(m, prototypes=9), "guidino.prototypes"),
        (lambda m: guided(m, gate="product"), "guidino.gate"),
        (lambda m: guided(m, encoder_config={"model_type": "no such"}), "plans.json"),
        (lambda m: guided(m, encoder_source={"sha256": "0" * 64}), "sha256"),
        (lambda m: (m / "dataset.json").write_text("null"), "dataset.json holds NoneType; expected an object"),
        (lambda m: edit_json(m / "dataset.json", file_ending=...), "dataset.json has no file_ending"),
        (lambda m: edit_json(m / "dataset.json", file_ending=7), "dataset.json: file_ending is 7"),
        (lambda m: edit_json(m / "dataset.json", labels=["a"]), "dataset.json: labels is ['a']"),
        (lambda m: edit_json(m / "dataset.json", labels={"a": 1}), "dataset.json has labels that nnU-Net cannot use"),
        (lambda m: edit_json(m / "dataset.json", channel_names={"0": "CT"}), "does not fit"),
        (other_labels, "does not fit plans.json and dataset.json beside it"),
        (lambda m: (m / CHECKPOINT).write_bytes((m / CHECKPOINT).read_bytes()[:5000]), "cut short"),
        (lambda m: (m / CHECKPOINT).write_bytes((m / CHECKPOINT).read_bytes()[:-1000]), "cut short"),
        (lambda m: (m / CHECKPOINT).write_bytes(b""), "cut short"),
        (lambda m: (m / CHECKPOINT).write_text("<html>"), "cannot be read as a checkpoint"),
        (lambda m: (m / CHECKPOINT).write_bytes(pickle.dumps([1, 2])), "checkpoint"),
        (lambda m: torch.save({"state_dict": {}}, m / CHECKPOINT), "checkpoint of nnU-Net: it has no trainer_name"),
        (lambda m: torch.save(torch.zeros(3), m / CHECKPOINT), "not a checkpoint of nnU-Net"),
        (lambda m: edit_checkpoint(m, without("network_weights")), "it has no network_weights"),
        (lambda m: edit_checkpoint(m, without("init_args")), "it has no init_args"),
        (lambda m: edit_checkpoint(m, drop_weight), "checkpoint_final.pth does not fit plans.json"),
        (lambda m: edit_checkpoint(m, nan_weights), "tokenbook.prototypes"),
        (lambda m: edit_checkpoint(m, foreign_trainer), "nnUNetTrainerOfSomebody, which nnU-Net does not find"),
        (lambda m: edit_checkpoint(m, foreign_configuration), "has no configuration 3d_lowres; there are 2d"),
    ],
)  # fmt: skip
def test_what_is_damaged_is_named(damage, message, model, capsys):
    damage(model)
    assert message in complaint(model, capsys)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-chk", "../x.pth"], "-chk ../x.pth: expected the name of a file in each fold"),
        (["-chk", "/etc/passwd"], "-chk /etc/passwd: expected the name of a file in each fold"),
        (["-chk", "*"], "no numbered fold"),
        (["-f", "all"], "fold_all has no checkpoint_final.pth; folds that have it: ['0']"),
    ],
)
def test_a_checkpoint_s_name_is_a_file_s(options, message, model, capsys):
    assert message in complaint(model, capsys, *options)


def test_a_second_fold_that_does_not_fit_is_named(model, capsys):
    shutil.copytree(model / "fold_0", model / "fold_1")
    checkpoint = torch.load(model / "fold_1" / "checkpoint_final.pth", weights_only=False)
    drop_weight(checkpoint)
    torch.save(checkpoint, model / "fold_1" / "checkpoint_final.pth")
    assert "fold_1/checkpoint_final.pth does not fit" in complaint(model, capsys)


def test_transparency_is_counted_as_a_channel(model, capsys):
    Image.fromarray(np.full((32, 48, 4), 90, np.uint8)).save(model.parent / "images" / "a_0000.png")
    error = complaint(model, capsys)
    assert "a_0000.png has 4 channels, the model was trained on 3; remove its transparency (alpha)" in error


@pytest.mark.parametrize("name", ["a $5 and $6", "=HYPERLINK(1)", "a_b^c\\", "日本"])
def test_a_name_is_a_name(name, model, guidino):
    (model.parent / "images" / "a_0000.png").rename(model.parent / "images" / f"{name}_0000.png")
    references = model.parent / "references"
    references.mkdir()
    Image.fromarray(np.eye(32, 48, dtype=np.uint8)).save(references / f"{name}.png")
    output = model.parent / "out"
    folders = ("-i", model.parent / "images", "-gt", references, "-o", output)
    guidino("guide", "-m", model, *folders, "-device", "cpu")
    assert (output / "panels" / f"{name}.png").is_file()
    row = (output / "guide.csv").read_text(encoding="utf-8").splitlines()[1]
    assert not row.startswith("=")


def test_a_full_disk_is_one_line(model, capsys, monkeypatch):
    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnunetv2_guidino.tools.guide.guide_export.draw_contact_sheets", no_space)
    assert "out cannot be written: No space left on device" in complaint(model, capsys)
