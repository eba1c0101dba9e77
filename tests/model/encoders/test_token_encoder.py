import pytest
import timm
import torch
from safetensors.torch import load_file
from tiny_encoders import CONFIGS, DEPTH, FAMILIES, PATCH, WIDTH
from torch import nn
from transformers import AutoModel

from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.model.encoders import token_encoder
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.token_encoder import IMAGENET_MEAN, IMAGENET_STD, TokenEncoder

ZSCORE = "ZScoreNormalization"
RGB_UNIT = "RGBTo01Normalization"


def load(folder, layer=None, schemes=(ZSCORE,) * 3, min_input_size=64, max_input_size=None) -> TokenEncoder:
    architecture = read_encoder_config(folder, layer)
    encoder = TokenEncoder(architecture, layer, schemes, min_input_size, max_input_size=max_input_size)
    encoder.load_pretrained(folder, "tiny")
    return encoder


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_shapes_gradients_and_modes(family, channels, tiny_encoder):
    encoder = load(tiny_encoder(family), schemes=(ZSCORE,) * channels)
    encoder.train()
    tokens = encoder(torch.randn(2, channels, 50, 75))
    rows, columns = (side // PATCH[family] for side in encoder.input_size(50, 75))
    assert tokens.shape == (2, WIDTH, rows, columns)
    assert not any(module.training for module in encoder.vit.modules())
    assert not any(parameter.requires_grad for parameter in encoder.vit.parameters())
    assert tokens.requires_grad == (channels == 4)  # only the learned convolution can learn
    if channels == 4:
        tokens.sum().backward()
        assert encoder.to_rgb.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_train_and_eval_mode_give_equal_tokens(family, tiny_encoder):
    encoder = load(tiny_encoder(family))
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(encoder.train()(image), encoder.eval()(image), rtol=0, atol=0)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_are_those_of_the_library(family, tiny_encoder):
    folder = tiny_encoder(family)
    patch = PATCH[family]
    image = torch.randn(1, 3, 4 * patch, 5 * patch)
    if family.startswith("timm"):
        config = CONFIGS[family]
        reference = timm.create_model(config.architecture, num_classes=0, dynamic_img_size=True, **config.model_args)
        weights = load_file(folder / "model.safetensors")
        reference.load_state_dict({key.removeprefix("timm_model."): value for key, value in weights.items()})
        expected = reference.eval().forward_features(image)
    else:
        options = {"interpolate_pos_encoding": True} if family == "vit" else {}
        expected = AutoModel.from_pretrained(folder).eval()(pixel_values=image, **options).last_hidden_state
    expected = expected[:, -20:]
    tokens = load(folder, min_input_size=patch)(image)
    torch.testing.assert_close(tokens.flatten(2).transpose(1, 2), expected)


class PositionViT(nn.Module):
    """Prefix tokens of -1, then patch tokens that hold their own row and column."""

    def __init__(self, patch: int, prefix: int):
        super().__init__()
        self.patch, self.prefix = patch, prefix

    def forward(self, pixel_values):
        b, _, height, width = pixel_values.shape
        rows, columns = height // self.patch, width // self.patch
        grid = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1)
        tokens = grid.reshape(1, -1, 2).float().expand(b, -1, -1)
        prefix = torch.full((b, self.prefix, 2), -1.0)
        return type("Output", (), {"last_hidden_state": torch.cat((prefix, tokens), 1)})


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_token_grid_keeps_every_token_in_its_place(prefix, tiny_encoder):
    encoder = load(tiny_encoder("dinov3"), min_input_size=32)
    encoder.vit = PositionViT(16, prefix)
    tokens = encoder(torch.randn(2, 3, 64, 96))
    assert tokens.shape == (2, 2, 4, 6)
    rows, columns = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    assert (tokens[1, 0] == rows).all()
    assert (tokens[1, 1] == columns).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_layer_passes_the_final_norm(family, tiny_encoder):
    folder = tiny_encoder(family)
    full, cut = load(folder), load(folder, layer=2)
    assert sum(p.numel() for p in cut.parameters()) < sum(p.numel() for p in full.parameters())
    image = torch.randn(1, 3, 64, 64)
    assert not torch.equal(full(image), cut(image))
    # the final norm starts as the identity, so each token comes out with zero mean and unit variance
    torch.testing.assert_close(cut(image).mean(1), torch.zeros(1, *cut(image).shape[2:]), atol=1e-5, rtol=0)
    assert torch.equal(load(folder, layer=DEPTH)(image), full(image))


@pytest.mark.parametrize("family", FAMILIES)
def test_several_layers_are_concatenated(family, tiny_encoder):
    folder = tiny_encoder(family)
    image = torch.randn(2, 3, 64, 64)
    several = load(folder, layer=[1, 2])
    assert several.channels == 2 * WIDTH
    expected = torch.cat([load(folder, layer=number)(image) for number in (1, 2)], dim=1)
    for _ in range(2):  # nothing is left over from the last pass
        torch.testing.assert_close(several(image), expected)
    explanation = torch._dynamo.explain(several)(image)
    assert explanation.graph_break_count == 0, explanation.break_reasons


