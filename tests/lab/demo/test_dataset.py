import numpy as np
import pytest
from pairs import thin_lines
from PIL import Image

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.demo.demo_data import read_cases, write_dataset
from nnunetv2_guidino.lab.demo.phantoms import SIZE


@pytest.fixture
def folder(tmp_path):
    """Ten pairs, 1.5 times as large as the demo's, with a square of foreground."""
    mask = np.zeros((SIZE * 3 // 2, SIZE * 2), np.uint8)
    mask[30:90, 60:120] = 255
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
        for index in range(10):
            Image.fromarray(mask).save(tmp_path / kind / f"p{index}.png")
    return tmp_path


def test_pairs_are_reduced_and_a_fifth_held_out(folder, tmp_path):
    train, heldout = read_cases(folder, seed=0)
    assert (len(train), len(heldout)) == (8, 2)
    assert {case.name for case in train + heldout} == {f"p{index}" for index in range(10)}
    assert train[0].image.shape == (SIZE, round(SIZE * 4 / 3), 3)
    assert train[0].mask.mean() == pytest.approx(60 * 60 / (SIZE * 1.5 * SIZE * 2), rel=0.05)

    raw = tmp_path / "raw"
    write_dataset(raw, train, heldout)
    assert len(list((raw / "imagesTr").glob("p*_0000.png"))) == 8
    assert len(list((raw / "labelsTs").glob("p?.png"))) == 2


def three_plateaus(folder):
    mask = np.repeat(np.array([0, 100, 200], np.uint8), 64)[None].repeat(192, 0)
    Image.fromarray(mask).resize((SIZE * 2, SIZE * 3 // 2), Image.Resampling.NEAREST).save(folder / "masks" / "p3.png")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda folder: (folder / "masks" / "p3.png").unlink(), "p3 .*not in both images/ and masks/"),
        (lambda folder: (folder / "images" / "p3.png").unlink(), "p3 .*not in both images/ and masks/"),
        (lambda folder: [(folder / kind / "p3.png").unlink() for kind in ("images", "masks")], "at least 10 .*found 9"),
        (
            lambda folder: Image.new("L", (5, 5)).save(folder / "masks" / "p3.png"),
            "p3.png: .* differ in size",
        ),
        (lambda folder: (folder / "masks" / "p3.jpg").touch(), "p3.png: p3.jpg has the same name but for its ending"),
        (three_plateaus, "p3.png: is no two-level mask"),
        (lambda folder: (folder / "images" / "p3.png").write_text("no image"), "p3.png: is no image"),
    ],
)
def test_bad_data_is_named(folder, break_it, message):
    break_it(folder)
    with pytest.raises(GuidinoError, match=message):
        read_cases(folder, seed=0)


def test_all_masks_are_cut_at_one_level(folder):
    """Thin structures with soft edges do not reach their level in each mask."""
    drawn = {f"p{seed}": thin_lines(seed) for seed in range(10)}
    for name, (mask, _) in drawn.items():
        mask.convert("RGB").save(folder / "images" / f"{name}.png")
        mask.save(folder / "masks" / f"{name}.png")
    train, heldout = read_cases(folder, seed=0)
    for case in (*train, *heldout):
        expected = Image.fromarray(drawn[case.name][1]).resize((SIZE, SIZE), Image.Resampling.NEAREST)
        np.testing.assert_array_equal(case.mask > 0, np.asarray(expected))


def test_orientations_that_only_one_of_a_pair_has(folder):
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(folder / "images" / "p3.png") as image:
        image.save(folder / "images" / "p3.png", exif=exif)
    with pytest.raises(GuidinoError, match="p3: image and mask differ in their EXIF orientation, and fit .* both ways"):
        read_cases(folder, seed=0)
    exif[0x0112] = 6  # turned by a quarter, the image is of another size than the mask: both are meant as stored
    with Image.open(folder / "images" / "p3.png") as image:
        image.save(folder / "images" / "p3.png", exif=exif)
    train, heldout = read_cases(folder, seed=0)
    (case,) = (case for case in (*train, *heldout) if case.name == "p3")
    assert case.image.shape[:2] == case.mask.shape == (SIZE, round(SIZE * 4 / 3))
    np.testing.assert_array_equal(case.image[..., 0] > 127, case.mask > 0)
