import pytest
import torch
from guided_networks import build, guide_section
from planned import CHANNELS, CLASSES, plans

from nnunetv2_guidino.guide.gates import guide_at
from nnunetv2_guidino.guide.late_fusion import LateFusion, can_fuse, fused


@pytest.mark.parametrize(
    ("heads", "guides", "classes"), [(2, 1, 1), (3, 1, 2), (3, 2, 2), (1, 1, 1), (2, 2, 2)],
    ids=["one class", "classes, one guide", "classes, a guide each", "one region", "regions, a guide each"],
)  # fmt: skip
@pytest.mark.parametrize("size", [(16, 24), (6, 16, 24)], ids=["2d", "3d"])
def test_the_foreground_s_logits_get_the_guides(size, heads, guides, classes):
    segmentation, logits = torch.randn(2, heads, *size), torch.randn(2, guides, *size[:-2], 4, 6)
    result = fused(segmentation, logits, 0.5, classes)
    at_size = guide_at(logits, size)
    for head in range(heads - classes):
        assert torch.equal(result[:, head], segmentation[:, head])
    for number in range(classes):
        added = result[:, heads - classes + number] - segmentation[:, heads - classes + number]
        torch.testing.assert_close(added, 0.5 * at_size[:, min(number, guides - 1)])


def test_one_guide_says_nothing_of_each_of_several_regions():
    segmentation = torch.randn(1, 2, 8, 8)
    assert not can_fuse(heads=2, guides=1, classes=2)
    assert torch.equal(fused(segmentation, torch.randn(1, 1, 2, 2), 1, classes=2), segmentation)


def test_with_weight_0_the_segmentation_stays_bit_by_bit():
    segmentation = torch.randn(1, 3, 8, 8)
    assert torch.equal(LateFusion(2)(segmentation, 100 * torch.randn(1, 1, 2, 2)), segmentation)


def test_a_network_fuses_to_predict_and_not_to_train(tiny_encoder):
    network = build(plans(guide_section(tiny_encoder("dinov3")))).eval()
    patch = torch.randn(1, CHANNELS, 32, 48)
    plain = network(patch)
    network.late_fusion.weight.fill_(1)
    finest, coarser, logits = network(patch)
    assert torch.equal(finest, plain[0])
    assert torch.equal(coarser, plain[1])
    network.returns_guides = False
    outputs = network(patch)
    assert torch.equal(outputs[0], fused(finest, logits, 1, CLASSES - 1))
    network.decoder.deep_supervision = False
    assert torch.equal(network(patch), outputs[0])
    assert not torch.equal(outputs[0], finest)


def test_each_fold_brings_its_own_weight_and_those_of_version_0_1_0_none(tiny_encoder):
    network = build(plans(guide_section(tiny_encoder("dinov3"))), deep_supervision=False)
    network.late_fusion.weight.fill_(0.5)
    state = {name: weight.clone() for name, weight in network.state_dict().items()}
    assert state["late_fusion.weight"] == 0.5
    without = {name: weight for name, weight in state.items() if name != "late_fusion.weight"}
    network.load_state_dict(without)
    assert network.late_fusion.weight == 0
    network.load_state_dict(state)
    assert network.late_fusion.weight == 0.5