@pytest.mark.parametrize("lora", [None, LoRA(dropout=0)], ids=["frozen", "LoRA"])
@pytest.mark.parametrize("layer", [None, [1, 3]])
def test_large_batch_is_encoded_in_parts(layer, lora, tiny_encoder, monkeypatch):
    folder = tiny_encoder("dinov3")
    encoder = TokenEncoder(read_encoder_config(folder, layer), layer, (ZSCORE,), 64, lora).train()
    if lora:
        for name, parameter in encoder.named_parameters():
            if "lora_" in name:
                nn.init.normal_(parameter, std=0.1)
    parts = []
    encoder.vit.register_forward_pre_hook(
        lambda vit, args, options: parts.append(len(options["pixel_values"])), with_kwargs=True
    )
    slices = torch.randn(5, 1, 64, 64)

    def gradients() -> list[torch.Tensor]:
        encoder.zero_grad()
        encoder(slices).square().mean().backward()
        return [p.grad for p in encoder.parameters() if p.requires_grad]

    whole, expected = encoder(slices), gradients() if lora else []
    limit = "TOKENS_WITHOUT_GRADIENT" if lora is None else "TOKENS_AT_ONCE"
    monkeypatch.setattr(token_encoder, limit, 2 * 16 + 1)  # two images of 4×4 tokens
    parts.clear()
    torch.testing.assert_close(encoder(slices), whole)
    assert parts == [2, 2, 1]
    if lora:
        for gradient, other in zip(gradients(), expected, strict=True):
            torch.testing.assert_close(gradient, other)
        again = 0 if layer else 3  # in the backward pass
        assert len(parts) == 3 + 3 + again


@pytest.mark.parametrize(
    ("patch", "size", "minimum", "expected"),
    [
        (14, (128, 128), 256, (252, 252)),
        (16, (128, 128), 256, (256, 256)),
        (16, (512, 768), 256, (512, 768)),
        (14, (100, 200), 256, (252, 518)),
        (16, (300, 257), 256, (304, 256)),
        (16, (7, 7), 1, (16, 16)),
    ],
)
def test_input_size(patch, size, minimum, expected, tiny_encoder):
    family = "dinov2" if patch == 14 else "dinov3"
    assert load(tiny_encoder(family), min_input_size=minimum).input_size(*size) == expected


@pytest.mark.parametrize(
    ("patch", "size", "minimum", "maximum", "expected"),
    [
        (14, (128, 128), 256, 384, (252, 252)),
        (16, (256, 256), 256, 384, (256, 256)),
        (16, (384, 384), 256, 384, (384, 384)),
        (16, (512, 512), 256, 384, (384, 384)),
        (16, (512, 768), 256, 384, (320, 464)),  # its area, and nearly its shape
        (16, (20, 512), 256, 384, (80, 1936)),  # 16 times as many tokens without a limit
        (16, (1, 4096), 256, 384, (16, 24576)),
        (16, (512, 512), 512, 384, (512, 512)),  # the larger of the two
        (16, (512, 768), 512, 384, (416, 624)),
    ],
)
def test_the_largest_input_size(patch, size, minimum, maximum, expected, tiny_encoder):
    family = "dinov2" if patch == 14 else "dinov3"
    encoder = load(tiny_encoder(family), min_input_size=minimum, max_input_size=maximum)
    assert encoder.input_size(*size) == expected


def test_below_the_largest_input_size_nothing_changes(tiny_encoder):
    folder = tiny_encoder("dinov2")
    capped, uncapped = load(folder, max_input_size=128), load(folder)
    for size in [(32, 48), (50, 75), (128, 128), (100, 150)]:
        image = torch.randn(2, 3, *size)
        assert torch.equal(capped(image), uncapped(image))
    assert capped(torch.randn(2, 3, 150, 150)).shape == capped(torch.randn(2, 3, 128, 128)).shape


def what_the_vit_sees(encoder: TokenEncoder, image: torch.Tensor) -> torch.Tensor:
    seen = []
    encoder.vit.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append(kwargs["pixel_values"]), with_kwargs=True
    )
    encoder(image)
    return seen[0].detach()


def test_reduced_images_are_averaged(tiny_encoder):
    stripes = (torch.arange(256) // 2 % 2).float().expand(1, 3, 256, 256)
    seen = what_the_vit_sees(load(tiny_encoder("dinov3"), max_input_size=64), stripes)
    torch.testing.assert_close(seen, torch.full_like(seen, 0.5), rtol=0, atol=0.1)


def test_normalisation_follows_the_plans(tiny_encoder):
    folder = tiny_encoder("dinov3")
    image = torch.rand(1, 3, 64, 64)
    mean, std = torch.tensor(IMAGENET_MEAN)[:, None, None], torch.tensor(IMAGENET_STD)[:, None, None]
    torch.testing.assert_close(what_the_vit_sees(load(folder), image), image)
    torch.testing.assert_close(what_the_vit_sees(load(folder, schemes=[RGB_UNIT] * 3), image), (image - mean) / std)
    grey = what_the_vit_sees(load(folder, schemes=["RescaleTo01Normalization"]), image[:, :1])
    torch.testing.assert_close(grey, (image[:, :1] - mean) / std)
    five = torch.rand(1, 5, 64, 64)
    mixed = what_the_vit_sees(load(folder, schemes=[ZSCORE] * 5), five)
    torch.testing.assert_close(mixed, five.mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_channels_behind_the_image_s_are_left_out(tiny_encoder):
    encoder = load(tiny_encoder("dinov3"), schemes=[ZSCORE])
    image = torch.randn(1, 1, 64, 64)
    with_one_hot = torch.cat((image, torch.ones(1, 2, 64, 64)), 1)
    assert torch.equal(encoder(image), encoder(with_one_hot))
