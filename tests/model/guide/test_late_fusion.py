import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from guided_networks import build, guide_section
from planned import CHANNELS, CLASSES, plans

from nnunetv2_guidino.model.guide.gates import guide_at
from nnunetv2_guidino.model.guide.late_fusion import LateFusion, can_fuse


@pytest.mark.parametrize(
    ("heads", "guides", "classes"), [(2, 1, 1), (3, 1, 2), (3, 2, 2), (1, 1, 1), (2, 2, 2)],
    ids=["one class", "classes, one guide", "classes, a guide each", "one region", "regions, a guide each"],
)  # fmt: skip
@pytest.mark.parametrize("size", [(16, 24), (6, 16, 24)], ids=["2d", "3d"])
def test_each_foreground_logit_gets_its_guide_s_evidence(size, heads, guides, classes):
    assert can_fuse(heads, classes, guides)
    segmentation, logits = torch.randn(2, heads, *size), torch.randn(2, guides, *size[:-2], 4, 6)
    fusion = LateFusion(classes)
    with torch.no_grad():
        fusion.weight.copy_(torch.arange(1, classes + 1) / 2)
        fusion.bias.copy_(torch.arange(classes))
    at_size = guide_at(logits, size)
    fused = fusion(segmentation, logits)
    for head in range(heads - classes):
        assert torch.equal(fused[:, head], segmentation[:, head])
    for number in range(classes):
        added = fused[:, heads - classes + number] - segmentation[:, heads - classes + number]
        expected = (number + 1) / 2 * at_size[:, min(number, guides - 1)] + number
        torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-4)


def test_one_guide_cannot_tell_several_regions_apart():
    assert not can_fuse(heads=2, classes=2, guides=1)


@pytest.mark.parametrize(
    ("share", "alone", "sum_of_both", "with_one_prior"), [(0.02, 0.28, 0.17, 0.63), (0.5, 0.84, 0.92, 0.92)]
)
def test_two_calibrated_observers_learn_to_share_one_prior(share, alone, sum_of_both, with_one_prior):
    torch.manual_seed(0)
    truth = torch.rand(200_000) < share
    prior = torch.tensor(share).logit()
    # A normal observation around ±1 has the log-likelihood ratio 2x, so that both logits are calibrated.
    network, guide = (2 * (torch.randn(len(truth)) + 2 * truth - 1) + prior for _ in range(2))
    fusion = LateFusion(1)
    optimizer = torch.optim.LBFGS(fusion.parameters(), max_iter=50)

    def fused():
        return fusion(network[None, None, :, None], guide[None, None, :, None])[0, 0, :, 0]

    def cross_entropy():
        optimizer.zero_grad()
        loss = F.binary_cross_entropy_with_logits(fused(), truth.float())
        loss.backward()
        return loss

    optimizer.step(cross_entropy)
    assert fusion.weight.item() == pytest.approx(1, abs=0.05)
    assert fusion.bias.item() == pytest.approx(-prior.item(), abs=0.1)
    assert _dice(network > 0, truth) == pytest.approx(alone, abs=0.02)
    assert _dice(network + guide > 0, truth) == pytest.approx(sum_of_both, abs=0.02)
    assert _dice(fused() > 0, truth) == pytest.approx(with_one_prior, abs=0.02)


def _dice(prediction, truth):
    return (2 * (prediction & truth).sum() / (prediction.sum() + truth.sum())).item()


def test_a_new_fusion_leaves_the_segmentation_as_it_is_bit_by_bit():
    segmentation = torch.randn(1, 3, 8, 8)
    assert torch.equal(LateFusion(2)(segmentation, 100 * torch.randn(1, 1, 2, 2)), segmentation)


def test_only_the_fusion_learns_from_the_sum():
    fusion = LateFusion(1)
    segmentation, logits = torch.randn(1, 2, 8, 8, requires_grad=True), torch.randn(1, 1, 2, 2, requires_grad=True)
    fusion(segmentation, logits)[:, 1].square().sum().backward()
    assert fusion.weight.grad.abs().sum() > 0
    assert fusion.bias.grad.abs().sum() > 0
    assert segmentation.grad is None
    assert logits.grad is None


def test_half_precision_stays_half():
    segmentation = torch.randn(1, 2, 8, 8).half()
    assert LateFusion(1)(segmentation, torch.randn(1, 1, 2, 2)).dtype == torch.float16


def test_the_finest_output_is_fused_in_evaluation_mode(tiny_encoder):
    network = build(plans(guide_section(tiny_encoder("dinov3"))))
    patch = torch.randn(1, CHANNELS, 32, 48)
    plain = network.eval()(patch)
    torch.nn.init.ones_(network.late_fusion.weight)
    torch.testing.assert_close(network.train()(patch), plain)
    finest, coarser, logits = network.eval()(patch)
    assert torch.equal(finest, network.late_fusion(plain[0], logits))
    assert not torch.equal(finest, plain[0])
    assert torch.equal(coarser, plain[1])
    network.returns_guides = False
    torch.testing.assert_close(network(patch), [finest, coarser], rtol=0, atol=0)
    network.decoder.deep_supervision = False
    assert torch.equal(network(patch), finest)


def test_without_late_fusion_the_network_has_no_such_weight(tiny_encoder):
    network = build(plans(guide_section(tiny_encoder("dinov3"), late_fusion=False)))
    assert network.late_fusion is None
    regions = build(plans(guide_section(tiny_encoder("dinov3"), classes=CLASSES)))  # two regions and one guide
    assert regions.late_fusion is None


@pytest.mark.parametrize("late_fusion", [True, False])
def test_models_of_0_2_0_dev0_keep_their_one_weight(tiny_encoder, late_fusion):
    section = guide_section(tiny_encoder("dinov3"), late_fusion=late_fusion)
    network = build(plans(section), deep_supervision=False)
    state = {name: weight for name, weight in network.state_dict().items() if not name.startswith("late_fusion.")}
    network.load_state_dict({**state, "late_fusion.weight": torch.tensor(0.5 if late_fusion else 0.0)})
    if late_fusion:
        segmentation, logits = torch.randn(1, CLASSES, 8, 8), torch.randn(1, 1, 2, 2)
        added = network.late_fusion(segmentation, logits)[:, 1] - segmentation[:, 1]
        torch.testing.assert_close(added, 0.5 * guide_at(logits, (8, 8))[:, 0])
