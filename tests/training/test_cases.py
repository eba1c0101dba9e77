"""Trainers named …_<n>cases train on a part of the fold's training cases."""

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunetv2_guidino.errors import GuidinoError

TRAINING, VALIDATION = [f"case{i}" for i in range(120)], ["v0", "v1"]


@pytest.fixture
def training_cases(planned_trainer, monkeypatch):
    """Return a function from a trainer's name to its training cases; the fold has 120."""

    def cases(name: str) -> list[str]:
        training, validation = planned_trainer(name).do_split()
        assert validation == VALIDATION
        return training

    monkeypatch.setattr(nnUNetTrainer, "do_split", lambda self: (TRAINING[::-1], VALIDATION))
    return cases


def test_without_the_part_the_fold_is_nnunet_s(training_cases):
    assert training_cases("nnUNetTrainerGuiDINOBaseline_seed1") == TRAINING[::-1]


def test_smaller_numbers_lie_within_larger_ones(training_cases):
    chosen = {n: set(training_cases(f"nnUNetTrainerGuiDINOBaseline_{n}cases_seed1")) for n in (25, 50, 100)}
    assert [len(cases) for cases in chosen.values()] == [25, 50, 100]
    assert chosen[25] < chosen[50] < chosen[100] < set(TRAINING)


def test_the_seed_chooses_and_the_method_does_not(training_cases):
    guided = training_cases("nnUNetTrainerGuiDINO_5epochs_25cases_seed1")
    assert guided == training_cases("nnUNetTrainerGuiDINOBaseline_25cases_seed1")
    assert guided != training_cases("nnUNetTrainerGuiDINOBaseline_25cases_seed2")
    assert training_cases("nnUNetTrainerGuiDINO_3cases") == ["case103", "case42", "case47"]  # whatever NumPy comes


def test_more_than_there_are_is_refused(training_cases):
    with pytest.raises(GuidinoError, match="asks for 121 training cases; fold 0 of .* has 120"):
        training_cases("nnUNetTrainerGuiDINO_121cases")
