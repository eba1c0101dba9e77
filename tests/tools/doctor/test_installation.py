"""The doctor survives every disease it is meant to find; its advice works when typed."""

import importlib.metadata
import json
import shlex
import subprocess
from pathlib import Path

import pytest

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.nnunet.folders import VARIABLES
from nnunetv2_guidino.tools.doctor import installation
from nnunetv2_guidino.tools.doctor.installation import (
    examine,
    examine_encoder,
    examine_folders,
    examine_trainer,
    examine_versions,
)


@pytest.fixture
def encoder(tmp_path, monkeypatch, tiny_encoder) -> Path:
    """A copy of an encoder's folder, to damage, as GUIDINO_ENCODER."""
    folder = tmp_path / "an encoder"
    folder.mkdir()
    for file in tiny_encoder("dinov2").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    monkeypatch.setenv("GUIDINO_ENCODER", str(folder))
    return folder


def pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")


def web_page(folder: Path) -> None:
    (folder / "model.safetensors").write_text("<!DOCTYPE html><html></html>")


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def cut_in_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:50])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def nonsense(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 10)


def other_format(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def a_part_is_missing(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))


def torn_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


def no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def config_is_a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def no_vit(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "bert"}')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pointer, "Git LFS pointer"),
        (web_page, "web page"),
        (cut, "cut short"),
        (cut_in_header, "cut short"),
        (empty, "model.safetensors"),
        (nonsense, "no safetensors file"),
        (other_format, "no *.safetensors file"),
        (a_part_is_missing, "model-00002-of-00002.safetensors"),
        (torn_config, "config.json is no JSON file, or was cut short"),
        (no_config, "config.json"),
        (config_is_a_list, "config.json holds list; expected an object"),
        (no_vit, "is not a vision transformer"),
    ],
)
def test_an_encoder_s_folder_that_is_damaged(damage, message, encoder):
    damage(encoder)
    (finding,) = examine_encoder()
    assert message in finding.is_so
    assert finding.remedy
    assert "huggingface.co/" not in finding.remedy


def test_a_clone_s_pointers_are_pulled(encoder):
    pointer(encoder)
    (encoder / ".git").mkdir()
    (finding,) = examine_encoder()
    assert shlex.split(finding.remedy or "") == ["git", "-C", str(encoder), "lfs", "pull"]


@pytest.mark.parametrize(
    ("name", "is_so", "remedy"),
    [
        ("/nowhere/x", "there is no such folder", "export GUIDINO_ENCODER=FOLDER"),
        ("../x", "there is no such folder", "export GUIDINO_ENCODER=FOLDER"),
        ("a/b/c", "there is no such folder", "export GUIDINO_ENCODER=FOLDER"),
        ("a model", "there is no such folder", "export GUIDINO_ENCODER=FOLDER"),
        ("facebook/dinov2-small", "not on this machine", "`HF_HUB_OFFLINE=0 hf download facebook/dinov2-small`"),
        (
            "facebook/dinov3-vits16-pretrain-lvd1689m",
            "not on this machine",
            "accept the licence at https://huggingface.co/f",
        ),
        ("someone/unknown", "not on this machine", "if it is a name on the hub, `HF_HUB_OFFLINE=0 hf download someone"),
    ],
)
def test_each_kind_of_name_has_its_advice(name, is_so, remedy, monkeypatch):
    monkeypatch.setenv("GUIDINO_ENCODER", name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (finding,) = examine_encoder()
    assert is_so in finding.is_so
    assert remedy in (finding.remedy or "")
    assert ("accept the licence" in (finding.remedy or "")) == ("dinov3" in name)


def test_a_file_is_no_folder(encoder, monkeypatch):
    monkeypatch.setenv("GUIDINO_ENCODER", str(encoder / "model.safetensors"))
    (finding,) = examine_encoder()
    assert finding.is_so == "is a file, not a folder"


def test_quotes_around_an_encoder_are_seen(encoder, monkeypatch):
    monkeypatch.setenv("GUIDINO_ENCODER", f'"{encoder}"')
    (finding,) = examine_encoder()
    assert shlex.split(finding.remedy or "") == ["export", f"GUIDINO_ENCODER={encoder}"]


@pytest.mark.parametrize(
    ("package", "found", "demand"),
    [
        ("nnunetv2", "2.5.1", "nnunetv2"),
        ("transformers", "4.40.0", "transformers"),
        ("transformers", "6.1", "transformers"),
    ],
)
def test_versions_are_compared_with_what_is_demanded(package, found, demand, monkeypatch):
    version = importlib.metadata.version
    monkeypatch.setattr(installation, "version", lambda name: found if name == package else version(name))
    (wrong,) = [finding for finding in examine_versions() if finding.remedy]
    assert wrong.what == demand
    assert f"{found}; nnunetv2-guidino needs" in wrong.is_so
    *command, requirement = shlex.split(wrong.remedy or "")
    assert command[1:] == ["-m", "pip", "install"]
    assert requirement.startswith(f"{demand}<") or requirement.startswith(f"{demand}>")


def test_a_package_that_is_missing(monkeypatch):
    version = importlib.metadata.version

    def found(name):
        if name == "nibabel":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(installation, "version", found)
    (wrong,) = [finding for finding in examine_versions() if finding.remedy]
    assert (wrong.what, wrong.is_so) == ("nibabel", "not installed")


def test_what_only_extras_demand_is_not_missed(monkeypatch):
    monkeypatch.setattr(installation, "requires", lambda _: ['nothing-of-the-kind>=1; extra == "test"', "numpy"])
    assert all(finding.remedy is None for finding in examine_versions())


FOLDERS = {
    "quoted": ('"{}"', "export nnUNet_raw={}"),
    "single quotes": ("'{}'", "export nnUNet_raw={}"),
    "typographic quotes": ("“{}”", "export nnUNet_raw={}"),
    "trailing space": ("{} ", "export nnUNet_raw={}"),
}


@pytest.mark.parametrize("value", FOLDERS)
def test_quotes_in_a_folder_are_taken_away_not_made(value, tmp_path, monkeypatch):
    spelling, _ = FOLDERS[value]
    monkeypatch.setenv("nnUNet_raw", spelling.format(tmp_path))
    finding = next(iter(examine_folders()))
    assert "mkdir" not in (finding.remedy or "")
    shell = subprocess.run(
        ["bash", "-c", f'{finding.remedy}; echo "$nnUNet_raw"'], capture_output=True, text=True, check=True
    )
    assert shell.stdout.strip() == str(tmp_path)


def test_a_folder_that_can_be_made_is_made_by_the_advice(tmp_path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / "with a space" / name))
    for finding in examine_folders():
        subprocess.run(["bash", "-c", finding.remedy or ""], check=True)
    assert all(finding.remedy is None for finding in examine_folders())


