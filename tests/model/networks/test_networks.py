"""Each of our architectures under what nnU-Net does to networks; what all must keep is in test_contract."""

import json

import numpy as np
import pytest
import torch
from nnunetv2.run.load_pretrained_weights import load_pretrained_weights
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from tiny_encoders import CONFIGS, DEPTH
from tiny_networks import DIMENSIONS, ON_TOKENS, SETTINGS, build, encoder_config, plans_of, tiny_network

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.guide.positions import build_gates
from nnunetv2_guidino.model.networks.contract import describe

ODD = {2: (37, 53), 3: (9, 37, 22)}
EVEN = {2: (64, 96), 3: (8, 32, 48)}
each = pytest.mark.parametrize(("name", "dimensions"), DIMENSIONS)


def test_each_architecture_has_its_tiny_settings():
    assert list(SETTINGS) == list(lists.ARCHITECTURES)


@each
@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (4, 3)])
def test_odd_patches_and_any_channels_and_classes(name, dimensions, channels, classes):
    """Outputs have the sides of the targets that nnU-Net makes, which it rounds."""
    size = ODD[dimensions]
    configuration = plans_of(name, size, channels)
    network = build(configuration, channels, classes)
    describe(network).check_patch(size)
    outputs = network(torch.randn(2, channels, *size))
    scales = 1 / np.cumprod(configuration.pool_op_kernel_sizes, axis=0)
    for output, scale in zip(outputs, scales, strict=False):
        assert output.shape == (2, classes, *(round(side * by) for side, by in zip(size, scale, strict=True)))
    network.decoder.deep_supervision = False
    assert network(torch.randn(2, channels, *size)).shape == (2, classes, *size)


@each
def test_nnunet_s_loss_weighs_the_finest_output_as_in_its_own_networks(name, dimensions):
    """One output alone counts as one; of several, the finest counts twice the next, and the last nothing."""
    configuration = plans_of(name, EVEN[dimensions])
    scales = len(configuration.pool_op_kernel_sizes) - 1
    weights = np.array([1 / 2**i for i in range(scales)])
    weights[-1] = 0
    outputs = describe(build(configuration)).outputs
    loss = DeepSupervisionWrapper(lambda output, target: output.mean(), weights / weights.sum())
    ones = [torch.ones(1)] * outputs
    assert loss(ones, [torch.ones(1)] * scales) == pytest.approx(1)


@each
def test_gradients_in_half_precision_point_where_those_in_full_precision_do(name, dimensions):
    full, half = (_gradients(name, dimensions, half) for half in (False, True))
    assert torch.cosine_similarity(full, half, dim=0) > 0.7  # measured: 0.80 to 1.00
    assert 0.7 < half.norm() / full.norm() < 1.4  # 0.82 to 1.02


def _gradients(name: str, dimensions: int, half: bool) -> torch.Tensor:
    """Of all parameters. By PyTorch's own convolutions, which stand in for a GPU's.

    oneDNN's leave memory that nobody has written in the weights' gradients of 3×3×3 convolutions of two slices, in
    bfloat16 and with AVX-512. (nnU-Net trains in float32 on CPUs.)
    """
    network = tiny_network(name, EVEN[dimensions])
    with torch.backends.mkldnn.flags(enabled=False), torch.autocast("cpu", torch.bfloat16, enabled=half):
        outputs = network(torch.randn(2, 3, *EVEN[dimensions]))
        sum(output.float().square().mean() for output in outputs).backward()
    return torch.cat([p.grad.flatten() for p in network.parameters() if p.requires_grad])


@each
def test_no_graph_breaks(name, dimensions):
    network = tiny_network(name, EVEN[dimensions])
    torch._dynamo.reset()
    report = torch._dynamo.explain(network)(torch.randn(2, 3, *EVEN[dimensions]))
    assert report.graph_break_count == 0, report.break_reasons


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "nnwnet"])
def test_volumes_are_refused_by_what_is_2d(name):
    architecture = lists.ARCHITECTURES[name].load()
    kwargs = plans_of(name, EVEN[2]).network_arch_init_kwargs
    kwargs["strides"] = [[1, 1, 1]] * 3
    with pytest.raises(GuidinoError, match=f"{architecture.__name__} is a network for 2D, but .*strides"):
        architecture(input_channels=3, num_classes=2, deep_supervision=True, **kwargs)
    with pytest.raises(GuidinoError, match=f"{name} is an architecture for 2D"):
        plans_of(name, EVEN[3])


@pytest.mark.parametrize("name", list(SETTINGS))
def test_plans_name_every_setting_and_refuse_unknown_ones(name):
    kwargs = plans_of(name, EVEN[2]).network_arch_init_kwargs
    assert SETTINGS[name].items() <= kwargs.items()
    assert None not in [kwargs.get(key) for key in ("widths", "global_widths", "layers", "window") if key in kwargs]
    with pytest.raises(GuidinoError, match="has no setting 'widht'; it has .*; did you mean width"):
        plans_of(name, EVEN[2], widht=3)


@pytest.mark.parametrize("name", list(SETTINGS))
def test_a_guide_gates_the_features_or_the_input(name):
    network = tiny_network(name, EVEN[2]).eval()
    description = describe(network)
    patch, guide = torch.randn(1, 3, *EVEN[2]), torch.rand(1, 1, 4, 6)
    plain = network(patch)[0]
    for gate_at in ("skips", "bottleneck", "input"):
        if name == "nnwnet" and gate_at != "input":
            with pytest.raises(GuidinoError, match=f'guidino.gate_at is "{gate_at}", but NNWNet'):
                build_gates(description, gate_at, "residual", 3)
            continue
        position = build_gates(description, gate_at, "residual", 3)
        torch.testing.assert_close(position(network, patch, torch.zeros_like(guide))[0], plain)
        assert not torch.equal(position(network, patch, guide)[0], plain)


