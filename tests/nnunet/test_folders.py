"""nnU-Net's folders, asked for by variable and data set."""

import pytest

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.folders import find_folder, folder_of, preprocessed_folder


@pytest.fixture
def preprocessed(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path))
    (tmp_path / "Dataset501_Polyps").mkdir()
    return tmp_path


@pytest.mark.parametrize("name", ["501", "Dataset501_Polyps"])
def test_a_data_set_by_name_or_number(name, preprocessed):
    assert preprocessed_folder(name) == preprocessed / "Dataset501_Polyps"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("502", "-d 502: there is no data set with this number in .*nnUNet_preprocessed="),
        ("polyps", "-d polyps: dataset_name_or_id was a string"),
        ("../elsewhere", "-d ../elsewhere: expected a data set's name or number, not a path"),
        ("/etc", "-d /etc: expected a data set's name or number, not a path"),
    ],
)
def test_what_is_none(name, message, preprocessed):
    with pytest.raises(GuidinoError, match=message):
        preprocessed_folder(name)


def test_two_of_one_number(preprocessed):
    (preprocessed / "Dataset501_Others").mkdir()
    with pytest.raises(GuidinoError, match="-d 501: more than one data set in .* has this number; remove one"):
        preprocessed_folder("501")


@pytest.mark.parametrize("value", [None, ""])
def test_a_variable_that_is_not_set(value, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    if value is not None:
        monkeypatch.setenv("nnUNet_raw", value)
    with pytest.raises(GuidinoError, match="nnUNet_raw is not set; export nnUNet_raw=FOLDER"):
        folder_of("nnUNet_raw")


def test_advice_of_the_caller_and_paths_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", "")
    assert find_folder("nnUNet_raw") is None
    with pytest.raises(GuidinoError, match="nnUNet_raw is not set; pass -i"):
        folder_of("nnUNet_raw", "pass -i")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_raw", "raw")
    assert folder_of("nnUNet_raw") == tmp_path / "raw"


def test_a_folder_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "gone"))
    with pytest.raises(GuidinoError, match="gone: there is no such folder; `guidino doctor` says what to do"):
        preprocessed_folder("501")
