import pytest
import torch
from guided_batches import REGIONS, REGIONS_WITH_IGNORE, WITH_IGNORE, SumOfOutputs, as_target, at_tokens, guided_batch
from nnunetv2.training.loss.compound_losses import DC_and_BCE_loss, DC_and_CE_loss
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.label_handling.label_handling import LabelManager
from torch import nn

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.losses.guide_loss import guide_loss
from nnunetv2_guidino.model.losses.guided_loss import GuidedLoss
from nnunetv2_guidino.model.losses.target import read_target


@pytest.mark.parametrize(("lambda_guide", "lambda_boundary"), [(1.0, 0.1), (2.0, 0.0), (0.0, 0.5), (0.0, 0.0)])
def test_guided_loss_is_the_weighted_sum_of_its_terms(lambda_guide, lambda_boundary):
    outputs, targets = guided_batch(WITH_IGNORE, 1, 32, 32)
    loss = GuidedLoss(SumOfOutputs(), WITH_IGNORE, {"guide": lambda_guide, "boundary": lambda_boundary})
    value = loss(outputs, targets)
    terms = loss.last_terms()
    assert [f"{term}_loss" for term in loss.terms] == [name for name in terms if name.endswith("_loss")]
    assert ("guide_loss" in terms, "boundary_loss" in terms) == (bool(lambda_guide), bool(lambda_boundary))
    expected = terms["seg_loss"] + lambda_guide * terms.get("guide_loss", 0)
    expected = expected + lambda_boundary * terms.get("boundary_loss", 0)
    assert value.item() == pytest.approx(float(expected), rel=1e-5)
    assert terms["seg_loss"] == pytest.approx((outputs[0].sum() + outputs[1].sum()).item(), rel=1e-5)


def nnunet_loss(manager: LabelManager) -> nn.Module:
    """As nnUNetTrainer._build_loss does."""
    dice = {"batch_dice": True, "smooth": 1e-5, "ddp": False}
    memory_efficient = {"dice_class": MemoryEfficientSoftDiceLoss}
    if manager.has_regions:
        loss: nn.Module = DC_and_BCE_loss({}, dice, use_ignore_label=manager.has_ignore_label, **memory_efficient)
    else:
        loss = DC_and_CE_loss({**dice, "do_bg": False}, {}, ignore_label=manager.ignore_label, **memory_efficient)
    return DeepSupervisionWrapper(loss, [2 / 3, 1 / 3])


@pytest.mark.parametrize("guides", [1, 2])
@pytest.mark.parametrize("size", [(16, 24), (6, 16, 24)])
@pytest.mark.parametrize("manager", [WITH_IGNORE, REGIONS_WITH_IGNORE], ids=["labels", "regions"])
def test_ignored_pixels_count_in_no_term(manager, size, guides):
    outputs, targets = guided_batch(manager, guides, *size)
    valid = [read_target(target, manager).valid for target in targets]
    assert all(v.any() and not v.all() for v in valid)
    loss = GuidedLoss(nnunet_loss(manager), manager, {"guide": 1.0, "boundary": 0.5})
    loss(outputs, targets).backward()
    for output, v in zip(outputs, valid, strict=False):
        assert output.grad.isfinite().all()
        assert output.grad.abs().amax(1, keepdim=True)[~v].max() == 0
        assert output.grad.abs().amax(1, keepdim=True)[v].max() > 0
    assert "guide_tp" not in loss.last_terms()  # training logs no counts
    with torch.no_grad():
        loss(outputs, targets)
    counts = loss.last_terms()
    assert counts["guide_tp"] + counts["guide_fn"] == read_target(targets[0], manager).foreground.sum()


@pytest.mark.parametrize("manager", [WITH_IGNORE, REGIONS_WITH_IGNORE], ids=["labels", "regions"])
def test_nothing_but_ignored_pixels_gives_a_finite_loss_without_gradient(manager):
    outputs, targets = guided_batch(manager, 2, 16, 24)
    nothing = [as_target(torch.full((2, *target.shape[2:]), 3), manager) for target in targets]
    loss = GuidedLoss(nnunet_loss(manager), manager, {"guide": 1.0, "boundary": 0.5})(outputs, nothing)
    loss.backward()
    assert loss.isfinite()
    for output in outputs:
        assert output.grad.abs().max() == 0


