import json

import pytest

from nnunetv2_guidino.config import DEFAULT_ENCODER, FORMAT, GuideConfig, LoRA
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.plans import guide_settings


def test_defaults_are_the_paper_s_encoder_and_the_measured_gate():
    config = GuideConfig.from_plans({})
    assert (config.encoder, config.layer, config.prototypes) == (DEFAULT_ENCODER, None, 256)
    assert (config.gate_at, config.gate) == ("skips", "blend")
    assert (config.readout, config.similarity) == ("logistic", "cosine")
    assert config.lambdas == {"guide": 1.0, "guide_dice": 1.0, "boundary": 0.1}


def test_environment_fills_in_only_where_the_plans_name_no_encoder(monkeypatch):
    monkeypatch.setenv("GUIDINO_ENCODER", "/weights/here")
    assert GuideConfig.from_plans({}).encoder == "/weights/here"
    assert GuideConfig.from_plans({"guidino": {"encoder": "a/b"}}).encoder == "a/b"


def test_plans_round_trip_through_json(monkeypatch):
    config = GuideConfig(
        layer=11,
        gate_at="input",
        lambdas={"guide": 0.5},
        lora=LoRA(rank=4),
        encoder_config={"model_type": "dinov2"},
        encoder_source={"name": "x"},
    )
    section = json.loads(json.dumps(config.to_plans()))
    monkeypatch.setenv("GUIDINO_ENCODER", "/somewhere/else")
    assert "lambdas" not in section
    assert GuideConfig.from_plans({"guidino": section}) == config


LATER_THAN_0_1_0 = {"format", "gate", "late_fusion", "lambda_guide_dice", "max_input_size", "versions"}


def test_a_complete_section_without_a_format_is_of_version_0_1_0():
    complete = GuideConfig(encoder="a/b").to_plans()
    section = {key: value for key, value in complete.items() if key not in LATER_THAN_0_1_0}
    then = {"gate": "product", "late_fusion": False, "lambdas": {"guide_dice": 0}, "max_input_size": None}
    assert GuideConfig.from_plans({"guidino": section}) == GuideConfig(encoder="a/b", **then)
    assert GuideConfig.from_plans({"guidino": {**section, "gate": "residual"}}).gate == "residual"


@pytest.mark.parametrize("written", [{}, {"format": 1}])
def test_earlier_keys_of_the_gates_are_read(written):
    section = {"encoder": "a/b", "gate": "bottleneck", "gating": "product", **written}
    assert GuideConfig.from_plans({"guidino": section}) == GuideConfig("a/b", gate_at="bottleneck", gate="product")
    only = {"encoder": "a/b", "gating": "residual", **written}
    assert GuideConfig.from_plans({"guidino": only}) == GuideConfig("a/b", gate="residual")
    settings = guide_settings({"guidino": section}, {"gate": "residual"})
    assert (settings["gate_at"], settings["gate"]) == ("bottleneck", "residual")


def test_earlier_keys_of_the_gates_are_refused_in_a_section_of_this_format():
    section = {**GuideConfig(encoder="a/b").to_plans(), "gate": "skips"}
    with pytest.raises(GuidinoError, match="guidino.gate is 'skips'; expected one of blend, residual, product"):
        GuideConfig.from_plans({"guidino": section})


@pytest.mark.parametrize("left_out", [LATER_THAN_0_1_0 - {"format"}, {"gate"}, {"max_input_size"}])
def test_what_a_section_with_a_format_leaves_out_has_this_version_s_defaults(left_out):
    section = {key: value for key, value in GuideConfig(encoder="a/b").to_plans().items() if key not in left_out}
    assert GuideConfig.from_plans({"guidino": section}) == GuideConfig(encoder="a/b")


def test_what_a_section_by_hand_leaves_out_has_this_version_s_defaults():
    assert GuideConfig.from_plans({"guidino": {"encoder": "a/b"}}) == GuideConfig(encoder="a/b")
    section = {"encoder": "a/b", "gate_at": "input"}
    assert GuideConfig.from_plans({"guidino": section}) == GuideConfig(encoder="a/b", gate_at="input")


