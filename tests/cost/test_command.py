"""`guidino cost` on plans without data."""

import csv
import gc
import json
import weakref
from functools import partial

import planned
import pytest
import torch

from nnunetv2_guidino.cost import measure
from nnunetv2_guidino.cost.measure import ENCODER, GUIDED, LORA, MEASURES, PLAIN, Costs, Key
from nnunetv2_guidino.cost.report import read_costs, rows


@pytest.mark.slow
def test_measures_and_leaves_nothing_behind(planned_dataset, guidino, tmp_path):
    before = {path: path.stat().st_mtime for path in planned_dataset.parent.rglob("*")}
    options = ("--beside", "nnUNetPlansB", "--rounds", 2, "-o", tmp_path / "cost")
    text = guidino("cost", "-d", 999, *options)
    assert {path: path.stat().st_mtime for path in planned_dataset.parent.rglob("*")} == before
    costs = read_costs(tmp_path / "cost" / "cost.json")
    networks = {("nnUNetPlans", network) for network in (PLAIN, GUIDED, LORA)} | {("nnUNetPlansB", PLAIN)}
    for name in MEASURES:
        timed = set() if name in ("memory", "start") else {("nnUNetPlans", ENCODER)}
        merged = {("nnUNetPlans", LORA)} if name in ("tile", "image") else set()
        assert {key[1:] for key in costs.values if key.measure == name} == (networks | timed) - merged
    assert all(value > 0 for values in costs.values.values() for value in values)
    assert len(costs.values[Key("step", "nnUNetPlans", GUIDED)]) == 2
    assert costs.about["plans"]["nnUNetPlans"]["batch_size"] == 2
    assert "/" not in costs.about["plans"]["nnUNetPlans"]["encoder"]
    assert costs.about["versions"]["torch"]
    assert (tmp_path / "cost" / "cost.txt").read_text() in text + "\n"
    with (tmp_path / "cost" / "cost.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(costs.values)
    assert (tmp_path / "cost" / "cost.png").stat().st_size > 10_000


def test_what_trains_is_gone_when_folds_predict(planned_dataset, monkeypatch):
    """Gradients, momentum and five folds of all networks together are more than a machine has."""
    trainers = []

    def interleaved(actions, *_):
        assert not any(trainer() for trainer in trainers)
        methods = [action.func for key, action in actions.items() if key.measure == "step" and key.network != ENCODER]
        trainers.extend(weakref.ref(method.__self__) for method in methods)
        return {key: [1.0] for key in actions}

    monkeypatch.setattr(measure, "_in_fresh_processes", lambda trainings: ())
    monkeypatch.setattr(measure, "interleaved", interleaved)
    gc.disable()  # by itself it comes at some time or other
    try:
        costs = measure.measure(str(planned.DATASET))
    finally:
        gc.enable()
    assert len(trainers) == 3
    assert {key.measure for key in costs.values} == {"step", "tile", "image", "folds"}


def test_what_is_timed_has_just_been_run_before():
    """Other networks have driven its memory out of caches meanwhile."""
    done = []
    keys = [Key("step", "A", network) for network in (PLAIN, GUIDED)]
    actions = {key: partial(done.append, key) for key in keys}
    seconds = measure.interleaved(actions, 2, torch.device("cpu"))
    assert done == [keys[0], keys[0], keys[1], keys[1]] * 2
    assert {key: len(values) for key, values in seconds.items()} == dict.fromkeys(keys, 2)


def test_ratios_are_taken_round_by_round():
    def values(*seconds):
        return list(seconds)

    of = {PLAIN: values(1, 10, 2), ENCODER: values(1, 10, 2), GUIDED: values(2, 20, 4), LORA: values(3, 30, 6)}
    costs = Costs({"plans": {"A": {}, "B": {}}}, {Key("step", "A", network): value for network, value in of.items()})
    costs.values[Key("step", "B", PLAIN)] = values(4, 40, 8)
    found = {row.key: row for row in rows(costs)}
    guided, lora, other = (found[Key("step", *of)] for of in (("A", GUIDED), ("A", LORA), ("B", PLAIN)))
    assert (guided.median, guided.plain, guided.limit, guided.passes) == (4, 2, 1, 1)
    assert (lora.plain, lora.passes) == (3, 2)
    assert (other.plain, other.limit, other.passes) == (4, None, None)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"encoder": "nobody/nothing"},
            "encoder nobody/nothing is neither on this machine nor in `guidino encoder list`",
        ),
        ({"encodr": "x"}, "encodr"),
    ],
)
def test_what_is_wrong_is_one_line(planned_dataset, capsys, change, complaint):
    from nnunetv2_guidino.cli import main

    file = planned_dataset / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["guidino"] |= change
    file.write_text(json.dumps(plans))
    assert main(["cost", "-d", planned.DATASET, "--rounds", "1"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert complaint in line
