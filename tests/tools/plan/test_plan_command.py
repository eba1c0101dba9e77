import json
from pathlib import Path

import planned
import pytest
from tiny_encoders import WIDTH

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.config import GuideConfig, LoRA


def plan(*arguments: str) -> int:
    return main(["plan", "-d", planned.DATASET, *arguments])


def section(folder: Path, name: str = "New") -> dict[str, object]:
    return json.loads((folder / f"{name}.json").read_text())["guidino"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], {}),
        (["--encoder", "org/model"], {"encoder": "org/model"}),
        (["--layer", "8"], {"layer": 8}),
        (["--layer", "4,8"], {"layer": [4, 8]}),
        (["--layer", "last"], {"layer": None}),
        (["--min-input-size", "512"], {"min_input_size": 512}),
        (["--max-input-size", "512"], {"max_input_size": 512}),
        (["--prototypes", "64"], {"prototypes": 64}),
        (["--similarity", "dot"], {"similarity": "dot"}),
        (["--readout", "affine"], {"readout": "affine"}),
        (["--gate-at", "bottleneck"], {"gate_at": "bottleneck"}),
        (["--no-late-fusion"], {"late_fusion": False}),
        (["--lambda-guide", "0.5"], {"lambda_guide": 0.5}),
        (["--lambda-boundary", "0"], {"lambda_boundary": 0}),
        (["--lora"], {"lora": LoRA()}),
        (["--no-lora"], {"lora": None}),
        (
            ["--lora-rank", "4", "--lora-alpha", "8", "--lora-dropout", "0", "--lora-learning-rate", "1e-3"],
            {"lora": LoRA(4, 8, 0, 1e-3)},
        ),
        (["--lora", "--set", "lora.rank=2", "--set", "gate_at=input"], {"lora": LoRA(2), "gate_at": "input"}),
    ],
)
def test_each_option_sets_its_key(options, expected, folder):
    assert plan("-o", "New", *options) == 0
    assert GuideConfig.from_plans({"guidino": section(folder)}) == GuideConfig.from_plans({"guidino": expected})


def test_there_is_an_option_for_every_setting():
    from nnunetv2_guidino.commands.plan import GUIDE_OPTIONS
    from nnunetv2_guidino.nnunet.plans import FILLED_IN

    settings = {*GuideConfig().to_plans(), *(f"lora.{key}" for key in vars(LoRA()))}
    assert {*GUIDE_OPTIONS} == settings - {*FILLED_IN}


def test_the_rest_is_the_source_s_and_the_difference_is_printed(folder, capsys):
    assert plan("-o", "First", "--gate-at", "input", "--set", "configurations.2d.batch_size=4") == 0
    source, derived = (json.loads((folder / f"{name}.json").read_text()) for name in ("nnUNetPlans", "First"))
    assert derived["plans_name"] == "First"
    assert derived["configurations"]["2d"]["data_identifier"] == source["configurations"]["2d"]["data_identifier"]
    assert derived["configurations"]["2d"].pop("batch_size") == 4
    source["configurations"]["2d"].pop("batch_size")
    assert derived["configurations"] == source["configurations"]
    printed = capsys.readouterr().out
    assert '+ guidino.gate_at: "input"' in printed
    assert "~ configurations.2d.batch_size: 2 -> 4" in printed
    assert plan("-p", "First", "-o", "Second", "--prototypes", "8") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert lines == ["~ guidino.prototypes: 256 -> 8", '~ plans_name: "First" -> "Second"']


