"""nnU-Net finds our trainers by their names, and our errors end its commands with one line."""

import os
import pickle
import re
import subprocess
import sys
from pathlib import Path

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

import nnunetv2_guidino
from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.training import naming
from nnunetv2_guidino.training.baseline import nnUNetTrainerGuiDINOBaseline
from nnunetv2_guidino.training.guided import nnUNetTrainerGuiDINO
from nnunetv2_guidino.training.naming import trainer_class


@pytest.mark.parametrize(
    ("name", "epochs", "iterations", "seed"),
    [
        ("nnUNetTrainerGuiDINO", None, None, None),
        ("nnUNetTrainerGuiDINO_5epochs", 5, None, None),
        ("nnUNetTrainerGuiDINO_2epochs_10iterations_seed3", 2, 10, 3),
        ("nnUNetTrainerGuiDINO_seed0", None, None, 0),
        ("nnUNetTrainerGuiDINOLoRA", None, None, None),
        ("nnUNetTrainerGuiDINOPaper", 400, None, None),
        ("nnUNetTrainerGuiDINOPaper_3epochs", 3, None, None),
        ("nnUNetTrainerGuiDINOPaperLoRA_seed2", 400, None, 2),
        ("nnUNetTrainerGuiDINOPaperLoRA", 400, None, None),
        ("nnUNetTrainerGuiDINOLoRA_3epochs_seed1", 3, None, 1),
        ("nnUNetTrainerGuiDINOBaseline", None, None, None),
        ("nnUNetTrainerGuiDINOBaseline_7iterations_seed12", None, 7, 12),
        ("nnUNetTrainerGuiDINOBaselinePaper", 400, None, None),
        ("nnUNetTrainerGuiDINOBaselinePaper_3epochs_seed1", 3, None, 1),
    ],
)
def test_names_mean_what_they_say(name, epochs, iterations, seed):
    trainer = trainer_class(name)
    assert trainer.__name__ == name
    assert issubclass(trainer, nnUNetTrainerGuiDINOBaseline)
    assert issubclass(trainer, nnUNetTrainerGuiDINO) == ("Baseline" not in name)
    assert (trainer.epochs, trainer.iterations, trainer.seed) == (epochs, iterations, seed)
    assert (trainer.adamw, trainer.largest_batch) == ((True, 4) if "Paper" in name else (False, None))
    assert getattr(trainer, "lora", None) == (LoRA() if "LoRA" in name else None)
    assert trainer_class(name) is trainer
    assert pickle.loads(pickle.dumps(trainer)) is trainer


def test_two_classes_of_ours_lie_between_nnunet_s_trainer_and_a_named_one():
    named, *ours, stock, _ = trainer_class("nnUNetTrainerGuiDINOPaperLoRA_1epochs").__mro__
    assert named.__name__ == "nnUNetTrainerGuiDINOPaperLoRA_1epochs"
    assert ours == [nnUNetTrainerGuiDINO, nnUNetTrainerGuiDINOBaseline]
    assert stock is nnUNetTrainer


@pytest.mark.parametrize(
    "name",
    [
        "nnUNetTrainerGuiDINO_epochs",
        "nnUNetTrainerGuiDINO_0epochs",
        "nnUNetTrainerGuiDINO_seed1_5epochs",
        "nnUNetTrainerGuiDINOBaselineLoRA",
        "nnUNetTrainerGuiDINOBaselinePaperLoRA",
        "nnUNetTrainerGuiDINOPaperBaseline",
        "nnUNetTrainerGuiDINOLoRAPaper",
        "nnUNetTrainerGuiDINOX",
    ],
)
def test_a_name_outside_the_grammar_is_not_ours_and_the_grammar_is_told(name, capfd):
    with pytest.raises(RuntimeError, match=f"Could not find requested nnunet trainer {name}"):
        recursive_find_trainer_class_by_name(name)
    told = f"there is no trainer {name}. The names are nnUNetTrainerGuiDINO[Paper][LoRA][_<N>epochs][_<M>iterations]"
    assert told in capfd.readouterr().err
    with pytest.raises(
        GuidinoError, match=r"there is no trainer .*_<N>epochs\]\[_<M>iterations\]\[_<n>cases\]\[_seed<k>\]"
    ):
        trainer_class(name)


def test_a_user_s_own_subclass_as_the_page_has_it(tmp_path, monkeypatch, planned_trainer):
    """nnU-Net finds the class and reads its arguments by their names."""
    page = Path(__file__).parents[2] / "docs" / "reference" / "trainers.md"
    (code,) = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    (tmp_path / "mine.py").write_text(code)
    monkeypatch.setenv("nnUNet_extTrainer", f"{nnunetv2_guidino.registration_folder()}:{tmp_path}")
    found = recursive_find_trainer_class_by_name("nnUNetTrainerGuiDINOMine")
    assert found.__name__ == "nnUNetTrainerGuiDINOMine"
    assert issubclass(found, nnUNetTrainerGuiDINO)
    monkeypatch.setattr(naming, "trainer_class", lambda name: found)
    trainer = planned_trainer("")
    trainer.initialize()
    assert trainer.my_init_kwargs["configuration"] == "2d"
    assert trainer.optimizer.param_groups[0]["lr"] == trainer.initial_lr == 3e-4


def search(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process in which nnU-Net has searched for one of our trainers."""
    look = "from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name as find\n"
    look += "from nnunetv2_guidino.errors import GuidinoError\nfind('nnUNetTrainerGuiDINO_1epochs')\n"
    return subprocess.run(
        [sys.executable, "-c", look + code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def test_what_the_user_can_put_right_is_one_line_in_nnunet_s_commands():
    done = search("try:\n 1/0\nexcept ZeroDivisionError as e:\n raise GuidinoError('plans.json: do this') from e")
    assert done.returncode == 1
    assert done.stderr == "nnunetv2-guidino: error: plans.json: do this\n"


def test_other_errors_keep_their_stack():
    done = search("{}['key']")
    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert done.stderr.endswith("KeyError: 'key'\n")
