"""The encoder in bfloat16, which any CPU can emulate, and in float32."""

import copy
from functools import partial

import pytest
import torch
from tiny_encoders import FAMILIES
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.model.encoders import precision, token_encoder
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder


@pytest.fixture
def bfloat16(monkeypatch):
    """Switch it on or off."""
    return lambda on: monkeypatch.setattr(precision, "has_bfloat16", lambda device: on)


def load(folder, lora=None, channels=3) -> TokenEncoder:
    encoder = TokenEncoder(read_encoder_config(folder, None), None, ("ZScoreNormalization",) * channels, 64, lora)
    encoder.load_pretrained(folder, "tiny")
    return encoder


@pytest.mark.parametrize("family", FAMILIES)
def test_matrices_are_multiplied_in_bfloat16_and_tokens_stay_close(family, tiny_encoder, bfloat16):
    encoder = load(tiny_encoder(family)).train()
    formats = set()
    for module in encoder.vit.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, args, output: formats.add(output.dtype))
    image = torch.randn(2, 3, 64, 80)
    bfloat16(False)
    expected = encoder(image)
    assert formats == {torch.float32}
    formats.clear()
    bfloat16(True)
    tokens = encoder(image)
    assert formats == {torch.bfloat16}
    assert tokens.dtype == torch.float32
    torch.testing.assert_close(tokens, expected, rtol=0, atol=0.05)
    assert not torch.equal(tokens, expected)
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert torch.equal(encoder.eval()(image), expected)  # a CPU predicts in float32


@pytest.mark.parametrize(
    ("capability", "fits", "expected"),
    [((8, 0), True, torch.bfloat16), ((7, 5), True, torch.float16), ((7, 5), False, torch.float32)],
)
def test_a_gpu_without_bfloat16_multiplies_in_float16_what_fits(capability, fits, expected, monkeypatch):
    monkeypatch.undo()  # the tests' own answer
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: capability)
    monkeypatch.setattr("torch.autocast", lambda device, dtype, enabled: dtype if enabled else torch.float32)
    for training in (True, False):
        assert precision.native_precision(torch.device("cuda"), training, fits) == expected


@pytest.mark.parametrize("family", FAMILIES)
def test_float16_products_leave_the_residual_stream_in_float32(family, tiny_encoder, monkeypatch):
    encoder = load(tiny_encoder(family)).train()
    assert encoder.fits_float16
    expected = encoder(image := torch.randn(2, 3, 64, 80))
    in_float16 = torch.autocast("cpu", dtype=torch.float16)  # a CPU can, but would not
    monkeypatch.setattr("nnunetv2_guidino.model.encoders.token_encoder.native_precision", lambda *_: in_float16)
    products, stream = set(), set()
    for module in encoder.vit.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(lambda module, args, output: products.add(output.dtype))
    for block in encoder.family.blocks(encoder.vit):
        block.register_forward_pre_hook(lambda module, args: stream.add(args[0].dtype))
    torch.testing.assert_close(encoder(image), expected, rtol=0, atol=0.01)
    assert (products, stream) == ({torch.float16}, {torch.float32})


def test_activations_near_float16_s_end_do_not_fit(tiny_encoder, tmp_path):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_encoder("dinov3"))
    with torch.no_grad():
        next(m for name, m in model.named_modules() if name.endswith("up_proj")).bias += 10_000
    model.save_pretrained(tmp_path)
    encoder = TokenEncoder(read_encoder_config(tmp_path, None), None, ("ZScoreNormalization",) * 3, 64)
    assert encoder.load_pretrained(tmp_path, "tiny").largest_activation == pytest.approx(10_000, rel=0.01)
    assert not encoder.fits_float16


def test_a_trained_encoder_does_not_fit_whose_activations_training_moves(tiny_encoder):
    folder = tiny_encoder("dinov3")
    schemes = ("ZScoreNormalization",) * 3
    for trainable in (False, True):
        encoder = TokenEncoder(read_encoder_config(folder, None), None, schemes, 64, trainable=trainable)
        encoder.load_pretrained(folder, "tiny")
        assert encoder.fits_float16 != trainable


def test_a_product_without_a_call_of_its_layer_is_measured(tiny_encoder, tmp_path):
    from transformers import AutoModel

    model = AutoModel.from_pretrained(tiny_encoder("timm_eva"))
    with torch.no_grad():
        next(p for name, p in model.named_parameters() if name.endswith("attn.q_bias")).add_(1e5)
    model.save_pretrained(tmp_path)
    encoder = load(tmp_path)
    with torch.autocast("cpu", torch.float16):
        assert not encoder.vit(pixel_values=torch.randn(1, 3, 56, 56)).last_hidden_state.isfinite().all()
    assert not encoder.fits_float16


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("on", [False, True])
def test_what_overflows_in_nnunet_s_float16_is_finite(on, channels, tiny_encoder, bfloat16):
    encoder = load(tiny_encoder("dinov3"), channels=channels).train()
    with torch.no_grad():
        encoder.family.blocks(encoder.vit)[0].mlp.up_proj.bias += 1e6  # as some channels of the large ones
    image = torch.randn(1, channels, 64, 64)
    bfloat16(on)
    with torch.autocast("cpu", dtype=torch.float16):
        assert not encoder.vit(pixel_values=image[:, :3]).last_hidden_state.isfinite().all()
        assert encoder(image).isfinite().all()