def test_what_is_written_no_longer_depends_on_the_environment(folder, monkeypatch):
    monkeypatch.setenv("GUIDINO_ENCODER", "org/then")
    assert plan("-o", "New") == 0
    monkeypatch.setenv("GUIDINO_ENCODER", "org/now")
    assert section(folder)["encoder"] == "org/then"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "-o NAME is missing"),
        (["-o", "nnUNetPlans"], "exists already; give -o another name"),
        (["-o", "a/b"], "expected letters, digits"),
        (["-o", "a__b"], "expected letters, digits"),
        (["-o", "New", "-p", "Nope"], "Nope.json does not exist; there are nnUNetPlans"),
        (["-o", "New", "--prototypes", "0"], "guidino.prototypes is 0; expected at least 1"),
        (["-o", "New", "--similarity", "dot", "--readout", "affine"], "affine"),
        (["-o", "New", "--set", "gates_at=input"], "did you mean gate_at"),
        (["-o", "New", "--set", "gate_at"], "--set gate_at: expected KEY=VALUE"),
        (["-o", "New", "--set", "gate_at.x=1"], "only lora has settings of its own"),
        (["-o", "New", "--set", "lora.x=1"], "guidino.lora.x in the plans is unknown"),
        (["-o", "New", "--set", "encoder_config={}"], "filled in when training starts"),
        (["-o", "New", "--set", "configurations.2d.batch=4"], "no 'batch' there; there are data_identifier"),
        (["-o", "New", "--set", "configurations.2d.batch_size=4.5"], "batch_size is 2 in the plans; expected int"),
        (["-o", "New", "-c", "3d_fullres"], "-c 3d_fullres: the plans have no such configuration; there are 2d"),
        (["-o", "New", "--encoder", "no/hub", "--gpu_memory_target_in_gb", "8"], "the memory cannot be estimated"),
        (["-o", "New", "-d", "Dataset998_Gone"], "does not exist"),
        (["-o", "New", "-d", "998"], "-d 998: there is no data set with this number in"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(arguments, message, folder, capsys):
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert plan(*arguments) == 1
    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_batch_size_is_lowered_to_fit(folder, capsys):
    large = ["--set", "configurations.2d.batch_size=12", "--set", "configurations.2d.patch_size=[512, 512]", "--lora"]

    def fitted(target: float) -> tuple[int, float]:
        name = f"Fit{target:.3f}"
        assert plan("-o", name, "--gpu_memory_target_in_gb", str(target), *large) == 0
        batch = json.loads((folder / f"{name}.json").read_text())["configurations"]["2d"]["batch_size"]
        printed = capsys.readouterr().out
        gigabytes = float(printed.split(f"at batch size {batch}: ")[1].split()[0])
        assert ("even so" in printed) == (target < 0.5)
        return batch, gigabytes

    batch, whole = fitted(100)
    assert batch == 12
    half, half_of_it = fitted(whole / 2)
    assert 2 < half < 7
    assert half_of_it <= whole / 2 + 0.05  # printed with one digit
    assert fitted(0.1)[0] == 2


def test_lora_and_larger_encoders_need_more_memory(folder, capsys):
    needed = []
    for i, options in enumerate([[], ["--lora"], ["--encoder", "facebook/dinov2-large", "--lora"]]):
        assert plan("-o", f"New{i}", "--min-input-size", "512", *options) == 0
        needed.append(float(capsys.readouterr().out.split("guide ")[-1].split(")")[0]))
    assert needed == sorted(needed)
    assert needed[0] < needed[1] < needed[2]


@pytest.mark.parametrize("layer", ["0x", "first", "1,,2"])
def test_layer_that_is_none(layer, folder, capsys):
    with pytest.raises(SystemExit):
        plan("-o", "New", "--layer", layer)
    assert f"invalid layer value: '{layer}'" in capsys.readouterr().err


def test_show_prints_any_guide(folder, tmp_path, capsys):
    plan("-o", "New", "--gate-at", "input")
    capsys.readouterr()
    model = tmp_path / "model"
    model.mkdir()
    (model / "plans.json").write_text((folder / "New.json").read_text())
    for arguments in (["-d", planned.DATASET, "-p", "New", "--show"], ["--show", str(model)]):
        assert main(["plan", *arguments]) == 0
        assert json.loads(capsys.readouterr().out)["gate_at"] == "input"
    assert main(["plan", "--show", str(folder / "New.json")]) == 0
    assert main(["plan", "--show", str(tmp_path / "gone")]) == 1


def test_training_uses_exactly_what_was_planned(folder, planned_trainer, tiny_encoder):
    guide = ["--layer", "1,2", "--gate-at", "bottleneck", "--prototypes", "16", "--lora-rank", "2"]
    assert plan("-o", "New", "--encoder", str(tiny_encoder("dinov2")), *guide) == 0
    planned_section = section(folder)
    trainer = planned_trainer("nnUNetTrainerGuiDINO", guide=planned_section)
    trainer.initialize()
    trained = trainer.plans_manager.plans["guidino"]
    assert {key: trained[key] for key in planned_section} == planned_section
    assert trainer.network.tokenbook.prototypes.shape == (1, 16, 2 * WIDTH)
    assert trainer.network.token_encoder.lora.rank == 2
