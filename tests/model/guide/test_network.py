import numpy as np
import pytest
import torch
from guided_networks import build, guide_section
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from planned import ARCHITECTURES, CHANNELS, CLASSES, plans
from scipy.interpolate import interp1d
from torch import nn

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lists import GATE_POSITIONS, GATES
from nnunetv2_guidino.model.encoders import token_encoder
from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork
from nnunetv2_guidino.training.guided import nnUNetTrainerGuiDINO


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("gate_at", GATE_POSITIONS)
@pytest.mark.parametrize("guides", [1, 2])
@pytest.mark.parametrize("patch_size", [(32, 48), (8, 32, 48)], ids=["2d", "3d"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_and_gradients(architecture, patch_size, guides, gate_at, gate, tiny_encoder):
    section = guide_section(tiny_encoder("dinov3"), gate_at=gate_at, gate=gate, guides="classes", classes=guides)
    network = build(plans(section, architecture, patch_size=patch_size))
    assert isinstance(network, GuidedNetwork)
    *segmentations, logits = network.train()(torch.randn(2, CHANNELS, *patch_size))
    half = [side // 2 for side in patch_size]
    assert [tuple(s.shape) for s in segmentations] == [(2, CLASSES, *patch_size), (2, CLASSES, *half)]
    assert logits.shape == (2, guides, *patch_size[:-2], 4, 6)
    sum((s**2).sum() for s in segmentations).backward()
    without = {name for name, p in network.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    assert all(p.grad is None for p in network.token_encoder.parameters())
    book = [p.grad.abs().sum() for p in network.tokenbook.parameters()]
    assert all(gradient > 0 for gradient in book)


def test_same_seed_starts_the_planned_network_as_the_baseline_does(tiny_encoder):
    manager = plans(guide_section(tiny_encoder("dinov2")))
    guided, stock = build(manager), build(manager, trainer=nnUNetTrainer)
    for name, weight in stock.state_dict().items():
        assert torch.equal(weight, guided.network.state_dict()[name])


def test_plain_tensor_to_predict(tiny_encoder):
    """Built for it, or with a network that is being trained."""
    section, patch = guide_section(tiny_encoder("dinov3")), torch.randn(1, CHANNELS, 32, 48)
    trained, predicting = build(plans(section)), build(plans(section), deep_supervision=False)
    assert (trained.for_prediction, predicting.for_prediction) == (False, True)
    assert (trained.returns_guides, predicting.returns_guides) == (True, False)
    trained.returns_guides = trained.decoder.deep_supervision = False
    for network in (trained, predicting):
        assert network(patch).shape == (1, CLASSES, 32, 48)


@pytest.mark.parametrize("patch_size", [(32, 48), (8, 32, 48)], ids=["2d", "3d"])
def test_whether_guides_are_returned_is_not_deep_supervision(patch_size, tiny_encoder):
    section = guide_section(tiny_encoder("dinov3"), lora={})
    network, patch = build(plans(section, patch_size=patch_size)), torch.randn(2, CHANNELS, *patch_size)
    finest, coarser, logits = network(patch)
    network.returns_guides = False
    assert [tuple(o.shape) for o in network(patch)] == [tuple(finest.shape), tuple(coarser.shape)]
    network.returns_guides, network.decoder.deep_supervision = True, False
    segmentation, guides = network(patch)
    assert (segmentation.shape, guides.shape) == (finest.shape, logits.shape)
    # trainable so, with LoRA
    (segmentation.square().sum() + guides.square().sum()).backward()
    without = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    # nnU-Net builds the layers of deep supervision nevertheless, and late fusion learns in the loss.
    assert all(".seg_layers.0." in name or name.startswith("late_fusion.") for name in without)
    assert any("lora_" in name for name, p in network.named_parameters() if p.grad is not None)


def test_gate_is_the_maximum_of_the_guides(tiny_encoder):
    section = guide_section(tiny_encoder("dinov3"), guides="classes", classes=3, gate_at="input")
    network = build(plans(section), deep_supervision=False).eval()
    patch = torch.randn(1, CHANNELS, 32, 48)
    guides = network.guides(patch)
    assert not torch.allclose(guides[:, 0], guides[:, 1])
    torch.testing.assert_close(
        network(patch), network.network(network.gate_at.gates[0](patch, guides.amax(1, keepdim=True)))
    )
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


@pytest.mark.parametrize(
    ("family", "settings", "patch_size"),
    [
        ("dinov3", {}, (32, 48)),
        ("dinov2", {"layer": [1, 3]}, (32, 48)),
        ("timm_dinov3", {"gate_at": "input"}, (32, 48)),
        ("dinov3", {"guides": "classes", "classes": 2}, (8, 32, 48)),
        ("dinov2", {"slice_stride": 3, "gate_at": "bottleneck"}, (8, 32, 48)),
        ("dinov3", {"lora": {}}, (8, 32, 48)),
        ("dinov2", {"lora": {}, "layer": [1, 3]}, (8, 32, 48)),
    ],
)
def test_torch_compile_sees_one_graph(family, settings, patch_size, tiny_encoder, monkeypatch):
    monkeypatch.setattr(token_encoder, "TOKENS_AT_ONCE", 128)  # volumes are encoded in several parts
    monkeypatch.setattr(token_encoder, "TOKENS_WITHOUT_GRADIENT", 128)
    manager = plans(guide_section(tiny_encoder(family), **settings), patch_size=patch_size)
    explanation = torch._dynamo.explain(build(manager).train())(torch.randn(2, CHANNELS, *patch_size))
    assert explanation.graph_count == 1
    assert explanation.graph_break_count == 0, explanation.break_reasons


@pytest.mark.parametrize("family", ["dinov3", "dinov2"])
def test_output_is_the_guides_logits_in_full_precision(family, tiny_encoder):
    network = build(plans(guide_section(tiny_encoder(family), slice_stride=3), patch_size=(8, 32, 48))).eval()
    patch = torch.randn(1, CHANNELS, 8, 32, 48)
    guides = network.guides(patch)
    assert 0 <= guides.min() < guides.max() <= 1
    torch.testing.assert_close(network(patch)[-1].sigmoid(), guides)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(patch)[-1].dtype == torch.float32


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
