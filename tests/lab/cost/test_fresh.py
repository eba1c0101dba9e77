"""Trainings in processes of their own: a plain network is started as those who have no guide start it."""

import json
import subprocess
import sys

import planned
import pytest

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lab.cost.fresh import NNUNETS_OWN, in_fresh_process
from nnunetv2_guidino.lab.cost.random_training import Training
from nnunetv2_guidino.lab.cost.timing import GUIDED, PLAIN, TRAINERS, with_stock_trainer

OURS = "nnunetv2_guidino.model.networks.nnwnet.NnWNet"


@pytest.mark.parametrize(
    ("network", "architecture", "trainer"),
    [(PLAIN, None, NNUNETS_OWN), (PLAIN, OURS, TRAINERS[PLAIN]), (GUIDED, None, TRAINERS[GUIDED])],
)
def test_networks_without_guide_have_nnunet_s_own_trainer(tmp_path, network, architecture, trainer):
    plans = planned.plans({}).plans
    if architecture:
        plans["configurations"]["2d"]["architecture"]["network_class_name"] = architecture
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    training = Training(tmp_path / "plans.json", "2d", TRAINERS[network])
    assert with_stock_trainer(training).trainer == trainer


def test_nnunet_s_own_trainer_is_imported_alone():
    code = (
        "import sys; from nnunetv2_guidino.lab.cost.fresh import import_trainer;"
        "import_trainer('nnUNetTrainer');"
        "sys.exit('transformers' in sys.modules or 'nnunetv2_guidino.training.guided' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_error_of_the_process_is_one_line(tmp_path):
    with pytest.raises(GuidinoError, match=r"in a process of its own \(exit code 1\): .*there is no trainer"):
        in_fresh_process(Training(tmp_path / "plans.json", "2d", "nnUNetTrainerGuiDINO_x"))


@pytest.mark.slow
def test_nnunet_s_own_trainer_starts_and_steps(planned_dataset):
    training = Training(planned_dataset / "nnUNetPlans.json", "2d", NNUNETS_OWN)
    fresh = in_fresh_process(training, steps=1)
    assert fresh.start_seconds > 0
    assert fresh.peak_bytes is None or fresh.peak_bytes > 0
