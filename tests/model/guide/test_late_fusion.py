import pytest
import torch
from guided_networks import build, guide_section
from planned import CHANNELS, CLASSES, plans

from nnunetv2_guidino.model.guide.gates import guide_at
from nnunetv2_guidino.model.guide.late_fusion import LAST_STEPS, LateFusion, PixelSamples, can_fuse


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


def fitted(network, guide, masks, valid=None):
    """Fit weight and bias to whole images: logits (heads, n) and (G, n), masks (K, n)."""
    samples = PixelSamples()
    valid = torch.ones_like(masks[:1]) if valid is None else valid
    for _ in range(LAST_STEPS):
        samples.add(*(tensor[None, ..., None] for tensor in (network, guide, masks, valid)))
    return samples.fit()


@pytest.mark.parametrize(
    ("share", "alone", "sum_of_both", "with_one_prior"), [(0.02, 0.27, 0.16, 0.5), (0.5, 0.84, 0.92, 0.92)]
)
def test_two_calibrated_observers_share_one_prior(share, alone, sum_of_both, with_one_prior):
    torch.manual_seed(0)
    truth = torch.rand(200_000) < share
    prior = torch.tensor(share).logit()
    # A normal observation around ±1 has the log-likelihood ratio 2x, so that both logits are calibrated.
    network, guide = (2 * (torch.randn(len(truth)) + 2 * truth - 1) + prior for _ in range(2))
    weight, bias = fitted(network[None], guide[None], truth[None])
    assert 0.5 < weight < 1.1
    assert abs(bias) <= abs(prior) + 0.1
    assert bias * prior <= 0.01
    assert _dice(network > 0, truth) == pytest.approx(alone, abs=0.02)
    assert _dice(network + guide > 0, truth) == pytest.approx(sum_of_both, abs=0.02)
    assert _dice(network + weight * guide + bias > 0, truth) == pytest.approx(with_one_prior, abs=0.03)


def test_a_guide_of_noise_adds_nothing():
    torch.manual_seed(0)
    truth = torch.rand(200_000) < 0.2
    network = 2 * (torch.randn(len(truth)) + 2 * truth - 1) + torch.tensor(0.2).logit()
    weight, bias = fitted(network[None], torch.randn(1, len(truth)), truth[None])
    assert abs(weight) < 0.05
    assert abs(bias) < 0.5


def test_a_network_that_separates_its_training_patches_takes_little():
    """Without a penalty, weight and bias would run off."""
    truth = torch.arange(4096) < 1000
    network, guide = 20.0 * truth - 10, 8.0 * truth - 4
    weight, bias = fitted(network[None], guide[None], truth[None])
    assert abs(weight) < 0.1
    assert abs(bias) < 0.1


def test_each_class_has_its_own_weight_and_ignored_pixels_none():
    torch.manual_seed(0)
    labels = torch.randint(0, 3, (200_000,))
    masks = torch.stack([labels == 1, labels == 2])
    network = torch.randn(3, len(labels)) + 2 * torch.nn.functional.one_hot(labels, 3).T
    guides = torch.randn(2, len(labels)) + torch.stack([4.0 * masks[0], 0.0 * masks[1]])
    valid = torch.rand(1, len(labels)) < 0.5
    guides[0] = torch.where(valid[0], guides[0], -guides[0])
    (first, second), _ = fitted(network, guides, masks & valid, valid)
    assert first > 0.5
    assert abs(second) < 0.1


def test_pixels_are_forgotten_after_a_fit_and_drawn_alike_in_each_epoch():
    segmentation, logits = torch.randn(2, 2, 16, 16), torch.randn(2, 1, 4, 4)
    masks = torch.rand(2, 1, 16, 16) < 0.5
    samples, state = PixelSamples(), torch.get_rng_state()
    values = []
    for _ in range(2):
        samples.add(segmentation, logits, masks, torch.ones_like(masks))
        values.append(torch.stack(samples.fit()))
    assert torch.equal(*values)
    assert samples.fit() is None
    assert torch.equal(torch.get_rng_state(), state)  # the training draws what it would draw without late fusion


def _dice(prediction, truth):
    return (2 * (prediction & truth).sum() / (prediction.sum() + truth.sum())).item()


def test_a_new_fusion_leaves_the_segmentation_as_it_is_bit_by_bit():
    segmentation = torch.randn(1, 3, 8, 8)
    assert torch.equal(LateFusion(2)(segmentation, 100 * torch.randn(1, 1, 2, 2)), segmentation)


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


@pytest.mark.parametrize("usable", [0, 1000])
def test_pixels_of_a_step_that_overflowed_or_of_no_annotation_do_not_count(usable):
    torch.manual_seed(0)
    truth = torch.rand(2000) < 0.5
    network, guide = (2 * (torch.randn(len(truth)) + 2 * truth - 1) for _ in range(2))
    network[usable::2], guide[usable + 1 :: 2] = torch.inf, torch.nan
    values = fitted(network[None], guide[None], truth[None])
    assert (values is None) == (usable == 0)
    assert values is None or all(value.isfinite().all() and value.abs().sum() > 0 for value in values)
    assert fitted(network[None], guide[None], truth[None], torch.zeros_like(truth)[None]) is None
