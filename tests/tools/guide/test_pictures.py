import numpy as np
import pytest
from PIL import Image

from nnunetv2_guidino.tools.guide.panels import (
    Pictured,
    Plane,
    draw_contact_sheets,
    draw_panel,
    largest_component,
    planes,
)

SHAPES = [(1, 40, 60), (20, 40, 60)]


def blob(shape) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[0, 0, 0] = True  # smaller than the other component
    mask[shape[0] // 2, 10:20, 30:50] = True
    return mask


def test_planes_go_through_the_largest_component():
    volume = largest_component(blob((20, 40, 60)))
    assert volume.sum() == 200
    assert planes(volume) == [Plane(0, 10), Plane(1, 10), Plane(2, 30)]
    assert planes(blob((1, 40, 60))) == [Plane(0, 0)]


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("with_truth", [True, False])
def test_a_panel_shows_the_guide(with_truth, shape, channels, tmp_path):
    guide = blob(shape).astype(np.float32)
    image = np.random.default_rng(0).random((channels, *shape))
    case = Pictured("name", image, guide, np.zeros(shape, bool), blob(shape) if with_truth else None, (2.0, 1.0, 1.0))
    draw_panel(case, tmp_path / "with.png")
    draw_panel(case._replace(guide=np.zeros_like(guide)), tmp_path / "without.png")
    with_guide, without = (np.asarray(Image.open(tmp_path / f"{name}.png")) for name in ("with", "without"))
    assert with_guide.shape[1] == (1260 if with_truth else 960)
    bright = [np.isclose(picture[..., :3], [252, 255, 164], atol=4).all(-1).sum() for picture in (with_guide, without)]
    assert bright[0] > bright[1] + 1000


def test_contact_sheets_hold_all_panels_in_order(tmp_path):
    panels = []
    for i in range(43):
        panels.append(tmp_path / f"{i}.png")
        Image.new("RGB", (40, 20), (i, 0, 0)).save(panels[-1])
    assert draw_contact_sheets(panels, tmp_path) == [f"contact_sheet_{i}.png" for i in (1, 2, 3)]
    sizes = [Image.open(tmp_path / f"contact_sheet_{i}.png").size for i in (1, 2, 3)]
    assert sizes == [(40, 100), (40, 100), (40, 20)]
    last = np.asarray(Image.open(tmp_path / "contact_sheet_3.png"))
    assert [last[5, 5, 0], last[5, 25, 0], last[15, 5, 0], last[15, 25, 0]] == [40, 41, 42, 255]
