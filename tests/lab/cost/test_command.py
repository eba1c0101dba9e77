"""`guidino cost` on plans without data."""

import csv
import gc
import json
import weakref
from functools import partial

import numpy as np
import planned
import pytest
import torch

from nnunetv2_guidino.lab.cost import timing as measure
from nnunetv2_guidino.lab.cost.cost_report import RATIOS, read_costs, results, table
from nnunetv2_guidino.lab.cost.rounds import interleaved
from nnunetv2_guidino.lab.cost.timing import ENCODER, GUIDED, LORA, MEASURES, PLAIN, Costs, Key


@pytest.mark.slow
def test_measures_and_leaves_nothing_behind(planned_dataset, guidino, tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "STARTS", 2)  # each starts four processes
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
    seconds = interleaved(actions, 2, torch.device("cpu"))
    assert done == [keys[0], keys[0], keys[1], keys[1]] * 2
    assert {key: len(values) for key, values in seconds.items()} == dict.fromkeys(keys, 2)


def test_ratios_are_taken_round_by_round():
    seconds = np.array([1, 10, 2, 9, 3, 8])  # of rounds
    costs = made_up_costs({PLAIN: seconds, ENCODER: seconds, GUIDED: 2 * seconds, LORA: 3 * seconds})
    costs.values[Key("step", "B", PLAIN)] = [*(4 * seconds)]
    found = results(costs).set_index(["measure", "plans", "network"])
    guided, lora, other = (found.loc[("step", *of)] for of in (("A", GUIDED), ("A", LORA), ("B", PLAIN)))
    assert guided["median"] == 11
    assert [ratio(guided, name) for name in RATIOS] == [(2, 2, 2), (1, 1, 1), (1, 1, 1)]
    assert [ratio(lora, name) for name in ("times_plain", "encoder_passes")] == [(3, 3, 3), (2, 2, 2)]
    assert [ratio(other, name) for name in RATIOS] == [(4, 4, 4), None, None]


def ratio(line, name):
    """Median and interval of a ratio; None where all three are missing."""
    numbers = line[[name, f"{name}_low", f"{name}_high"]]
    return None if numbers.isna().all() else tuple(numbers)


def made_up_costs(steps):
    """Seconds of steps by network, in each round."""
    return Costs({"plans": {"A": {}, "B": {}}}, {Key("step", "A", network): [*of] for network, of in steps.items()})


def test_a_ratio_has_the_interval_of_its_median():
    """Of 20 independent values, the 6th and the 15th: P(5 < X < 15) = 95.9 % of a binomial X of 20 and one half."""
    factors = np.random.default_rng(0).permutation(20) + 1
    seconds = np.tile([1.0, 2.0], 10)
    _, guided = results(made_up_costs({PLAIN: seconds, GUIDED: factors * seconds})).iloc
    assert ratio(guided, "times_plain") == (10.5, 6, 15)


@pytest.mark.parametrize(
    "plain",
    [[2.0, 1.0, 2.0, 1.0, 2.0], [5.6, 5.5, 5.4, 4.3, 3.4, 2.9]],  # too few rounds; drift
)
def test_no_ratio_without_an_interval_or_with_drift(plain):
    costs = made_up_costs({PLAIN: np.array(plain), GUIDED: 1.1 * np.array(plain)})
    assert [ratio(line, "times_plain") for line in results(costs).iloc] == [None, None]
    assert ("the rounds drift" in table(costs)) == (len(plain) == 6)


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
def test_wrong_plans_are_one_line_before_anything_is_measured(planned_dataset, capsys, monkeypatch, change, complaint):
    from nnunetv2_guidino.cli import main

    monkeypatch.setattr(measure, "_in_fresh_processes", lambda trainings: pytest.fail("measured"))

    file = planned_dataset / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    plans["guidino"] |= change
    file.write_text(json.dumps(plans))
    assert main(["cost", "-d", planned.DATASET, "--rounds", "1"]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert complaint in line
