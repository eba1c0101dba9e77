"""Plans of methods with a network or a guide of their own: what is printed is what is done, and nothing else passes."""

import json
import shlex
from pathlib import Path

import planned
import pytest

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.benchmark.derive import derivation, is_derived
from nnunetv2_guidino.lab.benchmark.matrix import read_matrix

METHODS = """
datasets: 999
methods:
  plain: {trainer: nnUNetTrainerGuiDINOBaseline}
  guided: {guide: {encoder: encoder, prototypes: 8, lora: {rank: 2}}}
  ukan: {architecture: {name: ukan, widths: [16, 24, 32], kan: false}, trainer: nnUNetTrainerGuiDINOBaseline}
  W: {architecture: nnwnet, width: planned, guide: {gate: product}}
  segdino: {architecture: {name: segdino, pretrained: encoder, layers: [1, 2, 3], widths: [4, 4, 4], head: published}}
  segdino here: {architecture: {name: seg_guidino_partner, width: 32}, guide: {encoder: encoder}}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch, tiny_encoder) -> Path:
    """The data set's in nnUNet_preprocessed; the matrix lies in the working directory, with an encoder beside it."""
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "nnUNet_preprocessed"))
    folder = tmp_path / "nnUNet_preprocessed" / planned.DATASET
    folder.mkdir(parents=True)
    plans = planned.plans({}).plans
    plans["configurations"] |= planned.plans({}, patch_size=(16, 32, 48)).plans["configurations"]
    del plans["guidino"]
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    dataset = {"labels": {"background": 0, "polyp": 1}, "channel_names": {"0": "R", "1": "G", "2": "B"}}
    (folder / "dataset.json").write_text(json.dumps(dataset))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "encoder").symlink_to(tiny_encoder("dinov2"))
    return folder


def matrix(text: str = METHODS):
    Path("matrix.yaml").write_text(text)
    return read_matrix(Path("matrix.yaml"))


def of_their_own(read):
    return [method for method in read.methods if method.base is not None]


def test_what_is_printed_is_what_is_done_and_it_is_there_afterwards(folder, capsys):
    read = matrix()
    for method in of_their_own(read):
        assert not is_derived(read, method, folder)
        step = derivation(read, method, folder)
        step.make()
        done = step.file.read_text()
        assert is_derived(read, method, folder)
        step.file.unlink()
        program, *arguments = shlex.split(shlex.join(step.command))
        assert program == "guidino"
        assert main(arguments) == 0, capsys.readouterr().err
        assert step.file.read_text() == done
    plans = {method.name: json.loads((folder / f"{method.plans}.json").read_text()) for method in of_their_own(read)}
    encoder = str(Path("encoder").absolute())
    assert plans["guided"]["guidino"]["encoder"] == encoder
    for name in ("segdino", "segdino here"):
        assert plans[name]["configurations"]["2d"]["architecture"]["arch_kwargs"]["pretrained"] == encoder
    assert plans["W"]["guidino"]["gate_at"] == "input"
    assert [*plans["ukan"]["configurations"]] == ["2d"]
    Path("encoder").unlink()  # what is trained is reported all the same
    read = matrix(METHODS.replace(": encoder", f": {encoder}"))
    assert is_derived(read, of_their_own(read)[-1], folder)


@pytest.mark.parametrize(
    ("name", "before", "after", "message"),
    [
        ("guided", "prototypes: 8", "prototypes: 9", "was made with prototypes 8; matrix.yaml now has 9 for guided"),
        ("guided", "encoder: encoder", "encoder: org/other", "was made with encoder '.*encoder'; .* has 'org/other'"),
        ("ukan", "kan: false", "kan: true", "was made with architecture.kan False; .* now has True for ukan"),
        ("ukan", ", kan: false", "", "was made with architecture.kan False; .* now has True for ukan"),
        ("W", "width: planned", "width: paper", "was made with architecture.strides .* now has"),
        ("W", "gate: product", "gate_at: input", "was made with gate 'product'; .* now has 'blend' for W"),
        ("segdino here", "seg_guidino_partner, width: 32", "ukan", "with architecture '.*Partner'; .*UKAN'"),
        (
            "ukan",
            "{name: ukan, widths: [16, 24, 32], kan: false}",
            "{name: swin_unet}",
            "was made with architecture '.*UKAN'; .* now has '.*SwinUnet'",
        ),
    ],
)
def test_plans_of_another_guide_or_network_are_refused(name, before, after, message, folder):
    read = matrix()
    (method,) = [method for method in read.methods if method.name == name]
    derivation(read, method, folder).make()
    changed = matrix(METHODS.replace(before, after))
    (method,) = [method for method in changed.methods if method.name == name]
    with pytest.raises(GuidinoError, match=message):
        is_derived(changed, method, folder)


def test_what_cannot_be_planned_is_said_with_the_method_s_name(folder):
    read = matrix("datasets: 999\nmethods: {a: {architecture: {name: ukan, kann: 1}}}")
    with pytest.raises(GuidinoError, match="matrix.yaml: the plans of a cannot be made: .* did you mean kan?"):
        derivation(read, read.methods[0], folder).make()
    read = matrix("datasets: 999\nconfigurations: [2d, 3d_fullres]\nmethods: {a: {architecture: ukan}}")
    with pytest.raises(GuidinoError, match="has 3d_fullres, which has 3 dimensions; ukan of a is an .* for 2D"):
        derivation(read, read.methods[0], folder)