def a_file(folder: Path) -> str:
    (folder / "file").touch()
    return str(folder / "file")


def below_a_file(folder: Path) -> str:
    return a_file(folder) + "/below"


def a_dangling_link(folder: Path) -> str:
    (folder / "link").symlink_to(folder / "gone")
    return str(folder / "link")


def too_long(folder: Path) -> str:
    return str(folder / ("x" * 300))


@pytest.mark.parametrize("disease", [a_file, below_a_file, a_dangling_link, too_long])
def test_where_mkdir_cannot_help_another_folder_is_advised(disease, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", disease(tmp_path))
    *_, finding = examine_folders()
    assert "export nnUNet_results=FOLDER" in (finding.remedy or "")


@pytest.mark.parametrize(("value", "remedy"), [("raw", "{}/raw"), ("~/raw", "{}/raw")])
def test_what_depends_on_where_one_stands(value, remedy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("nnUNet_raw", value)
    finding = next(iter(examine_folders()))
    assert finding.remedy == f"export nnUNet_raw={remedy.format(tmp_path)}"


def test_a_broken_library_is_a_finding(monkeypatch, capsys):
    def broken(*_, **__):
        raise ImportError("libcudart.so.12: cannot open shared object file")

    monkeypatch.setattr("torch.cuda.device_count", broken)
    monkeypatch.setattr("nnunetv2.utilities.find_objects.recursive_find_trainer_class_by_name", broken)
    monkeypatch.setattr("nnunetv2_guidino.tools.doctor.installation.default_encoder", broken)
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert printed.count("libcudart.so.12") == 3
    assert "to put right." in printed


def test_another_trainer_of_that_name(monkeypatch):
    class Other:
        __module__ = "mine.trainers"

    monkeypatch.setattr("nnunetv2.utilities.find_objects.recursive_find_trainer_class_by_name", lambda _: Other)
    (finding,) = examine_trainer()
    assert "another class of that name, in mine.trainers" in finding.is_so


def test_found_without_a_variable_or_a_file(monkeypatch, tmp_path):
    """A module in nnU-Net's folder that passes ours on: nnUNet_extTrainer is not set, and our file is not there."""
    import nnunetv2

    monkeypatch.delenv("nnUNet_extTrainer", raising=False)
    monkeypatch.setattr(nnunetv2, "__path__", [str(tmp_path)])
    ours = type("nnUNetTrainerGuiDINO", (), {"__module__": "nnunetv2_guidino.training.guided"})
    monkeypatch.setattr("nnunetv2.utilities.find_objects.recursive_find_trainer_class_by_name", lambda _: ours)
    (finding,) = examine_trainer()
    assert finding.remedy is None


def test_everything_is_looked_at_whatever_fails(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GUIDINO_ENCODER", "~nobody-of-that-name/encoder")
    findings = list(examine())
    assert sum(finding.remedy is not None for finding in findings) == 4
