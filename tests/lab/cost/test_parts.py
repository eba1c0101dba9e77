"""The parts of a guided step, which are reported on a GPU; here the CPU plays one."""

import pytest
import torch

from nnunetv2_guidino.lab.cost.cost_report import table
from nnunetv2_guidino.lab.cost.step_parts import parts
from nnunetv2_guidino.lab.cost.timing import GUIDED, TRAINERS, Costs, Key, interleaved
from nnunetv2_guidino.tools.doctor.random_training import Training, build_trainer, dummy_batch


def test_each_part_of_a_step_is_timed(planned_dataset):
    trainer = build_trainer(Training(planned_dataset / "nnUNetPlans.json", "2d", TRAINERS[GUIDED]))
    done = []

    def time_each(actions):
        done.extend(actions)
        seconds = interleaved({Key("part", "", name): act for name, act in actions.items()}, 1, torch.device("cpu"))
        return {key.network: values for key, values in seconds.items()}

    found = parts(trainer, dummy_batch(trainer), time_each)
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
