"""The contracts of gates and of their places, and what follows them."""

from typing import Any

import pytest
import torch
from guided_networks import Alone, ConstantGuide, build, guide_section
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from planned import ARCHITECTURES, CHANNELS, CLASSES, plans
from torch import nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lists import GATE_POSITIONS, GATES, Entry
from nnunetv2_guidino.model.guide.gates import Blend
from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork
from nnunetv2_guidino.model.guide.positions import build_gates
from nnunetv2_guidino.model.networks.contract import Description, describe


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("gate_at", GATE_POSITIONS)
@pytest.mark.parametrize("size", [(8, 12), (4, 8, 12)])
def test_every_form_at_every_place_keeps_shapes_and_passes_gradients(size, gate_at, gate):
    architecture = plans({}, patch_size=size)
    (network,) = [build(architecture, trainer=nnUNetTrainer)]
    position = build_gates(describe(network), gate_at, gate, CHANNELS)
    guide = torch.rand(2, 1, *size[:-2], 2, 3, requires_grad=True)
    outputs = position(network, torch.randn(2, CHANNELS, *size), guide)
    assert [tuple(o.shape) for o in outputs] == [tuple(o.shape) for o in network(torch.randn(2, CHANNELS, *size))]
    sum((o**2).sum() for o in outputs).backward()
    assert guide.grad.abs().max() > 0
    assert all(p.grad is not None for p in position.parameters())