@each
def test_pretrained_weights_transfer_to_other_labels(name, dimensions, tmp_path):
    """By nnU-Net's own function, which takes all but what is called seg_layers and demands that all of it is there."""
    first, second = (tiny_network(name, EVEN[dimensions], classes=classes) for classes in (2, 5))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter += 1
    torch.save({"network_weights": first.state_dict()}, tmp_path / "checkpoint.pth")
    load_pretrained_weights(second, tmp_path / "checkpoint.pth")
    weights = first.state_dict()
    for key, weight in second.state_dict().items():
        assert (".seg_layers." in key) or torch.equal(weight, weights[key]), key


@pytest.mark.parametrize("name", [name for name in SETTINGS if name not in ON_TOKENS])
def test_every_weight_matters(name):
    """No gradient is zero throughout, be it through a detached branch or an output that is left out."""
    network = tiny_network(name, EVEN[2])
    outputs = network(torch.randn(2, 3, *EVEN[2]))
    sum((output * torch.randn_like(output)).sum() for output in outputs).backward()
    without = [key for key, p in network.named_parameters() if not p.grad.any()]
    assert without == []


@pytest.mark.slow
@each
def test_one_batch_is_learnt_by_heart(name, dimensions):
    size = {2: (64, 64), 3: (16, 32, 32)}[dimensions]
    settings = {"tuning": "full", "min_input_size": 256} if name in ON_TOKENS else {}
    network = tiny_network(name, size, channels=1, classes=1, **settings)
    network.decoder.deep_supervision = False
    axes = torch.meshgrid(*[torch.linspace(-1, 1, side) for side in size], indexing="ij")
    distance = torch.stack(axes).square().sum(dim=0).sqrt()
    target = torch.stack([distance < 0.5, distance > 0.7])[:, None].float()
    patch = target + 0.3 * torch.randn_like(target)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    dice = 0.0
    for _ in range(300):
        logits = network(patch)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        foreground = (logits > 0).float()
        dice = float(2 * (foreground * target).sum() / (foreground + target).sum())
        if dice > 0.95:
            break
    assert dice > 0.95


@pytest.mark.parametrize("family", ["dinov3", "dinov2", "dinov2_registers", "vit"])
def test_a_tuned_transformer_is_trained_whole(family):
    network = tiny_network("segdino", EVEN[2], encoder_config=encoder_config(family), tuning="full")
    network(torch.randn(2, 3, *EVEN[2]))[0].square().mean().backward()
    parameters = dict(network.token_encoder.vit.named_parameters())
    trained = [key for key, p in parameters.items() if p.requires_grad]
    assert [key for key in trained if parameters[key].grad is None] == []
    assert {key for key in parameters if key not in trained} <= {
        "embeddings.mask_token",
        "pooler.dense.weight",
        "pooler.dense.bias",
    }


@pytest.mark.parametrize(("tuning", "expected"), [("frozen", 0), ("lora", 4 * 6 * 2)])
def test_a_frozen_transformer_or_its_adapters(tuning, expected):
    configuration = plans_of("segdino", EVEN[2], tuning=tuning)
    network = build(configuration)
    trained = [p for p in network.token_encoder.parameters() if p.requires_grad]
    assert len(trained) == expected
    network(torch.randn(2, 3, *EVEN[2]))[0].square().mean().backward()
    assert all(p.grad is not None for p in trained)
    patch = torch.randn(1, 3, *EVEN[2])
    predicting = build(configuration, deep_supervision=False).eval()
    predicting.load_state_dict(network.state_dict())
    torch.testing.assert_close(predicting(patch), network.eval()(patch)[0])


def test_settings_of_token_networks_are_checked():
    with pytest.raises(GuidinoError, match="SegDINO needs an encoder"):
        lists.ARCHITECTURES["segdino"].load().planned({"normalization_schemes": []})
    for settings, message in [
        ({"tuning": "tuned"}, "tuning is 'tuned'; expected one of frozen, lora, full"),
        ({"head": "small"}, "head is 'small'; expected"),
        ({"widths": [4, 4]}, "2 widths for 4 layers"),
        (
            {"tuning": "lora", "lora": {"rnak": 4}},
            r"arch_kwargs\.lora\.rnak in the plans is unknown; did you mean .*rank",
        ),
        ({"tuning": "lora", "lora": {"rank": 0}}, r"arch_kwargs\.lora\.rank is 0; expected at least 1"),
        ({"tuning": "lora", "lora": 8}, r"arch_kwargs\.lora\" must be an object of settings, not 8"),
    ]:
        with pytest.raises(GuidinoError, match=message):
            tiny_network("segdino", EVEN[2], **settings)
    with pytest.raises(GuidinoError, match="SegDINO uses four blocks of its encoder, which has 3; give the setting la"):
        plans_of("segdino", EVEN[2], encoder_config=encoder_config(num_hidden_layers=3))


def test_layers_are_segdino_s_own():
    architecture = lists.ARCHITECTURES["segdino"].load()
    for depth, layers in {12: [3, 6, 9, 12], 24: [5, 12, 18, 24], 40: [10, 20, 30, 40]}.items():
        assert architecture.default_layers({"num_hidden_layers": depth}) == layers
    timm = json.loads(CONFIGS["timm_dinov3"].to_json_string(use_diff=False))  # which writes no number of blocks
    assert lists.ARCHITECTURES["seg_guidino"].load().default_layers(timm) == [DEPTH]
