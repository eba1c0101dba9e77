"""`guidino plan --architecture`: what is planned for another network, and that it can be trained."""

import json
import re
from pathlib import Path

import planned
import pytest
import tiny_networks

from nnunetv2_guidino import lists
from nnunetv2_guidino.cli import main
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.networks.contract import strides_for
from nnunetv2_guidino.tools.plan.derive_plans import plan
from nnunetv2_guidino.tools.plan.network_options import Network

ON_TOKENS = ("segdino", "segdino2", "seg_guidino", "seg_guidino_partner")
TINY = lists.Entry("tiny_architecture:TinyArchitecture", "one convolution down, one up")


@pytest.fixture
def volumes(folder) -> Path:
    """The plans have a configuration for volumes too, and one that inherits from it."""
    file = folder / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["configurations"] |= planned.plans({}, patch_size=(16, 32, 48)).plans["configurations"]
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    file.write_text(json.dumps(plans))
    return folder


@pytest.fixture
def encoder(tmp_path, monkeypatch) -> Path:
    """A folder with a transformer of four blocks, which GUIDINO_ENCODER names."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(**tiny_networks.encoder_config())
    AutoModel.from_config(config).save_pretrained(tmp_path / "encoder")
    monkeypatch.setenv("GUIDINO_ENCODER", str(tmp_path / "encoder"))
    return tmp_path / "encoder"


def kwargs_of(plans: dict, configuration: str = "2d") -> dict:
    return plans["configurations"][configuration]["architecture"]["arch_kwargs"]


@pytest.mark.parametrize("name", lists.ARCHITECTURES)
def test_each_network_is_planned_and_can_be_trained(name, folder, encoder):
    planned_ = plan(planned.DATASET, "New", network=Network(name))
    configuration = json.loads((folder / "New.json").read_text())["configurations"]["2d"]
    network = tiny_networks.build(planned.PlansManager(planned_.plans).get_configuration("2d"))
    assert configuration["architecture"]["network_class_name"] == lists.ARCHITECTURES[name].target.replace(":", ".")
    assert len(kwargs_of(planned_.plans)["strides"]) == strides_for(network.description.outputs)
    assert configuration["patch_size"] == [32, 48]
    expected = "input" if network.description.gates == ("input",) else "skips"
    assert planned_.plans["guidino"]["gate_at"] == expected
    assert any(f"gate_at {expected}" in line for line in planned_.choices)


@pytest.mark.parametrize("name", ON_TOKENS)
def test_a_network_on_tokens_stands_on_the_guide_s_encoder(name, folder, encoder, tmp_path):
    kwargs = kwargs_of(plan(planned.DATASET, "A", network=Network(name)).plans)
    assert kwargs["encoder_config"]["num_hidden_layers"] == 4
    assert kwargs["pretrained"] == str(encoder)
    encoder.rename(tmp_path / "other")
    settings = {"encoder": str(tmp_path / "other")}
    assert kwargs_of(plan(planned.DATASET, "B", settings=settings, network=Network(name)).plans) == {
        **kwargs,
        "pretrained": str(tmp_path / "other"),
    }
    with pytest.raises(GuidinoError, match="encoder .*gone: there is no such folder"):
        plan(planned.DATASET, "C", settings={"encoder": "./gone"}, network=Network(name))


def test_what_is_pretrained_in_the_paper_starts_from_that_or_from_what_is_said(folder, encoder):
    published = kwargs_of(plan(planned.DATASET, "A", network=Network("swin_unet")).plans)["pretrained"]
    assert published == lists.ARCHITECTURES["swin_unet"].load().published_weights
    scratch = Network("swin_unet", settings={"pretrained": None})
    assert kwargs_of(plan(planned.DATASET, "B", network=scratch).plans)["pretrained"] is None
    with pytest.raises(GuidinoError, match="there is no such folder"):
        plan(planned.DATASET, "C", network=Network("h2former", settings={"pretrained": "./gone"}))


def test_volumes_are_left_out_for_a_network_that_lives_in_2d(volumes, capsys):
    assert main(["plan", "-d", planned.DATASET, "-o", "New", "--architecture", "ukan"]) == 0
    assert [*json.loads((volumes / "New.json").read_text())["configurations"]] == ["2d"]
    assert "left out: 3d_cascade_fullres, 3d_fullres, since ukan is an architecture for 2D" in capsys.readouterr().out
    with pytest.raises(GuidinoError, match="-c 3d_fullres: ukan is an architecture for 2D"):
        plan(planned.DATASET, "Other", configuration="3d_fullres", network=Network("ukan"))


def test_every_configuration_gets_a_network_that_lives_there(volumes):
    planned_ = plan(planned.DATASET, "New", configuration="3d_fullres", network=Network("nnwnet", "planned"))
    for configuration in ("2d", "3d_fullres"):
        kwargs = kwargs_of(planned_.plans, configuration)
        assert kwargs["widths"] == [4, 8, 16]
        assert len(kwargs["strides"]) == 3
    assert "architecture" not in planned_.plans["configurations"]["3d_cascade_fullres"]
    assert planned_.differences.count("~ guidino.gate_at") == 0


def test_the_patch_and_the_gate_follow_the_network_unless_they_are_set(folder, monkeypatch):
    monkeypatch.setitem(lists.ARCHITECTURES, "tiny", TINY)
    patch = "configurations.2d.patch_size"
    source = json.loads((folder / "nnUNetPlans.json").read_text())
    source["configurations"]["2d"]["patch_size"] = [30, 48]
    (folder / "Odd.json").write_text(json.dumps(source))
    planned_ = plan(planned.DATASET, "A", "Odd", network=Network("tiny"))
    assert planned_.plans["configurations"]["2d"]["patch_size"] == [32, 48]
    assert any("patch [32, 48], the nearest to the planned [30, 48]" in line for line in planned_.choices)
    with pytest.raises(GuidinoError, match=r"the nearest is \[32, 52\]"):
        plan(planned.DATASET, "B", changes={patch: [32, 50]}, network=Network("tiny"))
    window = kwargs_of(plan(planned.DATASET, "C", changes={patch: [64, 96]}, network=Network("h2former")).plans)
    assert window["window"] == [4, 6]
    with pytest.raises(GuidinoError, match='guidino.gate_at is "skips", but NNWNet takes it at "input" only'):
        plan(planned.DATASET, "D", settings={"gate_at": "skips"}, network=Network("nnwnet"))
    assert plan(planned.DATASET, "E", settings={"gate_at": "bottleneck"}).plans["guidino"]["gate_at"] == "bottleneck"
    assert plan(planned.DATASET, "F", "E", network=Network("ukan")).plans["guidino"]["gate_at"] == "bottleneck"
    assert plan(planned.DATASET, "G", "E", network=Network("nnwnet")).plans["guidino"]["gate_at"] == "input"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--width", "planned"], "--width planned is for the network that --architecture names"),
        (["--set", "architecture.kan=false"], "--set architecture.kan is for the network that --architecture names"),
        (["--architecture", "ukan", "--width", "planned"], "UKAN cannot be as wide as planned"),
        (["--architecture", "ukan", "--set", "architecture.kann=false"], "no setting 'kann'; .* did you mean kan?"),
        (["--architecture", "ukan", "--set", "architecture.name=1"], "no setting 'name'"),
        (["--architecture", "ukan", "--set", "architecture.strides=1"], "no setting 'strides'"),
        (["--architecture", "ukan", "--set", "architecture.widths=abc"], "cannot have ukan in configurations.2d"),
        (["--architecture", "h2former", "--set", "architecture.heads=[3]"], "cannot have h2former"),
    ],
)
def test_what_cannot_be_planned_is_refused_in_one_line(arguments, message, folder, capsys):
    assert main(["plan", "-d", planned.DATASET, "-o", "New", *arguments]) == 1
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1
    assert re.search(message, error)
    assert not (folder / "New.json").exists()


def test_settings_are_the_network_s(folder):
    arguments = [
        "--architecture",
        "ukan",
        "--set",
        "architecture.widths=[16, 24, 32]",
        "--set",
        "architecture.kan=false",
    ]
    assert main(["plan", "-d", planned.DATASET, "-o", "New", *arguments]) == 0
    kwargs = kwargs_of(json.loads((folder / "New.json").read_text()))
    assert (kwargs["widths"], kwargs["kan"]) == ([16, 24, 32], False)
