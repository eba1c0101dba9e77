"""Parameters and work of each architecture at its paper's size, against what was published or counted there."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DINOv3ViTConfig

from nnunetv2_guidino.architectures.h2former import H2Former
from nnunetv2_guidino.architectures.nnwnet import NNWNet
from nnunetv2_guidino.architectures.seg_guidino import SegGuiDINO
from nnunetv2_guidino.architectures.segdino import SegDINO
from nnunetv2_guidino.architectures.swin_unet import SwinUnet
from nnunetv2_guidino.architectures.ukan import UKAN

ONE_OUTPUT = [[1, 1]] * 3


def levels(dimensions, count=5):
    return [[1] * dimensions] + [[2] * dimensions] * (count - 1)


def on_tokens(architecture, width, **settings):
    """On a transformer of that width, as ViT-S, B and L have it."""
    config = DINOv3ViTConfig(hidden_size=width, num_attention_heads=width // 64, intermediate_size=4 * width)
    schemes = ["ZScoreNormalization"] * 3
    return architecture(3, 1, False, ONE_OUTPUT, {**config.to_dict()}, schemes, **settings)


@pytest.mark.parametrize(
    ("build", "millions"),
    [
        (lambda: NNWNet(3, 1, False, levels(2)), 7.04),
        (lambda: NNWNet(3, 1, False, levels(2), widths=[32, 64, 128, 256, 512]), 28.1),
        # The published one has a head at its coarsest level too, of 642 weights, which nnU-Net's loss leaves out.
        (lambda: NNWNet(1, 2, False, levels(3)), 53.2),
        (lambda: SwinUnet(3, 9, False, ONE_OUTPUT), 27.17),
        (lambda: UKAN(3, 1, False, ONE_OUTPUT), 6.356689),
        (lambda: UKAN(3, 1, False, ONE_OUTPUT, widths=[256, 320, 512]), 25.36),
        # Three layers of 10 d² at each of four places become d² + d: of this there is no published figure.
        (
            lambda: UKAN(3, 1, False, ONE_OUTPUT, kan=False),
            6.356689 - 3 * sum(9 * d**2 - d for d in (160, 256, 160, 128)) / 1e6,
        ),
        (lambda: H2Former(4, 1, False, ONE_OUTPUT, window=[16, 16]), 33.70),
        (lambda: H2Former(4, 1, False, ONE_OUTPUT, window=[32, 32]), 33.88),
    ],
)
def test_parameters_are_as_published(build, millions):
    with torch.device("meta"):
        network = build()
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, rel=0.003)


@pytest.mark.parametrize(
    ("architecture", "width", "settings", "millions"),
    [
        (SegDINO, 384, {"head": "published"}, 2.214),
        (SegDINO, 384, {}, 2.476),
        (SegDINO, 768, {}, 3.03),
        (SegDINO, 1024, {}, 3.40),
        # Counted with the guide's 256 prototypes and its d × d projection, which are GuidedNetwork's here.
        (SegGuiDINO, 384, {"layers": [12]}, 1.72 - (256 * 384 + 384**2) / 1e6),
        (SegGuiDINO, 768, {"layers": [12]}, 3.15 - (256 * 768 + 768**2) / 1e6),
        (SegGuiDINO, 1024, {"layers": [12]}, 4.26 - (256 * 1024 + 1024**2) / 1e6),
    ],
)
def test_what_is_trained_beside_the_transformer_is_as_published(architecture, width, settings, millions):
    with torch.device("meta"):
        network = on_tokens(architecture, width, **settings)
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    assert trained / 1e6 == pytest.approx(millions, rel=0.003)


def test_nnwnet_s_work_is_as_counted_there():
    """21.0 GFLOP at 256²: what is wired at which level agrees, not only how much of it there is."""
    with torch.device("meta"):
        network = NNWNet(3, 1, False, levels(2))
        patch = torch.empty(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter:
        network(patch)
    assert counter.get_total_flops() / 1e9 == pytest.approx(21.0, rel=0.01)
