import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from PIL import Image

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.guide.predictor import GuidePredictor

CHECKPOINT = "checkpoint_final.pth"
HALF = 0.02


def save_image(file, height, width, border=0):
    """Noise, black in a border that nnU-Net crops away."""
    image = np.random.default_rng(height).integers(1, 255, (height, width, 3)).astype(np.uint8)
    inside = image[border : height - border, border : width - border]
    Image.fromarray(np.pad(inside, ((border, border), (border, border), (0, 0)))).save(file)
    return file


def guide_of(model, files, folds=None, **settings) -> np.ndarray:
    return GuidePredictor(model, folds, CHECKPOINT, "cpu", **settings).predict(files).guide


def test_one_tile_is_the_network_s_guide(model_folder, tmp_path):
    predictor = GuidePredictor(model_folder(), None, CHECKPOINT, "cpu", use_mirroring=False)
    predictor.predictor.use_gaussian = False  # whose weights are so small in a corner that half precision shows
    file = save_image(tmp_path / "a_0000.png", 32, 48)
    image = np.asarray(Image.open(file)).astype(np.float32).transpose(2, 0, 1)
    image = (image - image.mean((1, 2), keepdims=True)) / image.std((1, 2), keepdims=True)
    with torch.no_grad():
        guide = predictor.predictor.network.network.guide(torch.from_numpy(image)[None])
    expected = F.interpolate(guide, size=(32, 48), mode="bilinear")[0].numpy()
    np.testing.assert_allclose(
        predictor.predict([file]).guide, expected, atol=HALF
    )  # nnU-Net adds up in half precision


@pytest.mark.parametrize("late_fusion", [0, 0.5])
def test_the_segmentation_is_nnunet_s(late_fusion, model_folder, tmp_path):
    model = model_folder(folds=(0, 1), late_fusion=late_fusion)
    file = save_image(tmp_path / "a_0000.png", 70, 90)
    stock = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    stock.initialize_from_trained_model_folder(str(model), (0, 1), CHECKPOINT)
    expected = stock.predict_from_files_sequential([[str(file)]], None)[0]
    guided = GuidePredictor(model, None, CHECKPOINT, "cpu").predict([file])
    assert guided.guide.shape == guided.segmentation.shape == (1, 70, 90)
    assert 0 < expected.mean() < 1
    np.testing.assert_array_equal(guided.segmentation, expected)


def test_mirroring_and_folds_are_averaged(model_folder, tmp_path):
    model = model_folder(folds=(0, 1))
    file = save_image(tmp_path / "a_0000.png", 50, 90)
    guide = guide_of(model, [file])
    assert guide.std() > 0.01
    of_folds = [guide_of(model, [file], folds=[fold]) for fold in "01"]
    assert abs(of_folds[0] - of_folds[1]).max() > 5 * HALF
    np.testing.assert_allclose(guide, np.mean(of_folds, 0), atol=HALF)
    flipped = tmp_path / "b_0000.png"
    Image.open(file).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(flipped)
    # not exactly: the Gaussian of a tile with an even number of pixels has its centre beside the middle
    np.testing.assert_allclose(guide_of(model, [flipped]), guide[..., ::-1], atol=3 * HALF)
    without = guide_of(model, [file], use_mirroring=False)
    assert abs(guide_of(model, [flipped], use_mirroring=False) - without[..., ::-1]).max() > 5 * HALF


def test_outside_nnunet_s_crop_there_is_no_guide(model_folder, tmp_path):
    guide = guide_of(model_folder(), [save_image(tmp_path / "a_0000.png", 60, 80, border=10)])[0]
    assert guide[10:-10, 10:-10].min() > 0
    guide[10:-10, 10:-10] = 0
    assert guide.shape == (60, 80)
    assert not guide.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"folds": ["3"]}, r"fold_3 has no checkpoint_final.pth; folds that have it: \['0'\]"),
        ({"checkpoint": "checkpoint_best.pth"}, "no numbered fold in .* has checkpoint_best.pth"),
        ({"model_folder": "elsewhere"}, "elsewhere has no plans.json"),
    ],
)
def test_a_missing_model_is_named(change, message, model_folder, tmp_path):
    arguments = {"model_folder": model_folder(), "folds": None, "checkpoint": CHECKPOINT, "device": "cpu"} | change
    arguments["model_folder"] = tmp_path / arguments["model_folder"]
    with pytest.raises(GuidinoError, match=message):
        GuidePredictor(**arguments)


def test_a_model_without_a_guide_says_so(model_folder):
    with pytest.raises(GuidinoError, match="trained with nnUNetTrainerGuiDINOBaseline, which has no guide"):
        GuidePredictor(model_folder("nnUNetTrainerGuiDINOBaseline"), None, CHECKPOINT, "cpu")
