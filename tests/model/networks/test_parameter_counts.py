"""Parameters and work of each architecture at its paper's size, against what was published or counted there."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DINOv3ViTConfig

from nnunetv2_guidino.model.networks.h2former import H2Former
from nnunetv2_guidino.model.networks.nnwnet import NNWNet
from nnunetv2_guidino.model.networks.seg_guidino import SegGuiDINO
from nnunetv2_guidino.model.networks.segdino import SegDINO, SegDINO2
from nnunetv2_guidino.model.networks.swin_unet import SwinUnet
from nnunetv2_guidino.model.networks.ukan import UKAN

ONE_OUTPUT = [[1, 1]] * 3


def levels(dimensions, count=5):
    return [[1] * dimensions] + [[2] * dimensions] * (count - 1)


def on_tokens(architecture, width, classes=1, **settings):
    """On a transformer of that width, as ViT-S, B and L have it."""
    config = DINOv3ViTConfig(hidden_size=width, num_attention_heads=width // 64, intermediate_size=4 * width)
    schemes = ["ZScoreNormalization"] * 3
    return architecture(3, classes, False, ONE_OUTPUT, {**config.to_dict()}, schemes, **settings)


def counted(build):
    with torch.device("meta"):
        network = build()
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("build", "count", "missing", "published"),
    [
        # missing: the published one's head at its coarsest level, which nnU-Net's loss leaves out
        (lambda: NNWNet(3, 1, False, levels(2)), 7_043_284, 256 + 1, "7.04"),
        (lambda: NNWNet(3, 1, False, levels(2), widths=[32, 64, 128, 256, 512]), 28_134_436, 512 + 1, "28.1"),
        (lambda: NNWNet(1, 2, False, levels(3)), 53_233_160, 2 * (320 + 1), "53.2"),
        (lambda: SwinUnet(3, 9, False, ONE_OUTPUT), 27_168_900, 0, "27.17"),
        (lambda: UKAN(3, 1, False, ONE_OUTPUT), 6_356_689, 0, "6.356689"),
        (lambda: UKAN(3, 1, False, ONE_OUTPUT, widths=[256, 320, 512]), 25_359_265, 0, "25.36"),
        (lambda: H2Former(4, 1, False, ONE_OUTPUT, window=[16, 16]), 33_698_656, 0, "33.70"),
        (lambda: H2Former(4, 1, False, ONE_OUTPUT, window=[32, 32]), 33_879_136, 0, "33.88"),
        # What is trained beside the transformer.
        (lambda: on_tokens(SegDINO, 384, head="published"), 2_213_793, 0, "2.21"),
        (lambda: on_tokens(SegDINO, 384), 2_475_937, 0, "2.48"),
        (lambda: on_tokens(SegDINO, 768), 3_028_897, 0, "3.03"),
        (lambda: on_tokens(SegDINO, 1024), 3_397_537, 0, "3.40"),
        (lambda: on_tokens(SegDINO2, 384, classes=2), 3_299_850, 0, "3.299850"),
        # missing: the guide's 256 prototypes and its d × d projection, which are GuidedNetwork's here
        (lambda: on_tokens(SegGuiDINO, 384), 1_475_841, 256 * 384 + 384**2, "1.72"),
        (lambda: on_tokens(SegGuiDINO, 768), 2_360_577, 256 * 768 + 768**2, "3.15"),
        (lambda: on_tokens(SegGuiDINO, 1024), 2_950_401, 256 * 1024 + 1024**2, "4.26"),
    ],
)
def test_parameters_are_as_published(build, count, missing, published):
    assert counted(build) == count
    digits = len(published.partition(".")[2])
    assert f"{(count + missing) / 1e6:.{digits}f}" == published


def test_without_splines_ukan_has_linear_layers():
    """At each of four places three layers of 10 d² become d² + d; there is no published figure of this."""
    fewer = 3 * sum(9 * d**2 - d for d in (160, 256, 160, 128))
    assert counted(lambda: UKAN(3, 1, False, ONE_OUTPUT, kan=False)) == 6_356_689 - fewer


def test_nnwnet_s_work_is_as_counted_there():
    """21.0 GFLOP at 256²: what is wired at which level agrees, not only how much of it there is."""
    with torch.device("meta"):
        network = NNWNet(3, 1, False, levels(2))
        patch = torch.empty(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter:
        network(patch)
    assert counter.get_total_flops() / 1e9 == pytest.approx(21.0, rel=0.01)
