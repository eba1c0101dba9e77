"""The parts of a guided step, which are reported on a GPU; here the CPU plays one."""

import pytest

from nnunetv2_guidino.lab.cost import step_parts
from nnunetv2_guidino.lab.cost.cost_report import table
from nnunetv2_guidino.lab.cost.random_training import Training, build_trainer
from nnunetv2_guidino.lab.cost.timing import GUIDED, TRAINERS, Costs, Key


def test_each_part_of_a_step_is_timed(planned_dataset, monkeypatch):
    trainer = build_trainer(Training(planned_dataset / "nnUNetPlans.json", "2d", TRAINERS[GUIDED]))
    done = []

    interleaved = step_parts.interleaved
    monkeypatch.setattr(
        step_parts, "interleaved", lambda actions, *of: done.extend(actions) or interleaved(actions, *of)
    )
    found = step_parts.parts(trainer, rounds=1)
    losses = [*(f"{name} loss" for name in trainer.loss.weights), "late fusion's pixels"]
    assert done == ["encoder", "guided network", "planned network", *losses, "picture"]
    assert [*found] == ["encoder", "TokenBook and gates", *losses, "a picture"]
    assert all(found[name] > 0 for name in found if name != "TokenBook and gates")


@pytest.mark.parametrize(
    ("about", "line"),
    [({}, "are measured on a GPU only"), ({"parts": {"encoder": 0.0123}}, "adds to a step, eager: encoder 0.0123 s")],
)
def test_the_table_ends_with_the_parts(about, line):
    costs = Costs({"plans": {"A": {}}, **about}, {Key("step", "A", "plain"): [1.0]})
    assert line in table(costs).splitlines()[-1]
