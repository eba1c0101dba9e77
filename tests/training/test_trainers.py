from pathlib import Path

import pytest
import torch

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.files import whole_file


@pytest.mark.parametrize(("iterations", "validation"), [(250, 50), (10, 2), (3, 1), (1, 1), (1000, 200)])
def test_validation_iterations_shrink_in_proportion(iterations, validation, planned_trainer):
    trainer = planned_trainer(f"nnUNetTrainerGuiDINOBaseline_{iterations}iterations")
    assert (trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch) == (iterations, validation)


def test_frozen_encoder_is_not_in_the_optimizer(planned_trainer):
    trainer = planned_trainer("nnUNetTrainerGuiDINO")
    trainer.initialize()
    optimized = {id(p) for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in trainer.network.named_parameters():
        assert (id(parameter) in optimized) == (not name.startswith("token_encoder.vit")), name
    assert type(trainer.optimizer) is torch.optim.SGD


@pytest.mark.parametrize(("planned", "used"), [(2, 2), (12, 4)])
def test_paper_s_recipe(planned, used, planned_trainer):
    trainer = planned_trainer("nnUNetTrainerGuiDINOPaper")
    assert trainer.num_epochs == 400
    trainer = planned_trainer("nnUNetTrainerGuiDINOPaperLoRA_10epochs", batch_size=planned)
    trainer.initialize()
    assert trainer.batch_size == used
    assert type(trainer.optimizer) is torch.optim.AdamW
    assert [group["lr"] for group in trainer.optimizer.param_groups] == [1e-4, 5e-4]
    trainer.lr_scheduler.step(5)
    assert trainer.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4 * 0.5**0.9)


def test_the_paper_s_baseline_has_its_recipe(planned_trainer):
    recipes = []
    for kind in ("Paper", "BaselinePaper"):
        trainer = planned_trainer(f"nnUNetTrainerGuiDINO{kind}", batch_size=12)
        trainer.initialize()
        optimizer = trainer.optimizer
        settings = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
        recipes.append((type(optimizer), settings, type(trainer.lr_scheduler), trainer.num_epochs, trainer.batch_size))
    assert recipes[0] == recipes[1]


@pytest.mark.parametrize(
    ("name", "guide", "rate"),
    [
        ("nnUNetTrainerGuiDINO", {}, 1e-2),
        ("nnUNetTrainerGuiDINO", {"lora": {"rank": 2}}, 1e-4),
        ("nnUNetTrainerGuiDINOLoRA", {}, 1e-4),
        ("nnUNetTrainerGuiDINOPaper", {}, 1e-4),
        ("nnUNetTrainerGuiDINOBaseline", {}, 1e-2),
        ("nnUNetTrainerGuiDINOBaselinePaper", {}, 1e-4),
    ],
)
def test_the_learning_rate_that_is_logged_is_the_one_that_is_used(name, guide, rate, planned_trainer, monkeypatch):
    trainer = planned_trainer(name, guide=guide)
    logged = {}
    monkeypatch.setattr(trainer.logger, "update_config", logged.update)
    trainer.initialize()
    assert logged["hparas"]["initial_lr"] == rate
    assert trainer.optimizer.param_groups[0]["lr"] == rate


def test_a_subclass_may_choose_its_learning_rate(planned_trainer):
    trainer = planned_trainer("nnUNetTrainerGuiDINOPaper")
    trainer.initial_lr = 3e-4
    trainer.initialize()
    assert trainer.optimizer.param_groups[0]["lr"] == 3e-4


def test_seed_fixes_the_network(planned_trainer):
    states = []
    for seed in (0, 0, 1):
        trainer = planned_trainer(f"nnUNetTrainerGuiDINO_seed{seed}")
        trainer.initialize()
        states.append(trainer.network.tokenbook.prototypes)
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_log_and_plans_tell_what_was_loaded(planned_trainer, tiny_encoder):
    trainer = planned_trainer("nnUNetTrainerGuiDINO")
    trainer.initialize()
    section = trainer.plans_manager.plans["guidino"]
    assert section["encoder_source"]["folder"] == str(tiny_encoder("dinov3"))
    assert section["encoder_config"]["model_type"] == "dinov3_vit"
    log = Path(trainer.log_file).read_text()
    assert section["encoder_source"]["sha256"] in log
    assert "dinov3-license, https://ai.meta.com" in log


def test_failed_checkpoint_leaves_the_last_good_one(planned_trainer, tmp_path, monkeypatch):
    trainer = planned_trainer("nnUNetTrainerGuiDINO")
    trainer.initialize()
    file = tmp_path / "checkpoint_latest.pth"
    trainer.save_checkpoint(str(file))
    good = file.read_bytes()

    def full_disk(checkpoint, filename):
        Path(filename).write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(GuidinoError, match=f"{file} cannot be written: No space left"):
        trainer.save_checkpoint(str(file))
    assert file.read_bytes() == good
    assert [p.name for p in tmp_path.iterdir() if "checkpoint" in p.name] == [file.name]


def test_other_gpus_leave_the_checkpoint_of_the_first_alone(planned_trainer, tmp_path):
    """All ranks call save_checkpoint at once; only rank 0 writes."""
    trainer = planned_trainer("nnUNetTrainerGuiDINO")
    trainer.initialize()
    with whole_file(tmp_path / "checkpoint_latest.pth") as being_written:
        being_written.write_bytes(b"by rank 0")
        trainer.local_rank = 1
        trainer.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
        assert list(tmp_path.rglob("*checkpoint*")) == [being_written]


def test_disabled_checkpointing_writes_nothing(planned_trainer, tmp_path):
    trainer = planned_trainer("nnUNetTrainerGuiDINO")
    trainer.initialize()
    trainer.disable_checkpointing = True
    trainer.save_checkpoint(str(tmp_path / "checkpoint_latest.pth"))
    assert not list(tmp_path.glob("checkpoint*"))


@pytest.mark.parametrize(
    ("labels", "order", "heads", "guides"),
    [
        ({"background": 0, "polyp": 1}, None, 2, 1),
        ({"background": 0, "a": 1, "b": 2, "ignore": 3}, None, 3, 2),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "inside": 3}, [1, 2, 3], 3, 3),
        ({"background": 0, "whole": [1, 2], "core": 2, "ignore": 3}, [1, 2], 2, 2),
    ],
    ids=["one class", "labels, ignore", "regions", "regions, ignore"],
)
def test_a_guide_for_each_class_or_region(labels, order, heads, guides, planned_trainer):
    trainer = planned_trainer(
        "nnUNetTrainerGuiDINO", guide={"guides": "classes"}, labels=labels, regions_class_order=order
    )
    trainer.initialize()
    assert trainer.plans_manager.plans["guidino"]["classes"] == guides
    segmentation, *_, guide = trainer.network(torch.randn(2, 3, 32, 48))
    assert (segmentation.shape[1], guide.shape[1]) == (heads, guides)
