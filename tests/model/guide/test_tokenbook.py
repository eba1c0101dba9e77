import numpy as np
import pytest
import torch

from nnunetv2_guidino.model.guide.tokenbook import TokenBook


def numpy_tokenbook(book: TokenBook, tokens: np.ndarray) -> np.ndarray:
    """Equation 1, token by token and prototype by prototype."""
    value = {name: parameter.detach().double().numpy() for name, parameter in book.named_parameters()}
    alpha = np.exp(value["weight_logits"])
    alpha /= alpha.sum(1, keepdims=True)
    b, c, h, w = tokens.shape
    guides = np.zeros((b, len(alpha), h, w))
    for i, g, y, x in np.ndindex(guides.shape):
        token = value["projection.weight"][:, :, 0, 0] @ tokens[i, :, y, x] + value["projection.bias"]
        s = 0.0
        for weight, prototype in zip(alpha[g], value["prototypes"][g], strict=True):
            dot = token @ prototype
            cosine = dot / (np.linalg.norm(token) * np.linalg.norm(prototype))
            s += weight * (cosine if book.similarity == "cosine" else dot / np.sqrt(c))
        logit = (value["scale"][g] * s + value["offset"][g]).item() if book.readout == "logistic" else None
        guides[i, g, y, x] = 0.5 + 0.5 * s if logit is None else 1 / (1 + np.exp(-logit))
    return guides


@pytest.mark.parametrize("guides", [1, 3])
@pytest.mark.parametrize(("similarity", "readout"), [("cosine", "logistic"), ("cosine", "affine"), ("dot", "logistic")])
def test_equals_equation_1(similarity, readout, guides):
    torch.manual_seed(0)
    book = TokenBook(6, 5, similarity, readout, guides)
    for parameter in book.parameters():
        torch.nn.init.normal_(parameter)
    tokens = torch.randn(2, 6, 3, 4)
    guide = book(tokens)
    np.testing.assert_allclose(guide.detach().numpy(), numpy_tokenbook(book, tokens.double().numpy()), atol=1e-5)
    assert guide.shape == (2, guides, 3, 4)
    assert guide.min() >= 0
    assert guide.max() <= 1


def test_weights_are_a_distribution_that_starts_uniform():
    book = TokenBook(8, 16, "cosine", "logistic")
    torch.testing.assert_close(book.weights, torch.full((1, 16), 1 / 16))
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
