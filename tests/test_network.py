import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from planned import ARCHITECTURES, CHANNELS, CLASSES, plans
from torch import nn

from nnunetv2_guidino.config import GATES
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.network import GuidedNetwork, apply_gate
from nnunetv2_guidino.token_encoder import read_encoder_config
from nnunetv2_guidino.trainers import nnUNetTrainerGuiDINO


def guide_section(folder, **settings) -> dict[str, object]:
    return {
        "encoder_config": read_encoder_config(folder, settings.get("layer")),
        "min_input_size": 64,
        "prototypes": 8,
        **settings,
    }


def build(manager, deep_supervision=True, trainer=nnUNetTrainerGuiDINO) -> nn.Module:
    configuration = manager.get_configuration("2d")
    torch.manual_seed(0)
    return trainer.build_network_architecture(manager, configuration, CHANNELS, CLASSES, deep_supervision)


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_and_gradients(architecture, gate, tiny_encoder):
    network = build(plans(guide_section(tiny_encoder("dinov3"), gate=gate), architecture))
    assert isinstance(network, GuidedNetwork)
    *segmentations, guide = network.train()(torch.randn(2, CHANNELS, 32, 48))
    assert [tuple(s.shape) for s in segmentations] == [(2, CLASSES, 32, 48), (2, CLASSES, 16, 24)]
    assert guide.shape == (2, 1, 4, 6)
    sum((s**2).sum() for s in segmentations).backward()
    without = {name for name, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    assert all(p.grad is None for p in network.token_encoder.parameters())
    book = [p.grad.abs().sum() for p in network.tokenbook.parameters()]
    assert all(gradient > 0 for gradient in book)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("gate", GATES)
def test_guide_of_one_gives_the_stock_network_s_output(gate, architecture, tiny_encoder):
    manager = plans(guide_section(tiny_encoder("dinov2"), gate=gate), architecture)
    guided, stock = build(manager, False), build(manager, False, nnUNetTrainer)
    guided.network.load_state_dict(stock.state_dict())
    guided.tokenbook = ConstantGuide(1.0)
    patch = torch.randn(1, CHANNELS, 32, 48)
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
    assert apply_gate(torch.ones(1, 2, 1, 1), guide).flatten().tolist() == [0.5, 0.5]
    fine = apply_gate(torch.ones(1, 1, 8, 8), guide)
    assert fine[..., 0].max() == 0
    assert fine[..., -1].min() == 1


@pytest.mark.parametrize("family", ["dinov3", "dinov2", "timm_dinov3"])
def test_torch_compile_sees_one_graph(family, tiny_encoder):
    network = build(plans(guide_section(tiny_encoder(family)))).train()
    explanation = torch._dynamo.explain(network)(torch.randn(2, CHANNELS, 32, 48))
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
    with pytest.raises(GuidinoError, match=r"guidino.encoder_config is missing .* plans.json"):
        build(plans({}))


def test_network_without_encoder_and_decoder_can_only_be_gated_at_its_input(tiny_encoder):
    from nnunetv2_guidino.config import GuideConfig

    config = GuideConfig.from_plans({"guidino": guide_section(tiny_encoder("dinov3"))})
    with pytest.raises(GuidinoError, match=r'guidino.gate is "skips", but Conv2d has no encoder .* use "input"'):
        GuidedNetwork(nn.Conv2d(3, 2, 1), config, ["ZScoreNormalization"] * 3)
