from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import tifffile
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient
from nnunetv2.imageio.tif_reader_writer import Tiff3DIO
from PIL import Image

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.guide.guide_files import image_files, save_guide

VOLUME = np.random.default_rng(0).random((5, 6, 7), np.float32)


def write_nifti(file: Path, axes: str) -> None:
    """VOLUME with its axes along the given directions, unequal spacing and an origin."""
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    affine[:3, 3] = 10, -20, 30
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(axes))
    nibabel.save(nibabel.Nifti1Image(VOLUME, affine @ inv_ornt_aff(turn, VOLUME.shape)), file)


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
@pytest.mark.parametrize("reader", [SimpleITKIO, SimpleITKIOWithReorient, NibabelIO, NibabelIOWithReorient])
def test_a_guide_lies_where_its_nifti_image_lies(reader, axes, tmp_path):
    write_nifti(tmp_path / "image.nii.gz", axes)
    array, properties = reader().read_images([str(tmp_path / "image.nii.gz")])
    save_guide(array[0], tmp_path / "guide.nii.gz", properties)
    image, guide = (nibabel.load(tmp_path / f"{name}.nii.gz") for name in ("image", "guide"))
    assert guide.get_data_dtype() == np.float32
    np.testing.assert_array_equal(guide.get_fdata(), image.get_fdata())
    np.testing.assert_allclose(guide.affine, image.affine, atol=1e-5)


def test_a_2d_image_of_itk(tmp_path):
    image = sitk.GetImageFromArray(VOLUME[0])
    image.SetSpacing((2, 3))
    sitk.WriteImage(image, str(tmp_path / "image.mha"))
    array, properties = SimpleITKIO().read_images([str(tmp_path / "image.mha")])
    save_guide(array[0], tmp_path / "guide.mha", properties)
    guide = sitk.ReadImage(str(tmp_path / "guide.mha"))
    assert guide.GetSpacing() == (2, 3)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(guide), VOLUME[0])


@pytest.mark.parametrize(("reader", "array"), [(NaturalImage2DIO, VOLUME[0]), (Tiff3DIO, VOLUME)])
def test_tiff_is_float(reader, array, tmp_path):
    tifffile.imwrite(tmp_path / "image.tif", array)
    read, properties = reader().read_images([str(tmp_path / "image.tif")])
    save_guide(read[0], tmp_path / "guide.tif", properties)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "guide.tif"), array)


def test_png_is_8_bit(tmp_path):
    save_guide(np.array([[[0, 0.5, 1]]], np.float32), tmp_path / "guide.png", {"spacing": (999, 1, 1)})
    guide = np.asarray(Image.open(tmp_path / "guide.png"))
    assert (guide.dtype, guide.tolist()) == (np.uint8, [[0, 128, 255]])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "holds no"),
        (["a"], r"a.png: expected CASE_0000.png"),
        (["a_0000", "a_0001", "b_0000"], r"channels 0000, 0001 are expected .* 1 case \(b\)"),
        (["a_0001"], r"channels 0000 are expected .* 1 case \(a\)"),
    ],
)
def test_incomplete_images_are_named(names, message, tmp_path):
    for name in names:
        (tmp_path / f"{name}.png").touch()
    with pytest.raises(GuidinoError, match=message):
        image_files(tmp_path, ".png")


def test_channels_are_grouped_by_case(tmp_path):
    for name in ("a_1_0000", "a_1_0001", "b_0001", "b_0000"):
        (tmp_path / f"{name}.png").touch()
    found = {case: [file.name for file in files] for case, files in image_files(tmp_path, ".png").items()}
    assert found == {"a_1": ["a_1_0000.png", "a_1_0001.png"], "b": ["b_0000.png", "b_0001.png"]}
