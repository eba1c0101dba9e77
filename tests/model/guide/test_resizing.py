import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch.utils._python_dispatch import TorchDispatchMode

from nnunetv2_guidino.model.guide import resizing
from nnunetv2_guidino.model.guide.gates import guide_at
from nnunetv2_guidino.model.guide.resizing import area_average, interpolate


def integral(values: np.ndarray, axis: int, parts: int) -> np.ndarray:
    """Mean over each of equal parts of an axis: differences of the running integral at the parts' edges."""
    values = np.moveaxis(values, axis, -1)
    pixels = values.shape[-1]
    running = np.concatenate([np.zeros_like(values[..., :1]), values.cumsum(-1)], axis=-1)
    edges = np.arange(parts + 1) * pixels / parts
    at_edges = np.stack([np.apply_along_axis(lambda row: np.interp(edges, range(pixels + 1), row), -1, running)])[0]
    return np.moveaxis(np.diff(at_edges, axis=-1) * parts / pixels, -1, axis)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((512, 512), (37, 37)),
        ((20, 28), (18, 26)),
        ((64, 48), (4, 3)),
        ((33, 7), (32, 7)),
        ((5, 6), (1, 1)),
        ((9, 40, 50), (9, 7, 16)),
        ((9, 40, 30), (4, 37, 5)),
    ],
)
def test_shares_of_the_area_are_integrals(source, target):
    """Adaptive pooling was wrong by 0.06 and 0.44 in the first two."""
    values = np.random.default_rng(0).random((2, 1, *source)) > 0.5
    expected = values.astype(float)
    for axis, parts in enumerate(target, start=2):
        expected = integral(expected, axis, parts)
    ours = area_average(torch.from_numpy(values).float(), target)
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-6)
    assert ours.mean().item() == pytest.approx(values.mean(), abs=1e-6)


def test_gate_averages_exactly_along_some_axes_and_interpolates_along_others():
    guide = torch.rand(2, 1, 20, 10, dtype=torch.double)
    averaged = torch.from_numpy(integral(guide.numpy(), 2, 18))
    torch.testing.assert_close(guide_at(guide, (18, 40)), interpolate(averaged, (18, 40)))
    guide = torch.rand(1, 1, 7, 20, 10, dtype=torch.double)
    averaged = torch.from_numpy(integral(integral(guide.numpy(), 2, 3), 4, 9))
    torch.testing.assert_close(guide_at(guide, (3, 31, 9)), interpolate(averaged, (3, 31, 9)))


def test_gate_averages_the_guide_where_the_feature_is_coarser():
    guide = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, None]
    assert guide_at(guide, (1, 1)).item() == 0.5
    fine = guide_at(guide, (8, 8))
    assert fine[..., 0].max() == 0
    assert fine[..., -1].min() == 1


def test_gate_averages_slices_and_interpolates_within_them():
    """Of a volume the guide is finer than deep features along one axis, and coarser along the others."""
    guide = torch.tensor([[0.0, 1.0], [0.0, 1.0]]).repeat(1, 1, 4, 1, 1)
    guide[:, :, ::2] = 1 - guide[:, :, ::2]
    gated = guide_at(guide, (2, 8, 8))
    torch.testing.assert_close(gated, torch.full_like(gated, 0.5))
    guide = torch.rand(1, 1, 6, 4, 4)
    expected = F.interpolate(F.avg_pool3d(guide, (2, 1, 1)), (3, 8, 8), mode="trilinear")
    torch.testing.assert_close(guide_at(guide, (3, 8, 8)), expected)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((16, 16), (256, 256)),
        ((14, 21), (8, 100)),
        ((37, 5), (512, 5)),
        ((1, 1), (7, 3)),
        ((128, 14, 14), (128, 64, 96)),
        ((5, 6, 7), (9, 3, 31)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.double, torch.float32, torch.bfloat16, torch.float16])
def test_interpolation_and_its_gradient_are_torch_s(source, target, dtype):
    values = torch.rand(2, 1, *source, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    mode = "bilinear" if len(source) == 2 else "trilinear"
    ours, expected = interpolate(values, target), F.interpolate(values, target, mode=mode)
    precise = {"rtol": 1e-5, "atol": 2e-6} if dtype in (torch.double, torch.float32) else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(ours, expected, **precise)
    assert ours.is_contiguous()  # else every product with a feature would be slower
    pull = torch.rand(ours.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    gradients = [torch.autograd.grad(output, values, pull)[0] for output in (ours, expected)]
    scale = float(gradients[1].abs().max())
    torch.testing.assert_close(gradients[0] / scale, gradients[1] / scale, **precise)


def test_nothing_is_interpolated_with_atomic_additions():
    """By torch's list of what is not reproducible on CUDA, upsample_*_backward_out among it."""
    names = set()

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            names.add(func.overloadpacket.__name__)
            return func(*args, **(kwargs or {}))

    for size in ((20, 20), (6, 20, 20)):
        guide = torch.rand(1, 1, *[4] * len(size), requires_grad=True)
        with Names():
            guide_at(guide, size).sum().backward()
    assert "mm" in names or "bmm" in names
    assert not [name for name in names if "upsample" in name or "index" in name or "scatter" in name]


def test_matrices_are_made_once_and_serve_a_training_after_a_prediction():
    """nnU-Net predicts in inference mode, and a tensor that was made there cannot be kept for gradients."""
    resizing._kept.cache_clear()
    values = torch.rand(1, 1, 20, 28, requires_grad=True)
    with torch.inference_mode():
        area_average(values, (18, 26))
    area_average(values, (18, 26)).sum().backward()
    assert values.grad.sum().item() == pytest.approx(18 * 26, rel=1e-5)
    assert resizing._kept.cache_info().misses == 2


def test_compiled_in_one_graph_and_the_same():
    torch._dynamo.reset()
    values = torch.rand(2, 1, 20, 28)
    for resize in (area_average, interpolate):
        compiled = torch.compile(resize, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(values, (18, 26)), resize(values, (18, 26)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_does_not_round_it(dtype):
    values = torch.rand(1, 1, 20, 28)
    for resize in (area_average, interpolate):
        with torch.autocast("cpu", dtype=dtype):
            inside = resize(values, (18, 26))
        assert inside.dtype == torch.float32
        assert torch.equal(inside, resize(values, (18, 26)))
