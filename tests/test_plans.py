import pytest

from nnunetv2_guidino.config import FORMAT, GuideConfig, LoRA
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.plans import TRAINING_SETTINGS, first_difference, guide_settings

VIT = {"model_type": "dinov3_vit", "patch_size": 16, "rope": {"theta": 100.0}}
TIMM = {"model_type": "timm_wrapper", "model_args": {"dynamic_img_size": True}}
SOURCE = {"name": "a/b", "folder": "/here", "sha256": "12ab"}


def config(**settings) -> GuideConfig:
    return GuideConfig(**{"encoder": "a/b", "encoder_config": VIT, "encoder_source": SOURCE, "classes": 1, **settings})


@pytest.mark.parametrize(
    "theirs",
    [
        {},
        {"encoder_config": {**VIT, "of_a_newer_transformers": None}},
        {"encoder_config": {**VIT, "rope": {"theta": 100.0, "of_a_newer_transformers": 1}}},
        {"encoder_source": {**SOURCE, "name": "c/d", "folder": "/there"}},
        {"encoder_source": None, "may_differ": ["encoder_source"]},
        {"encoder": "/there", "lambdas": 1, "versions": {"torch": "3"}, "may_differ": TRAINING_SETTINGS},
    ],
)
def test_what_describes_the_same_guide(theirs):
    may_differ = theirs.pop("may_differ", ())
    if theirs.pop("lambdas", None):
        theirs["lambdas"] = {"guide": 0.5}
    assert first_difference(config(), config(**theirs), may_differ) is None
    assert first_difference(config(**theirs), config(), may_differ) is None


@pytest.mark.parametrize(
    ("ours", "theirs", "key"),
    [
        ({}, {"gate_at": "input"}, "gate_at"),
        ({}, {"gate": "product"}, "gate"),
        ({"lora": LoRA()}, {}, "lora"),
        ({"lora": LoRA(rank=4)}, {"lora": LoRA(rank=8)}, "lora.rank"),
        ({}, {"encoder_config": {**VIT, "patch_size": 14}}, "encoder_config.patch_size"),
        ({}, {"encoder_config": {**VIT, "rope": {"theta": 10.0}}}, "encoder_config.rope.theta"),
        ({}, {"encoder_source": {**SOURCE, "sha256": "34cd"}}, "encoder_source.sha256"),
        ({}, {"encoder_source": None}, "encoder_source"),
        ({"layer": [4, 8]}, {"layer": 8, "classes": 2}, "layer"),
        (
            {"encoder_config": TIMM},
            {"encoder_config": {**TIMM, "model_args": {**TIMM["model_args"], "depth": 3}}},
            "encoder_config.model_args",
        ),
    ],
)
def test_the_first_difference_is_named(ours, theirs, key):
    difference = first_difference(config(**ours), config(**theirs))
    assert difference.key == key
    assert difference.describe("here", "there").startswith(f"guidino.{key} is ")


def test_derived_settings_say_their_format_and_not_that_of_the_source():
    section = guide_settings({"guidino": {"gate_at": "input"}}, {"layer": 3})
    assert (section["format"], section["gate_at"], section["layer"]) == (FORMAT, "input", 3)
    assert guide_settings({"guidino": section}, {}) == section
    with pytest.raises(GuidinoError, match="guidino.format .* cannot be set"):
        guide_settings({}, {"format": 1})
