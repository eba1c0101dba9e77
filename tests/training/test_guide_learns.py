"""The guide learns under nnU-Net's optimizer. An untrained guide looks harmless and is worse than none."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nnunetv2_guidino.lab.probe import probing as measure
from nnunetv2_guidino.lab.probe.probing import guide_dice, train_tokenbook
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.model.guide.tokenbook import TokenBook
from nnunetv2_guidino.model.losses.target import Annotation

SIZE, STEPS = 128, 320


def read_cases(folder: Path, names: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return z-scored images (N, 3, 128, 128) and masks (N, 1, 128, 128)."""
    images, masks = [], []
    for name in names:
        stem = Path(name).stem
        image = Image.open(next((folder / "images").glob(f"{stem}.*"))).convert("RGB").resize((SIZE, SIZE))
        mask = Image.open(next((folder / "masks").glob(f"{stem}.*"))).convert("L").resize((SIZE, SIZE))
        pixels = np.asarray(image, dtype=np.float32)
        images.append((pixels - pixels.mean((0, 1))) / pixels.std((0, 1)))
        masks.append(np.asarray(mask) > 127)
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(masks))[:, None]


@pytest.fixture(scope="module")
def tokens_and_masks(real_data, dinov2_small):
    folder = real_data("kvasir-seg-352")
    split = json.loads((folder / "split.json").read_text())
    encoder = TokenEncoder(read_encoder_config(dinov2_small, None), None, ["ZScoreNormalization"] * 3, 256)
    encoder.load_pretrained(dinov2_small, "dinov2-small")
    parts = {}
    for part in ("train", "val"):
        images, masks = read_cases(folder, split[part])
        parts[part] = encoder(images), Annotation(masks, torch.ones_like(masks))
    return parts


def learned_dice(readout: str, seed: int, tokens_and_masks) -> float:
    torch.manual_seed(seed)
    book = TokenBook(384, 256, "cosine", readout)
    train_tokenbook(book, *tokens_and_masks["train"], STEPS)
    dice = guide_dice(book, *tokens_and_masks["val"])
    print(f"guide Dice {dice:.3f}")
    return dice


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_logistic_guide_finds_polyps_within_320_steps(seed, tokens_and_masks):
    assert learned_dice("logistic", seed, tokens_and_masks) >= 0.70


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_affine_guide_of_the_reference_code_stays_flat(seed, tokens_and_masks, monkeypatch):
    """Train with the paper's loss of the guide alone; the result is why "logistic" is the default."""
    monkeypatch.setattr(measure, "guide_dice_loss", lambda *_: 0)
    assert learned_dice("affine", seed, tokens_and_masks) < 0.05
