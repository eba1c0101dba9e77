"""What no training could be done with is refused before anything is written."""

import json
import os
from pathlib import Path

import planned
import pytest

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.plan.derive_plans import guide_section, plan
from nnunetv2_guidino.tools.plan.trainable import nearest_patch


def refused(folder: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command complains; nothing may be written."""
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert main(["plan", "-d", planned.DATASET, "-o", "New", *arguments]) == 1
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    return error


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("spacing", "[2.0, 2.0]"),
        ("normalization_schemes", '["NoNormalization", "NoNormalization", "NoNormalization"]'),
        ("use_mask_for_norm", "[true, true, true]"),
        ("data_identifier", "y"),
        ("preprocessor_name", "Mine"),
        ("resampling_fn_data", "other"),
        ("resampling_fn_seg_kwargs.order", "0"),
        ("median_image_size_in_voxels", "[1, 1]"),
    ],
)
def test_what_belongs_to_the_preprocessed_data_stays(key, value, folder, capsys):
    error = refused(folder, capsys, "--set", f"configurations.2d.{key}={value}")
    assert f"configurations.2d.{key} belongs to the preprocessed data" in error
    assert "nnUNetv2_plan_experiment, then nnUNetv2_preprocess" in error


@pytest.mark.parametrize("key", ["inherits_from", "previous_stage", "next_stage"])
def test_how_configurations_build_on_each_other_stays(key, folder, capsys):
    assert "stays as it is planned" in refused(folder, capsys, "--set", f"configurations.2d.{key}=2d")


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            "[30, 50]",
            "must be multiples of [4, 4], and more than one pixel must be left at the bottom; the nearest is [32, 52]",
        ),
        ("[50, 50]", "the nearest is [52, 52]"),
        ("[4, 4]", "the nearest is [8, 8]"),
        ("[1, 1]", "the nearest is [8, 8]"),
        ('["a"]', "patch_size is ['a']; expected whole numbers from 1"),
        ("[32.0, 48]", "expected whole numbers from 1"),
        ("[true, 48]", "expected whole numbers from 1"),
        ("[0, 48]", "expected whole numbers from 1"),
        ("[32]", "expected two or three sides"),
        ("[]", "expected two or three sides"),
        ("[32, 32, 32]", "patch_size is [32, 32, 32]; the network takes 2 sides"),
        ("[1000000000000000000000000, 48]", "cannot be trained"),
        ("32", "is [32, 48] in the plans; expected list, not 32"),
    ],
)
def test_a_patch_that_the_network_cannot_take(patch, message, folder, capsys):
    assert message in refused(folder, capsys, "--set", f"configurations.2d.patch_size={patch}")


def test_the_nearest_patch_can_be_trained_with(folder):
    planned_ = plan(
        planned.DATASET, "New", changes={"configurations.2d.patch_size": nearest_patch("", [30, 50], [4, 4])}
    )
    assert planned_.plans["configurations"]["2d"]["patch_size"] == [32, 52]


@pytest.mark.parametrize("size", ["0", "-2"])
def test_a_batch_of_nothing(size, folder, capsys):
    error = refused(folder, capsys, "--set", f"configurations.2d.batch_size={size}")
    assert f"batch_size is {size}; the nearest that can be trained with is 1" in error


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("configurations.2d={}", "expected configurations.CONFIGURATION.KEY"),
        ("configurations.2d.architecture={}", "'network_class_name'"),
        ("configurations.2d.architecture.network_class_name=no.such.Network", "has no network in configurations.2d"),
        ("configurations.2d.architecture.arch_kwargs.n_stages=7", "has no network in configurations.2d"),
        ("configurations.2d.architecture.arch_kwargs.strides=[1]", "has no network in configurations.2d"),
    ],
)
def test_a_network_that_cannot_be_built(change, message, folder, capsys):
    assert message in refused(folder, capsys, "--set", change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--no-lora", "--lora-rank", "4"], "lora is switched off, but lora.rank is set"),
        (["--no-lora", "--set", "lora.alpha=4"], "lora is switched off, but lora.alpha is set"),
        (["--set", "lora=null", "--lora-dropout", "0"], "lora is switched off, but lora.dropout is set"),
        (["--lora", "--set", "lora=null"], "lora is given twice: {} and null"),
        (["--gate-at", "input", "--set", "gate_at=skips"], 'gate_at is given twice: "input" and "skips"'),
        (["--set", "prototypes=4", "--set", "prototypes=5"], "prototypes is given twice: 4 and 5"),
        (["--set", "lambda_guide=NaN"], "lambda_guide is nan"),
        (["--lambda-boundary", "-1"], "lambda_boundary is -1.0"),
    ],
)
def test_contradictions(options, message, folder, capsys):
    assert message in refused(folder, capsys, *options)


@pytest.mark.parametrize("name", ["splits_final", "dataset", "dataset_fingerprint", "New.json", "x" * 101])
def test_names_that_are_nnunet_s_own(name, folder):
    with pytest.raises(GuidinoError, match="expected a name of plans, without .json"):
        plan(planned.DATASET, name)


def test_a_folder_is_stored_with_its_whole_path(folder, tiny_encoder, monkeypatch):
    encoder = tiny_encoder("dinov3")
    monkeypatch.chdir(encoder.parent)
    assert plan(planned.DATASET, "A", settings={"encoder": encoder.name}).plans["guidino"]["encoder"] == str(encoder)
    monkeypatch.setenv("GUIDINO_ENCODER", f"./{encoder.name}")
    assert plan(planned.DATASET, "B").plans["guidino"]["encoder"] == str(encoder)


@pytest.mark.parametrize("encoder", ["/gone", "./gone", "~/gone", "a/b/c", "gone/"])
def test_a_path_that_is_no_folder(encoder, folder, capsys):
    assert f"encoder {encoder}: there is no such folder" in refused(folder, capsys, "--encoder", encoder)


@pytest.mark.parametrize("encoder", ["two words", "hf-hub:a", "a--b/c"])
def test_what_can_be_neither_a_folder_nor_a_name(encoder, folder, capsys):
    error = refused(folder, capsys, "--encoder", encoder)
    assert f"encoder '{encoder}' is neither a folder nor a name on the Hugging Face hub" in error


def test_a_file_that_is_no_folder(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert "encoder dataset.json is a file" in refused(folder, capsys, "--encoder", "dataset.json")


def test_a_full_disk_leaves_nothing_and_the_name_is_free(folder, capsys, monkeypatch):
    def no_space(*_, **__):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Path, "write_text", no_space)
        assert "New.json cannot be written: No space left on device" in refused(folder, capsys)
    assert plan(planned.DATASET, "New").file.is_file()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(folder, capsys):
    folder.chmod(0o500)
    try:
        assert "New.json cannot be written" in refused(folder, capsys)
    finally:
        folder.chmod(0o700)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("nnUNetPlans.json", "[]", "nnUNetPlans.json"),
        ("nnUNetPlans.json", '{"plans_name": ', "nnUNetPlans.json"),
        ("nnUNetPlans.json", "{}", "nnUNetPlans.json has no configurations: it is not a plans file of nnU-Net"),
        ("nnUNetPlans.json", '{"configurations": {"2d": 3}}', "nnUNetPlans.json has no configurations"),
        ("nnUNetPlans.json", '{"configurations": {"2d": {}}}', "2d"),
        ("dataset.json", "null", "dataset.json holds NoneType; expected an object"),
        ("dataset.json", '{"labels": {"background": 0, "a": 1}}', "dataset.json has no channel_names"),
        (
            "dataset.json",
            '{"labels": {"background": 0, "a": "1"}, "channel_names": {"0": "R"}}',
            "dataset.json: labels is",
        ),
        (
            "dataset.json",
            '{"labels": {"background": 0, "a": 1}, "channel_names": []}',
            "dataset.json: channel_names is []",
        ),
        (
            "dataset.json",
            '{"labels": {"background": 1, "a": 2}, "channel_names": {"0": "R"}}',
            "Background label must be 0",
        ),
    ],
)
def test_json_of_another_shape_is_named(file, content, message, folder, capsys):
    (folder / file).write_text(content)
    assert message in refused(folder, capsys)


def test_a_byte_order_mark_is_read_over(folder):
    file = folder / "dataset.json"
    file.write_text(file.read_text(), encoding="utf-8-sig")
    assert plan(planned.DATASET, "New").file.is_file()


def test_a_gate_that_the_network_has_no_place_for(folder, capsys):
    """A network without an encoder and a decoder, as the plans may name one."""
    file = folder / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    architecture = {"network_class_name": "foreign_network.Convolution", "arch_kwargs": {}, "_kw_requires_import": []}
    plans["configurations"]["2d"]["architecture"] = architecture
    file.write_text(json.dumps(plans))
    assert 'guidino.gate_at is "skips"' in refused(folder, capsys)
    assert plan(planned.DATASET, "New", settings={"gate_at": "input"}).file.is_file()


def test_what_inherits_is_checked_too(folder, capsys):
    file = folder / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"]["2d_more"] = {"inherits_from": "2d", "patch_size": [32, 48]}
    file.write_text(json.dumps(plans))
    error = refused(folder, capsys, "--set", "configurations.2d.architecture.arch_kwargs.n_stages=7")
    assert "has no network" in error


def test_a_section_without_plans_is_shown_whole(folder):
    assert guide_section(folder / "nnUNetPlans.json")["gate_at"] == "skips"


def test_a_folder_that_is_no_model_s(folder, capsys):
    assert main(["plan", "--show", str(folder)]) == 1
    assert "has no plans.json; expected a trained model's folder, or a plans file" in capsys.readouterr().err


def test_options_follow_the_lists(folder, capsys):
    """A gate or a term that is added appears by itself."""
    code = (
        "from nnunetv2_guidino import lists;"
        "lists.GATE_POSITIONS['mine'] = lists.Entry('x:Y', 'of my own, 100 %');"
        "lists.LOSS_TERMS['mine'] = lists.LossTerm('x:y', 'my term, 5 %', weight=0.5, label='mine');"
        "from nnunetv2_guidino.cli import main; main(['plan', '--help'])"
    )
    import subprocess
    import sys

    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "--gate-at {skips,bottleneck,input,mine}" in shown
    assert "--lambda-mine" in shown