def test_adapters_are_trained_in_float32(tiny_encoder, bfloat16):
    encoder = load(tiny_encoder("dinov3"), LoRA(dropout=0)).train()
    for name, parameter in encoder.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    image = torch.randn(2, 3, 64, 64)
    gradients = []
    for on in (False, True):
        bfloat16(on)
        encoder.zero_grad()
        encoder(image).square().mean().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.requires_grad])
    for expected, gradient in zip(*gradients, strict=True):
        assert gradient.dtype == torch.float32
        assert (gradient - expected).norm() < 0.05 * expected.norm()


def test_torch_compile_asks_once_for_the_format(tiny_encoder, monkeypatch):
    monkeypatch.undo()  # the tests' own answer
    explanation = torch._dynamo.explain(load(tiny_encoder("dinov3")))(torch.randn(1, 3, 64, 64))
    assert explanation.graph_break_count == 0, explanation.break_reasons


# To predict on CUDA, in bfloat16


@pytest.fixture
def predicts_in_bfloat16(monkeypatch):
    """Also on the CPU."""
    in_bfloat16 = partial(torch.autocast, "cpu", dtype=torch.bfloat16)
    monkeypatch.setattr(token_encoder, "native_precision", lambda device, training, fits_float16: in_bfloat16())


def predicting(folder, **settings) -> TokenEncoder:
    layer = settings.pop("layer", None)
    architecture = read_encoder_config(folder, layer)
    return TokenEncoder(architecture, layer, ["ZScoreNormalization"] * 3, 64, merge_lora=True, **settings).eval()


class Casts(TorchDispatchMode):
    """How often a weight of a linear layer was cast."""

    def __init__(self, module):
        super().__init__()
        linear = (layer for layer in module.modules() if isinstance(layer, nn.Linear))
        self.storages = {parameter.data_ptr() for layer in linear for parameter in layer.parameters()}
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._to_copy.default and args[0].data_ptr() in self.storages
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layer", [None, [1, 3]])
@pytest.mark.parametrize("family", [*FAMILIES, "timm_eva"])
def test_weights_are_cast_once_to_the_bits_of_autocast(family, layer, tiny_encoder, predicts_in_bfloat16):
    folder = tiny_encoder(family)
    encoder = predicting(folder, layer=layer)
    encoder.load_pretrained(folder, "tiny")
    images = torch.randn(3, 2, 3, 64, 80)
    with torch.inference_mode():
        tokens, casts = [], []
        for image in images:
            with Casts(encoder) as counted:
                tokens.append(encoder(image))
            casts.append(counted.count)
        encoder.memory.forget()
        encoder.cast_weights = None
        assert all(torch.equal(ours, encoder(image)) for ours, image in zip(tokens, images, strict=True))
    assert casts[0] > 0 == casts[1] == casts[2]


def test_cast_weights_follow_the_weights_and_stay_out_of_checkpoints(tiny_encoder, predicts_in_bfloat16):
    encoder, image = predicting(tiny_encoder("dinov3")), torch.randn(1, 3, 64, 64)
    folds = []
    for seed in range(3):
        torch.manual_seed(seed)
        folds.append(predicting(tiny_encoder("dinov3")).state_dict())

    def expected(state) -> torch.Tensor:
        other = predicting(tiny_encoder("dinov3"))
        other.load_state_dict(state)
        other.cast_weights = None
        return other(image)

    with torch.inference_mode():
        for state in (*folds, folds[0]):
            encoder.load_state_dict(state)
            assert torch.equal(encoder(image), expected(state))
            stored = encoder.state_dict()
            assert stored.keys() == state.keys()
            assert all(torch.equal(stored[name], tensor) for name, tensor in state.items())
        copied = copy.deepcopy(encoder)
        copied.load_state_dict(folds[1])
        assert torch.equal(copied(image), expected(folds[1]))
        assert torch.equal(encoder(image), expected(folds[0]))
    assert {parameter.dtype for parameter in encoder.parameters()} == {torch.float32}
    assert encoder.cast_weights._places[0][0] is not copied.cast_weights._places[0][0]


def test_what_fails_within_a_pass_leaves_the_weights(tiny_encoder, predicts_in_bfloat16):
    encoder = predicting(tiny_encoder("dinov3"))
    weights = [id(parameter) for parameter in encoder.parameters()]
    encoder.vit.register_forward_pre_hook(lambda vit, args: 1 / 0)
    with torch.no_grad(), pytest.raises(ZeroDivisionError):
        encoder(torch.randn(1, 3, 64, 64))
    assert [id(parameter) for parameter in encoder.parameters()] == weights
