import pytest
import torch
from torch import nn

from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder

SCHEMES = ("ZScoreNormalization",) * 4  # which pass a learned convolution


@pytest.fixture
def encoder(tiny_encoder):
    """A pretrained one, to predict."""
    folder = tiny_encoder("dinov3")
    encoder = TokenEncoder(read_encoder_config(folder, None), None, SCHEMES, 64, merge_lora=True)
    encoder.load_pretrained(folder, "tiny")
    return encoder


@torch.no_grad()
def tokens_of_folds(encoder, folds, images):
    """Each fold's tokens of the images, and how many of them it had to encode."""
    encoded = []
    hook = encoder.vit.register_forward_pre_hook(lambda vit, args, options: encoded.append(1), with_kwargs=True)
    tokens, counts = [], []
    for weights in folds:
        encoder.load_state_dict(weights)
        encoded.clear()
        tokens.append([encoder(image) for image in images])
        counts.append(len(encoded))
    hook.remove()
    return tokens, counts


def copy(weights):
    return {name: tensor.clone() for name, tensor in weights.items()}


def test_another_convolution_makes_other_tokens(encoder):
    first = copy(encoder.state_dict())
    second = copy(first)
    nn.init.normal_(second["to_rgb.weight"])
    images = [torch.randn(1, 4, 32, 32) for _ in range(3)]
    tokens, counts = tokens_of_folds(encoder, [first, first, second, second, second], images)
    assert counts == [3, 2, 3, 0, 0]
    for of_first, of_second in zip(tokens[1], tokens[2], strict=True):
        assert not torch.equal(of_first, of_second)


def test_other_images_and_other_orders_get_tokens_of_their_own(encoder):
    weights = copy(encoder.state_dict())
    images = [torch.randn(1, 4, 32, 32) for _ in range(3)]
    tokens_of_folds(encoder, [weights] * 3, images)
    nearly = images[0].clone()
    nearly[0, 0, 0, 0] += 1e-6
    for others in ([nearly, *images[1:]], images[::-1], images[1:], [images[0], images[2], images[1]]):
        (tokens,), _ = tokens_of_folds(encoder, [weights], others)
        encoder.memory.forget()
        (expected,), (count,) = tokens_of_folds(encoder, [weights], others)
        assert count == len(others)
        assert all(map(torch.equal, tokens, expected))
        tokens_of_folds(encoder, [weights] * 3, images)


def test_an_image_that_is_written_over_is_another(encoder):
    weights = copy(encoder.state_dict())
    image = torch.randn(1, 4, 32, 32)
    (before, again), _ = tokens_of_folds(encoder, [weights] * 2, [image])
    assert torch.equal(before[0], again[0])
    image.normal_()
    (after,), _ = tokens_of_folds(encoder, [weights], [image])
    assert not torch.equal(before[0], after[0])


def test_gradients_and_compiled_graphs_take_nothing_from_it(encoder):
    weights = copy(encoder.state_dict())
    image = torch.randn(1, 4, 32, 32)
    tokens_of_folds(encoder, [weights] * 2, [image])
    encoder.load_state_dict(weights)
    encoder(image).sum().backward()
    assert encoder.to_rgb.weight.grad.abs().sum() > 0
    with torch.no_grad():
        explanation = torch._dynamo.explain(encoder)(image)
    assert explanation.graph_break_count == 0, explanation.break_reasons
