import pytest

from nnunetv2_guidino.cli import main

PATHS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")


@pytest.fixture
def set_up(tmp_path, monkeypatch, tiny_encoder):
    for name in PATHS:
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("GUIDINO_ENCODER", str(tiny_encoder("dinov3")))


@pytest.mark.usefixtures("set_up")
def test_all_is_well(capsys):
    code = main(["doctor"])
    printed = capsys.readouterr().out
    assert code == 0, printed
    assert "[!!]" not in printed
    for expected in ("nnunetv2: 2.8", "trainer nnUNetTrainerGuiDINO", "devices: ", *PATHS, "Everything is in place."):
        assert expected in printed


@pytest.mark.usefixtures("set_up")
def test_each_fault_comes_with_its_remedy(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("nnUNet_raw")
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "missing"))
    monkeypatch.delenv("GUIDINO_ENCODER")
    monkeypatch.setattr("nnunetv2_guidino.model.encoders.source.is_cached", lambda encoder: False)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "export nnUNet_raw=FOLDER" in printed
    assert f"mkdir -p {tmp_path / 'missing'}" in printed
    assert "hf download facebook/dinov3-vits16-pretrain-lvd1689m" in printed
    assert "3 to put right." in printed


@pytest.mark.usefixtures("set_up")
def test_unregistered_trainer_names_the_folder_to_export(capsys, monkeypatch):
    def not_found(name):
        raise RuntimeError(f"Could not find requested nnunet trainer {name}")

    monkeypatch.setattr("nnunetv2.utilities.find_objects.recursive_find_trainer_class_by_name", not_found)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "export nnUNet_extTrainer=" in printed
    assert printed.strip().endswith("1 to put right.")
