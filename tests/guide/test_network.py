import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from planned import ARCHITECTURES, CHANNELS, CLASSES, plans
from scipy.interpolate import interp1d
from torch import nn

from nnunetv2_guidino.config import GATES
from nnunetv2_guidino.encoders import token_encoder
from nnunetv2_guidino.encoders.architecture import read_encoder_config
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.guide.gates import GATINGS, guide_at
from nnunetv2_guidino.guide.network import GuidedNetwork
from nnunetv2_guidino.training.guided import nnUNetTrainerGuiDINO


def guide_section(folder, **settings) -> dict[str, object]:
    return {
        "classes": CLASSES - 1,
        "encoder_config": read_encoder_config(folder, settings.get("layer")),
        "min_input_size": 64,
        "prototypes": 8,
        **settings,
    }


def build(manager, deep_supervision=True, trainer=nnUNetTrainerGuiDINO, channels=CHANNELS) -> nn.Module:
    configuration = manager.get_configuration(*manager.available_configurations)
    torch.manual_seed(0)
    return trainer.build_network_architecture(manager, configuration, channels, CLASSES, deep_supervision)


@pytest.mark.parametrize("gating", GATINGS)
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("guides", [1, 2])
@pytest.mark.parametrize("patch_size", [(32, 48), (8, 32, 48)], ids=["2d", "3d"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_and_gradients(architecture, patch_size, guides, gate, gating, tiny_encoder):
    section = guide_section(tiny_encoder("dinov3"), gate=gate, gating=gating, guides="classes", classes=guides)
    network = build(plans(section, architecture, patch_size=patch_size))
    assert isinstance(network, GuidedNetwork)
    *segmentations, guide = network.train()(torch.randn(2, CHANNELS, *patch_size))
    half = [side // 2 for side in patch_size]
    assert [tuple(s.shape) for s in segmentations] == [(2, CLASSES, *patch_size), (2, CLASSES, *half)]
    assert guide.shape == (2, guides, *patch_size[:-2], 4, 6)
    sum((s**2).sum() for s in segmentations).backward()
    without = {name for name, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    assert all(p.grad is None for p in network.token_encoder.parameters())
    book = [p.grad.abs().sum() for p in network.tokenbook.parameters()]
    assert all(gradient > 0 for gradient in book)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("patch_size", [(32, 48), (8, 32, 48)], ids=["2d", "3d"])
@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize(("gating", "neutral"), [("product", 1.0), ("residual", 0.0)])
def test_neutral_guide_gives_the_stock_network_s_output(gating, neutral, gate, patch_size, architecture, tiny_encoder):
    section = guide_section(tiny_encoder("dinov2"), gate=gate, gating=gating)
    manager = plans(section, architecture, patch_size=patch_size)
    guided, stock = build(manager, False), build(manager, False, nnUNetTrainer)
    guided.network.load_state_dict(stock.state_dict())
    guided.tokenbook = ConstantGuide(neutral)
    patch = torch.randn(1, CHANNELS, *patch_size)
    # interpolating ones gives ones up to rounding
    torch.testing.assert_close(guided.eval()(patch), stock.eval()(patch), rtol=1e-5, atol=1e-5)
    guided.tokenbook = ConstantGuide(0.5)
    assert not torch.allclose(guided(patch), stock(patch))


class ConstantGuide(nn.Module):
    def __init__(self, value: float):
        super().__init__()
        self.value = value

    def forward(self, tokens):
        return torch.full_like(tokens[:, :1], self.value)


def test_same_seed_starts_the_planned_network_as_the_baseline_does(tiny_encoder):
    manager = plans(guide_section(tiny_encoder("dinov2")))
    guided, stock = build(manager), build(manager, trainer=nnUNetTrainer)
    for name, weight in stock.state_dict().items():
        assert torch.equal(weight, guided.network.state_dict()[name])


def test_plain_tensor_without_deep_supervision(tiny_encoder):
    network = build(plans(guide_section(tiny_encoder("dinov3"))), deep_supervision=True)
    network.decoder.deep_supervision = False
    assert network(torch.randn(1, CHANNELS, 32, 48)).shape == (1, CLASSES, 32, 48)


def test_gate_averages_the_guide_where_the_feature_is_coarser():
    guide = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    assert guide_at(guide, (1, 1)).item() == 0.5
    fine = guide_at(guide, (8, 8))
    assert fine[..., 0].max() == 0
    assert fine[..., -1].min() == 1


def test_gate_averages_slices_and_interpolates_within_them():
    """Of a volume the guide is finer than deep features along one axis, and coarser along the others."""
    guide = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).repeat(1, 1, 4, 1, 1)
    guide[:, :, ::2] = 1 - guide[:, :, ::2]
    gated = guide_at(guide, (2, 8, 8))
    torch.testing.assert_close(gated, torch.full_like(gated, 0.5))
    guide = torch.rand(1, 1, 6, 4, 4)
    expected = F.interpolate(F.avg_pool3d(guide, (2, 1, 1)), (3, 8, 8), mode="trilinear")
    torch.testing.assert_close(guide_at(guide, (3, 8, 8)), expected)


def test_gate_is_the_maximum_of_the_guides(tiny_encoder):
    section = guide_section(tiny_encoder("dinov3"), guides="classes", classes=3, gate="input")
    network = build(plans(section), deep_supervision=False).eval()
    patch = torch.randn(1, CHANNELS, 32, 48)
    guides = network.guides(patch)
    assert not torch.allclose(guides[:, 0], guides[:, 1])
    torch.testing.assert_close(network(patch), network.network(network.apply_gate(patch, guides.amax(1, keepdim=True))))
    assert torch.equal(network.guide(patch), guides.amax(1, keepdim=True))


@pytest.mark.parametrize(("depth", "stride"), [(8, 1), (9, 2), (8, 2), (7, 4), (3, 4), (2, 4), (1, 4)])
def test_guide_of_a_volume_is_that_of_its_slices(depth, stride, tiny_encoder):
    """At every stride-th slice and the last one; linear between them, also where the patch is thinner than a stride."""
    section = guide_section(tiny_encoder("dinov3"), slice_stride=stride, guides="classes", classes=2)
    network = build(plans(section, patch_size=(8, 32, 48))).eval()
    volume = torch.randn(2, CHANNELS, depth, 32, 48)
    guides = network.guides(volume)
    computed = sorted({*range(0, depth, stride), depth - 1})
    slices = torch.stack([network.guides(volume[:, :, z]) for z in computed], dim=2)
    torch.testing.assert_close(guides[:, :, computed], slices, rtol=1e-4, atol=1e-6)
    expected = interp1d(computed, slices.detach().numpy(), axis=2)(range(depth)) if depth > 1 else slices.detach()
    np.testing.assert_allclose(guides.detach().numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gate", GATES)
def test_previous_stage_of_a_cascade_does_not_reach_the_guide(gate, tiny_encoder):
    section = guide_section(tiny_encoder("dinov3"), gate=gate, gating="product")
    manager = plans(section, patch_size=(4, 32, 48))
    network = build(manager, deep_supervision=False, channels=CHANNELS + 2).eval()
    image, previous = torch.randn(1, CHANNELS, 4, 32, 48), torch.ones(1, 2, 4, 32, 48)
    with_it, without = torch.cat((image, previous), 1), torch.cat((image, 0 * previous), 1)
    assert torch.equal(network.guide(with_it), network.guide(without))
    assert not torch.allclose(network(with_it), network(without))
    if gate == "input":
        network.tokenbook = ConstantGuide(0.0)  # hides the image, not what the previous stage says
        assert torch.equal(network(with_it), network(torch.cat((0 * image, previous), 1)))


@pytest.mark.parametrize(
    ("family", "settings", "patch_size"),
    [
        ("dinov3", {}, (32, 48)),
        ("dinov2", {"layer": [1, 3]}, (32, 48)),
        ("timm_dinov3", {"gate": "input"}, (32, 48)),
        ("dinov3", {"guides": "classes", "classes": 2}, (8, 32, 48)),
        ("dinov2", {"slice_stride": 3, "gate": "bottleneck"}, (8, 32, 48)),
        ("dinov3", {"lora": {}}, (8, 32, 48)),
        ("dinov2", {"lora": {}, "layer": [1, 3]}, (8, 32, 48)),
    ],
)
def test_torch_compile_sees_one_graph(family, settings, patch_size, tiny_encoder, monkeypatch):
    monkeypatch.setattr(token_encoder, "TOKENS_AT_ONCE", 128)  # volumes are encoded in several parts
    manager = plans(guide_section(tiny_encoder(family), **settings), patch_size=patch_size)
    explanation = torch._dynamo.explain(build(manager).train())(torch.randn(2, CHANNELS, *patch_size))
    assert explanation.graph_count == 1
    assert explanation.graph_break_count == 0, explanation.break_reasons


@pytest.mark.parametrize("family", ["dinov3", "dinov2"])
def test_half_precision_channels_last_and_autocast(family, tiny_encoder):
    network = build(plans(guide_section(tiny_encoder(family))), deep_supervision=False).eval()
    patch = torch.randn(1, CHANNELS, 32, 48)
    with torch.no_grad():
        expected = network(patch)
        torch.testing.assert_close(network(patch.to(memory_format=torch.channels_last)), expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (network(patch).float() - expected).abs().max() < 0.1 * expected.abs().max()
        assert (network.half()(patch.half()).float() - expected).abs().max() < 0.02 * expected.abs().max()


def test_feature_map_size_is_the_planned_network_s(tiny_encoder):
    manager = plans(guide_section(tiny_encoder("dinov3")))
    sizes = [
        build(manager, trainer=t).compute_conv_feature_map_size([32, 48]) for t in (nnUNetTrainerGuiDINO, nnUNetTrainer)
    ]
    assert sizes[0] == sizes[1]


def test_network_is_rebuilt_from_plans_and_weights_alone(tiny_encoder, tmp_path):
    section = guide_section(tiny_encoder("dinov3"), encoder=str(tmp_path / "gone"), layer=2)
    first, second = build(plans(section), False).eval(), build(plans(section), False).eval()
    for p in first.parameters():
        nn.init.normal_(p, std=0.1)
    second.load_state_dict(first.state_dict())
    patch = torch.randn(1, CHANNELS, 32, 48)
    assert torch.equal(first(patch), second(patch))


def test_plans_that_were_never_trained_are_refused():
    with pytest.raises(GuidinoError, match=r"guidino.encoder_config and guidino.classes are missing .* plans.json"):
        build(plans({}))


def test_network_without_encoder_and_decoder_can_only_be_gated_at_its_input(tiny_encoder):
    from nnunetv2_guidino.config import GuideConfig

    config = GuideConfig.from_plans({"guidino": guide_section(tiny_encoder("dinov3"))})
    with pytest.raises(GuidinoError, match=r'guidino.gate is "skips", but Conv2d has no encoder .* use "input"'):
        GuidedNetwork(nn.Conv2d(3, 2, 1), config, ["ZScoreNormalization"] * 3)