def test_sections_say_their_format_and_an_unknown_newer_one_is_refused_before_its_keys():
    section = GuideConfig(encoder="a/b").to_plans()
    assert section["format"] == FORMAT
    newer = {**section, "format": FORMAT + 1, "of_tomorrow": True, "versions": {"nnunetv2-guidino": "7.1.0"}}
    with pytest.raises(
        GuidinoError, match=f"format is {FORMAT + 1} in the plans, .* pip install 'nnunetv2-guidino>=7.1.0'"
    ):
        GuideConfig.from_plans({"guidino": newer})
    with pytest.raises(GuidinoError, match="pip install -U nnunetv2-guidino"):
        GuideConfig.from_plans({"guidino": {"format": FORMAT + 1}})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"prototype": 8}, "guidino.prototype .* did you mean prototypes"),
        ({"lamda_guide": 1}, "did you mean lambda_guide"),
        ({"gate_at": "skip"}, "guidino.gate_at is 'skip'; expected one of skips, bottleneck, input"),
        ({"readout": 3}, "guidino.readout is 3, of type int; expected str"),
        ({"layer": "11"}, "guidino.layer is '11', of type str; expected int or list or null"),
        ({"gate_at": "skip"}, "did you mean skips"),
        ({"gate": "x"}, "guidino.gate is 'x'; expected one of blend, residual, product$"),
        ({"lambda_gide": 1}, "guidino.lambda_gide in the plans is unknown; did you mean lambda_guide"),
        ({"lambdas": {"guide": 1}}, "guidino.lambdas in the plans is unknown"),
        ({"lambda_guide": "1"}, "guidino.lambda_guide is '1', of type str; expected float"),
        ({"zzz": 1}, "guidino.zzz in the plans is unknown; expected one of encoder, layer, .*lambda_boundary$"),
        ({"layer": [8, 4]}, r"guidino.layer is \[8, 4\]; expected .* an ascending list"),
        ({"layer": []}, r"guidino.layer is \[\]"),
        ({"layer": [0, 4]}, r"guidino.layer is \[0, 4\]"),
        ({"layer": [4, "8"]}, r"guidino.layer is \[4, '8'\]"),
        ({"layer": 0}, "guidino.layer is 0"),
        ({"layer": True}, "guidino.layer is True, of type bool"),
        ({"prototypes": 0}, "guidino.prototypes is 0"),
        ({"prototypes": True}, "guidino.prototypes is True, of type bool; expected int"),
        ({"late_fusion": 1}, "guidino.late_fusion is 1, of type int; expected bool"),
        ({"late_fusion": "true"}, "guidino.late_fusion is 'true', of type str; expected bool"),
        ({"late_fusion": None}, "guidino.late_fusion is None"),
        ({"prototypes": 2.5}, "guidino.prototypes is 2.5, of type float; expected int"),
        ({"lambda_guide": -1}, "guidino.lambda_guide is -1"),
        ({"lambda_boundary": float("nan")}, "guidino.lambda_boundary is nan"),
        ({"min_input_size": 10**6}, "guidino.min_input_size is 1000000; expected at least 1 and at most 8192"),
        ({"prototypes": 10**8}, "guidino.prototypes is 100000000; expected at least 1 and at most 1000000"),
        ({"min_input_size": 0}, "guidino.min_input_size is 0"),
        ({"max_input_size": 0}, "guidino.max_input_size is 0; expected null .no limit., or at least 1 and"),
        ({"encoder": ""}, "guidino.encoder is ''"),
        ({"format": "1"}, "guidino.format is '1'; expected a number from 1 to 2"),
        ({"format": 0}, "guidino.format is 0"),
        ({"format": True}, "guidino.format is True"),
        ({"classes": 0}, "guidino.classes is 0; expected at least 1"),
        ({"versions": "0.1.0"}, "guidino.versions is '0.1.0', of type str; expected dict or null"),
        ({"encoder": None}, "guidino.encoder is None, of type NoneType; expected str"),
        ({"similarity": "dot", "readout": "affine"}, "affine.*needs similarity"),
        ({"lora": 8}, "guidino.lora is 8, of type int; expected LoRA or null"),
        ({"lora": {"ranks": 8}}, "guidino.lora.ranks in the plans is unknown; did you mean rank"),
        ({"lora": {"rank": 0}}, "guidino.lora.rank is 0; expected at least 1"),
        ({"lora": {"rank": 2.0}}, "guidino.lora.rank is 2.0, of type float; expected int"),
        ({"lora": {"alpha": 0}}, "guidino.lora.alpha is 0; expected a positive number"),
        ({"lora": {"dropout": 1}}, "guidino.lora.dropout is 1; expected a probability below 1"),
        ({"lora": {"learning_rate": "5e-4"}}, "guidino.lora.learning_rate is '5e-4', of type str"),
        ([], "must be an object"),
    ],
)
def test_bad_settings_are_refused_by_name(section, message):
    with pytest.raises(GuidinoError, match=message):
        GuideConfig.from_plans({"guidino": section})


def test_terms_that_are_not_named_have_their_defaults():
    assert GuideConfig(lambdas={"boundary": 0}).lambdas == {"guide": 1.0, "guide_dice": 1.0, "boundary": 0}
    lambdas = GuideConfig.from_plans({"guidino": {"lambda_guide": 2}}).lambdas
    assert lambdas == {"guide": 2, "guide_dice": 1.0, "boundary": 0.1}
    with pytest.raises(
        GuidinoError, match="guidino.lambdas is 'gide'; expected one of guide, guide_dice, boundary; did you mean gui"
    ):
        GuideConfig(lambdas={"gide": 1.0})
