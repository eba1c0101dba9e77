"""The options that commands share, and that no number passes unbounded."""

import pytest

from nnunetv2_guidino.bounds import COUNT, STEP_SIZE, Range
from nnunetv2_guidino.cli import find, main
from nnunetv2_guidino.commands import options
from nnunetv2_guidino.errors import GuidinoError

PROBE = ["encoder", "probe", "-d", "1"]
GUIDE = ["guide", "-m", "m", "-i", "i", "-o", "o"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["encoder", "check", "x", "--layer", "0"], 'argument --layer: 0: expected "last", a number from 1'),
        (["encoder", "check", "x", "--layer", "-1"], 'argument --layer: -1: expected "last", a number from 1'),
        (["encoder", "check", "x", "--layer", "8,4"], "in ascending order"),
        (["encoder", "check", "x", "--size", "0"], "argument --size: 0: expected at least 1 and at most 8192"),
        (["encoder", "check", "x", "--size", "1e3"], "argument --size: 1e3: expected a whole number"),
        (["encoder", "check", "x", "-device", "tpu"], "invalid choice: 'tpu'"),
        ([*PROBE, "-f", "-1"], "argument -f: -1: expected at least 0"),
        ([*PROBE, "-f", "all"], "argument -f: all: expected a whole number"),
        (
            [*PROBE, "--layers", "0,1"],
            'argument --layers: 0,1: expected "all", or numbers from 1',
        ),
        ([*PROBE, "--sizes", "64", "0"], "argument --sizes: 0: expected at least 1"),
        ([*PROBE, "--steps", "0"], "argument --steps: 0: expected at least 1"),
        ([*PROBE, "--seeds", "-3"], "argument --seeds: -3: expected at least 1"),
        (
            [*PROBE, "--patches", "99999999"],
            "argument --patches: 99999999: expected at least 1 and",
        ),
        ([*PROBE, "--sizes", "-5"], "argument --sizes: -5: expected at least 1"),
        (["encoder", "export-lora", "m", "-o", "o", "-f", "-1"], "argument -f: -1: expected a fold: 0, 1, …"),
        ([*GUIDE, "-f", "first"], "argument -f: first: expected a fold: 0, 1, …"),
        (
            [*GUIDE, "-step_size", "nan"],
            "argument -step_size: nan: expected more than 0",
        ),
        (
            [*GUIDE, "-step_size", "0"],
            "argument -step_size: 0.0: expected more than 0",
        ),
        (["demo", "--epochs", "0"], "argument --epochs: 0: expected at least 1"),
        (["demo", "--seed", "-1"], "argument --seed: -1: expected at least 0"),
        (["plan", "--gpu_memory_target_in_gb", "0"], "argument --gpu_memory_target_in_gb: 0.0: expected more than 0"),
        (["plan", "--gpu_memory_target_in_gb", "inf"], "argument --gpu_memory_target_in_gb: inf: expected more than 0"),
    ],
)
def test_a_number_out_of_range_names_its_option(arguments, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("convert", "text", "value"),
    [
        (options.layer, "last", None),
        (options.layer, "8", 8),
        (options.layer, "8,10", [8, 10]),
        (options.layers, "all", None),
        (options.layers, "4,2,4", [2, 4]),
        (options.fold, "all", "all"),
        (options.fold, "07", "7"),
        (options.whole(COUNT), "3", 3),
        (options.number(STEP_SIZE), "1", 1.0),
    ],
)
def test_what_is_typed_is_understood(convert, text, value):
    assert convert(text) == value


@pytest.mark.parametrize("spelling", ["-device", "--device"])
def test_one_device_option_in_both_spellings(spelling):
    parser, _, words = find(["demo", spelling, "mps"])
    assert parser.parse_args(words).device == "mps"


@pytest.mark.parametrize("value", [0, -1, 4, float("nan"), float("inf"), True])
def test_a_notebook_meets_the_same_bounds(value):
    with pytest.raises(GuidinoError, match=f"x {value}: expected at least 1 and at most 3"):
        Range(1, 3).check("x", value)


@pytest.mark.parametrize("arguments", [["encoder", "check", "x"], GUIDE, ["demo"]], ids=lambda a: a[0])
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there_is_one_line(device, arguments, capsys, monkeypatch, tmp_path):
    import nnunetv2_guidino.tools.guide.guide_export  # noqa: F401  torch.compile looks at these functions when it is imported

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    assert main([*arguments, "-device", device]) == 1
    assert f"error: -device {device}: there is none here. Say -device cpu" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
