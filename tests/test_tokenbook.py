import numpy as np
import pytest
import torch

from nnunetv2_guidino.tokenbook import TokenBook


def numpy_tokenbook(book: TokenBook, tokens: np.ndarray) -> np.ndarray:
    """Equation (1), token by token and prototype by prototype."""
    value = {name: parameter.detach().double().numpy() for name, parameter in book.named_parameters()}
    alpha = np.exp(value["weight_logits"]) / np.exp(value["weight_logits"]).sum()
    b, c, h, w = tokens.shape
    guide = np.zeros((b, 1, h, w))
    for i, y, x in np.ndindex(b, h, w):
        token = value["projection.weight"][:, :, 0, 0] @ tokens[i, :, y, x] + value["projection.bias"]
        s = 0.0
        for weight, prototype in zip(alpha, value["prototypes"], strict=True):
            dot = token @ prototype
            cosine = dot / (np.linalg.norm(token) * np.linalg.norm(prototype))
            s += weight * (cosine if book.similarity == "cosine" else dot / np.sqrt(c))
        logit = value["scale"] * s + value["offset"] if book.readout == "logistic" else None
        guide[i, 0, y, x] = 0.5 + 0.5 * s if logit is None else 1 / (1 + np.exp(-logit))
    return guide


@pytest.mark.parametrize(("similarity", "readout"), [("cosine", "logistic"), ("cosine", "affine"), ("dot", "logistic")])
def test_equals_equation_1(similarity, readout):
    torch.manual_seed(0)
    book = TokenBook(channels=6, prototypes=5, similarity=similarity, readout=readout)
    torch.nn.init.normal_(book.weight_logits)
    tokens = torch.randn(2, 6, 3, 4)
    guide = book(tokens)
    np.testing.assert_allclose(guide.detach().numpy(), numpy_tokenbook(book, tokens.double().numpy()), atol=1e-5)
    assert guide.shape == (2, 1, 3, 4)
    assert guide.min() >= 0
    assert guide.max() <= 1


def test_weights_are_a_distribution_that_starts_uniform():
    book = TokenBook(8, 16, "cosine", "logistic")
    torch.testing.assert_close(book.weights, torch.full((16,), 1 / 16))
    torch.nn.init.normal_(book.weight_logits, std=5)
    assert (book.weights >= 0).all()
    torch.testing.assert_close(book.weights.sum(), torch.tensor(1.0))


def test_logistic_readout_starts_with_a_spread_that_does_not_depend_on_the_number_of_prototypes():
    torch.manual_seed(0)
    spreads = []
    for prototypes in (16, 1024):
        guide = TokenBook(64, prototypes, "cosine", "logistic")(torch.randn(4, 64, 16, 16))
        spreads.append(guide.std().item())
    assert spreads[0] == pytest.approx(spreads[1], rel=0.5)
    assert min(spreads) > 0.1