@pytest.mark.parametrize("size", [(12, 10), (4, 6, 5)])
def test_blend_is_its_formula_and_keeps_no_factor(size):
    gate = Blend(8)
    nn.init.normal_(gate.logits)
    feature, guide = torch.randn(2, 8, *size, requires_grad=True), torch.rand(2, 1, *size, requires_grad=True)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        gated = gate(feature, guide)
    assert kept.count(feature.numel()) == 1  # the feature itself
    share = gate.logits.sigmoid().reshape(-1, *[1] * len(size))
    expected = feature * (1 - share + share * guide)
    torch.testing.assert_close(gated, expected)
    with torch.no_grad():
        assert torch.equal(gate(feature, guide), gated)
    gradients = [torch.autograd.grad(x.square().sum(), [feature, guide, gate.logits]) for x in (gated, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(("gate_at", "channels"), [("skips", [4, 8, 16]), ("bottleneck", [16]), ("input", [CHANNELS])])
def test_each_gated_feature_has_a_gate_that_knows_its_channels(gate_at, channels):
    network = build(plans({}), trainer=nnUNetTrainer)
    assert [g.channels for g in build_gates(describe(network), gate_at, "residual", CHANNELS).gates] == channels


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("patch_size", [(32, 48), (8, 32, 48)], ids=["2d", "3d"])
@pytest.mark.parametrize("gate_at", GATE_POSITIONS)
@pytest.mark.parametrize(("gate", "neutral"), [("product", 1.0), ("residual", 0.0)])
def test_neutral_guide_gives_the_stock_network_s_output(gate, neutral, gate_at, patch_size, architecture, tiny_encoder):
    section = guide_section(tiny_encoder("dinov2"), gate_at=gate_at, gate=gate)
    manager = plans(section, architecture, patch_size=patch_size)
    guided, stock = build(manager, False), build(manager, False, nnUNetTrainer)
    guided.network.load_state_dict(stock.state_dict())
    guided.tokenbook = ConstantGuide(neutral)
    patch = torch.randn(1, CHANNELS, *patch_size)
    # interpolating ones gives ones up to rounding
    torch.testing.assert_close(guided.eval()(patch), stock.eval()(patch), rtol=1e-5, atol=1e-5)
    guided.tokenbook = ConstantGuide(0.5)
    assert not torch.allclose(guided(patch), stock(patch))


@pytest.mark.parametrize("gate_at", GATE_POSITIONS)
def test_previous_stage_of_a_cascade_does_not_reach_the_guide(gate_at, tiny_encoder):
    section = guide_section(tiny_encoder("dinov3"), gate_at=gate_at, gate="product")
    manager = plans(section, patch_size=(4, 32, 48))
    network = build(manager, deep_supervision=False, channels=CHANNELS + 2).eval()
    image, previous = torch.randn(1, CHANNELS, 4, 32, 48), torch.ones(1, 2, 4, 32, 48)
    with_it, without = torch.cat((image, previous), 1), torch.cat((image, 0 * previous), 1)
    assert torch.equal(network.guide(with_it), network.guide(without))
    assert not torch.allclose(network(with_it), network(without))
    if gate_at == "input":
        network.tokenbook = ConstantGuide(0.0)  # hides the image, not what the previous stage says
        assert torch.equal(network(with_it), network(torch.cat((0 * image, previous), 1)))


@pytest.fixture
def per_channel(monkeypatch) -> None:
    monkeypatch.setitem(lists.GATES, "per_channel", Entry("guided_networks:PerChannel", "a strength per channel"))


@pytest.mark.parametrize("gate_at", GATE_POSITIONS)
@pytest.mark.parametrize("patch_size", [(32, 48), (8, 32, 48)], ids=["2d", "3d"])
def test_a_gate_may_hold_parameters(patch_size, gate_at, per_channel, tiny_encoder):
    section = guide_section(tiny_encoder("dinov3"), gate_at=gate_at, gate="per_channel")
    manager = plans(section, patch_size=patch_size)
    network = build(manager)
    strengths = {name: p for name, p in network.named_parameters() if name.endswith("strength")}
    assert sum(map(len, strengths.values())) == {"skips": 28, "bottleneck": 16, "input": CHANNELS}[gate_at]
    patch = torch.randn(2, CHANNELS, *patch_size)
    *segmentations, _ = network(patch)
    sum((s**2).sum() for s in segmentations).backward()
    assert all(p.grad.abs().max() > 0 for p in strengths.values())
    for p in strengths.values():
        nn.init.normal_(p)
    predicting = build(manager, deep_supervision=False).eval()
    predicting.load_state_dict(network.state_dict())
    torch.testing.assert_close(predicting(patch), network.eval()(patch)[0])


def guided_alone(tiny_encoder, for_prediction=False, **settings: Any) -> GuidedNetwork:
    config = GuideConfig.from_plans({"guidino": guide_section(tiny_encoder("dinov3"), **settings)})
    torch.manual_seed(0)
    return GuidedNetwork(Alone(CHANNELS, CLASSES), config, CLASSES, ["ZScoreNormalization"] * CHANNELS, for_prediction)


@pytest.mark.parametrize("gate_at", ["skips", "bottleneck"])
def test_network_without_encoder_and_decoder_can_only_be_gated_at_its_input(gate_at, tiny_encoder):
    with pytest.raises(GuidinoError, match=rf'guidino.gate_at is "{gate_at}", but Alone has no encoder .* use "input"'):
        guided_alone(tiny_encoder, gate_at=gate_at)


@pytest.mark.parametrize("gate", GATES)
def test_network_without_encoder_and_decoder_is_gated_at_its_input(gate, tiny_encoder):
    network = guided_alone(tiny_encoder, gate_at="input", gate=gate)
    patch = torch.randn(2, CHANNELS, 32, 48)
    for enabled in (True, False):  # what nnU-Net's trainer does before it trains, and validates
        network.decoder.deep_supervision = enabled
        segmentation, guides = network(patch)
        assert segmentation.shape == (2, CLASSES, 32, 48)
        assert guides.shape == (2, 1, 4, 6)
    segmentation.square().sum().backward()
    without = {name for name, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    predicting = guided_alone(tiny_encoder, for_prediction=True, gate_at="input", gate=gate).eval()
    predicting.load_state_dict(network.state_dict())
    torch.testing.assert_close(predicting(patch), network.eval()(patch)[0])


def test_plans_may_name_a_network_of_anybody_s(planned_trainer):
    """Without encoder and decoder, through nnU-Net's own hooks; it has one output, and so three strides."""
    trainer = planned_trainer("nnUNetTrainerGuiDINO", guide={"gate_at": "input"})
    trainer.configuration_manager.configuration["architecture"] = {
        "network_class_name": "guided_networks.Alone",
        "arch_kwargs": {"strides": [[1, 1]] * 3},
        "_kw_requires_import": [],
    }
    trainer.initialize()
    trainer.set_deep_supervision_enabled(True)
    data, labels = torch.randn(2, CHANNELS, 32, 48), torch.zeros(2, 1, 32, 48)
    before = trainer.network.network.convolution.weight.clone()
    trainer.train_step({"data": data, "target": [labels, labels]})
    assert not torch.equal(trainer.network.network.convolution.weight, before)
    trainer.validation_step({"data": data, "target": [labels, labels]})
    trainer.set_deep_supervision_enabled(False)
    trainer.network.returns_guides = False
    assert trainer.network(data).shape == (2, CLASSES, 32, 48)


@pytest.mark.parametrize("gate", ["product", "residual"])
@pytest.mark.parametrize("gate_at", GATE_POSITIONS)
def test_checkpoints_of_version_0_1_0_have_all_that_is_asked_for(gate_at, gate, tiny_encoder):
    """Its gates had no name in them, and these have none."""
    network = build(plans(guide_section(tiny_encoder("dinov3"), gate_at=gate_at, gate=gate)))
    assert list(network.gate_at.state_dict()) == []
    book = {name for name in network.state_dict() if name.startswith("tokenbook.")}
    names = ("prototypes", "weight_logits", "scale", "offset", "projection.weight", "projection.bias")
    assert book == {f"tokenbook.{name}" for name in names}


@pytest.mark.parametrize(
    ("description", "gate_at", "gate", "message"),
    [
        (Description("W", features=(4, 8), gates=("input",)), "skips", "residual", 'but W takes it at "input" only'),
        (Description("W", gates=("input",)), "bottleneck", "residual", 'but W takes it at "input" only'),
        (Description("W", features=(4, None)), "skips", "per_channel", "which needs to know how many channels"),
        (Description("W"), "somewhere", "residual", "gate_at is 'somewhere'; expected one of skips, bottleneck, input"),
        (Description("W"), "input", "residuals", "guidino.gate is 'residuals'; .* did you mean residual?"),
    ],
)
def test_what_cannot_be_gated_is_refused_with_what_can(description, gate_at, gate, message, per_channel):
    with pytest.raises(GuidinoError, match=message):
        build_gates(description, gate_at, gate, CHANNELS)


def test_a_form_that_needs_channels_takes_those_that_are_known(per_channel):
    description = Description("W", features=(None, 8))
    assert [g.channels for g in build_gates(description, "bottleneck", "per_channel", CHANNELS).gates] == [8]