def test_one_guide_means_the_foreground_and_several_mean_the_classes():
    outputs, targets = guided_batch(REGIONS, 2, 16, 16)
    masks, valid = read_target(targets[0], REGIONS)
    loss = GuidedLoss(SumOfOutputs(), REGIONS, {"guide": 1.0})
    loss(outputs, targets)
    assert loss.last_terms()["guide_loss"] == pytest.approx(at_tokens(guide_loss, outputs[2], masks, valid).item())
    outputs[2] = outputs[2][:, :1]
    loss(outputs, targets)
    union = masks.any(1, keepdim=True)
    assert loss.last_terms()["guide_loss"] == pytest.approx(at_tokens(guide_loss, outputs[2], union, valid).item())


def test_every_term_of_the_list_can_be_switched_on_alone():
    for name, term in lists.LOSS_TERMS.items():
        outputs, targets = guided_batch(WITH_IGNORE, 1, 16, 24)
        loss = GuidedLoss(SumOfOutputs(), WITH_IGNORE, {name: term.weight})
        assert loss(outputs, targets).isfinite()
        assert loss.terms == ["seg", name]


def test_an_unknown_term_is_named():
    with pytest.raises(
        GuidinoError, match="the loss term is 'gide'; expected one of guide, guide_dice, boundary; did you mean gui"
    ):
        GuidedLoss(SumOfOutputs(), WITH_IGNORE, {"gide": 1.0})


@pytest.mark.parametrize("in_a_list", [False, True])
@pytest.mark.parametrize("manager", [WITH_IGNORE, REGIONS_WITH_IGNORE], ids=["labels", "regions"])
def test_without_deep_supervision_there_is_one_output(manager, in_a_list):
    """nnU-Net's loss and target are of one output then."""
    (finest, _, guides), (target, _) = guided_batch(manager, 1, 16, 24)
    of_one = nnunet_loss(manager).loss
    loss = GuidedLoss(of_one, manager, {"guide": 1.0})
    loss([finest, guides], [target] if in_a_list else target).backward()
    assert loss.last_terms()["seg_loss"] == pytest.approx(of_one(finest, target).item())
    assert finest.grad.abs().max() > 0
    assert guides.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("weights", "outputs", "message"),
    [
        ([16 / 30, 8 / 30, 4 / 30, 2 / 30, 0], 1, r"returns 1 segmentation, but nnU-Net weighs 5 \(0.533, 0.267"),
        ([1.0, 0.0], 3, "returns 3 segmentations, but nnU-Net weighs 2 .* one entry more than the network has outputs"),
        ([float("nan")], 1, r"nnU-Net weighs 1 \(nan\)"),
    ],
)
def test_outputs_that_nnunet_would_cut_or_weigh_wrongly_are_refused(weights, outputs, message):
    (finest, _, guides), (target, _) = guided_batch(REGIONS, 1, 16, 24)
    loss = GuidedLoss(DeepSupervisionWrapper(SumOfOutputs(), weights), REGIONS, {})
    with pytest.raises(GuidinoError, match=message):
        loss([*[finest] * outputs, guides], [target] * len(weights))


@pytest.mark.parametrize("last", [0, 1e-6], ids=["one GPU", "several"])
def test_a_single_output_counts_whole_under_strides_of_three_entries(last):
    (finest, _, guides), targets = guided_batch(REGIONS, 1, 16, 24)
    of_one = nnunet_loss(REGIONS).loss
    loss = GuidedLoss(DeepSupervisionWrapper(of_one, [1 / (1 + last), last / (1 + last)]), REGIONS, {})
    assert loss([finest, guides], targets).item() == pytest.approx(of_one(finest, targets[0]).item(), rel=1e-5)
