"""All folds share one plans.json: which fold may write it, and how trainings continue when it is damaged."""

import json
import threading
from pathlib import Path

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from planned import save_model_folder
from tiny_encoders import save_tiny_encoder

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.training.shared_plans import ModelFolder


def plans_file(trainer) -> Path:
    return Path(trainer.output_folder).parent / "plans.json"


@pytest.fixture
def start(planned_trainer, monkeypatch):
    """Start a fold as nnU-Net does, without data: nnU-Net writes plans.json and its companions in place."""

    def writes_in_place(trainer):
        if not trainer.was_initialized:
            trainer.initialize()
        trainer.dataloader_train = trainer.get_dataloaders()
        with (Path(trainer.output_folder_base) / "plans.json").open("w") as file:
            for part in json.JSONEncoder().iterencode(trainer.plans_manager.plans):
                file.write(part)
                file.flush()
                trainer.while_writing()
        trainer.plot_network_architecture()

    monkeypatch.setattr(nnUNetTrainer, "on_train_start", writes_in_place)
    monkeypatch.setattr(nnUNetTrainer, "get_dataloaders", lambda self: None)
    monkeypatch.setattr(nnUNetTrainer, "plot_network_architecture", lambda self: None)

    def start(fold, while_writing=lambda: None, name="nnUNetTrainerGuiDINO", checkpoint=None, **settings):
        trainer = planned_trainer(name, fold=fold, **settings)
        trainer.while_writing = while_writing
        if checkpoint:
            trainer.load_checkpoint(checkpoint)
        trainer.on_train_start()
        return trainer

    return start


def test_another_guide_in_the_same_model_folder_is_refused(planned_trainer, tiny_encoder):
    first = planned_trainer("nnUNetTrainerGuiDINO", fold=0)
    first.initialize()
    save_model_folder(first)
    planned_trainer("nnUNetTrainerGuiDINO", fold=1).initialize()
    other = planned_trainer("nnUNetTrainerGuiDINO", fold=1, guide={"gate_at": "input"})
    with pytest.raises(GuidinoError, match="fold_0 in .* was trained with another guide"):
        other.initialize()


def test_resuming_needs_no_encoder_and_refuses_other_settings(planned_trainer, monkeypatch):
    first = planned_trainer("nnUNetTrainerGuiDINO")
    first.initialize()
    file = save_model_folder(first)
    monkeypatch.setenv("GUIDINO_ENCODER", "/gone")
    again = planned_trainer("nnUNetTrainerGuiDINO")
    again.load_checkpoint(file)
    for name, weight in first.network.state_dict().items():
        assert torch.equal(weight, again.network.state_dict()[name]), name
    changed = planned_trainer("nnUNetTrainerGuiDINO", guide={"gate_at": "bottleneck"})
    with pytest.raises(
        GuidinoError, match="guidino.gate_at is 'bottleneck' in the plans, but this model was trained with 'skips'"
    ):
        changed.load_checkpoint(file)


def test_a_second_fold_started_before_the_first_checkpoint_goes_by_the_same_guide(start):
    first = start(0)
    start(1)
    before = plans_file(first).read_text()
    with pytest.raises(
        GuidinoError, match="was begun with another guide: guidino.gate_at is 'input' here and 'skips' there"
    ):
        start(2, guide={"gate_at": "input"})
    assert plans_file(first).read_text() == before


def test_a_fold_that_is_alone_may_choose_again(start):
    start(0)
    trainer = start(0, guide={"gate_at": "input"})
    assert json.loads(plans_file(trainer).read_text())["guidino"]["gate_at"] == "input"


def test_other_weights_of_the_same_architecture_are_refused(start, tmp_path):
    start(0)
    other = save_tiny_encoder("dinov3", tmp_path / "other")
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(GuidinoError, match="guidino.encoder_source.sha256 is '.*' here and '.*' there"):
        start(1, guide={"encoder": str(other)})


def test_what_another_version_of_transformers_says_more_is_no_other_guide(start):
    first = start(0)
    plans = json.loads(plans_file(first).read_text())
    plans["guidino"]["encoder_config"]["of_another_version"] = 1
    plans["guidino"]["versions"]["transformers"] = "5.99"
    plans_file(first).write_text(json.dumps(plans))
    start(1)


def test_of_folds_that_start_at_once_with_two_guides_one_guide_gets_through(tmp_path):
    guides = [GuideConfig(encoder="a/b", prototypes=8 + n % 2) for n in range(16)]
    folders = [tmp_path / f"fold_{n}" for n in range(16)]
    for folder in folders:
        folder.mkdir()
    barrier, through = threading.Barrier(16), []

    def claim(folder, config):
        barrier.wait()
        try:
            ModelFolder(folder).claim(config, {"guidino": config.to_plans()})
        except GuidinoError:
            return
        through.append(config.prototypes)

    threads = [threading.Thread(target=claim, args=pair) for pair in zip(folders, guides, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorded = json.loads((tmp_path / "plans.json").read_text())["guidino"]["prototypes"]
    assert through == [recorded] * 8
    assert not [file for file in tmp_path.rglob("*") if file.is_file() and file.name != "plans.json"]


def test_whoever_reads_plans_json_while_a_fold_starts_finds_it_whole(start):
    file = plans_file(start(0))
    read = []
    start(1, while_writing=lambda: read.append(json.loads(file.read_text())["guidino"]["gate_at"]))
    assert set(read) == {"skips"}
    assert len(read) > 100


def test_a_start_that_is_killed_leaves_the_earlier_plans_json(start):
    file = plans_file(start(0))
    before = file.read_text()

    def kill():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(1, while_writing=kill)
    assert file.read_text() == before
    assert {path.name for path in file.parent.iterdir()} == {"plans.json", "fold_0", "fold_1"}


@pytest.mark.parametrize("torn", ['{"dataset_name": "Datas', "", None], ids=["half", "empty", "lost"])
class TestDamage:
    """Damage that a killed 0.1.0 or nnU-Net leaves, or a user's mistake."""

    def damaged(self, trainer, torn) -> Path:
        file = plans_file(trainer)
        if torn is None:
            file.unlink()
        else:
            file.write_text(torn)
        return file

    def test_a_training_that_is_continued_writes_it_anew(self, torn, start):
        first = start(0)
        checkpoint = save_model_folder(first)
        file = self.damaged(first, torn)
        again = start(0, checkpoint=checkpoint)
        assert GuideConfig.from_plans(json.loads(file.read_text())) == first.guide_config == again.guide_config

    def test_a_validation_needs_none(self, torn, start, planned_trainer):
        first = start(0)
        checkpoint = save_model_folder(first)
        self.damaged(first, torn)
        again = planned_trainer("nnUNetTrainerGuiDINO")
        again.load_checkpoint(checkpoint)
        assert again.guide_config == first.guide_config

    def test_another_fold_goes_by_the_checkpoints(self, torn, start):
        first = start(0)
        save_model_folder(first)
        file = self.damaged(first, torn)
        with pytest.raises(GuidinoError, match="fold_0 in .* was trained with another guide: guidino.gate_at"):
            start(1, guide={"gate_at": "input"})
        start(1)
        assert json.loads(file.read_text())["guidino"]["gate_at"] == "skips"

    def test_without_a_checkpoint_one_line_names_the_file(self, torn, start):
        file = self.damaged(start(0), torn)
        if torn is None:
            start(1)
            return
        with pytest.raises(GuidinoError, match=f"{file} is no JSON file, or was cut short: .*remove it") as error:
            start(1)
        assert "\n" not in str(error.value)


def test_a_checkpoint_that_does_not_go_with_its_folder_is_not_continued(start):
    first = start(0)
    checkpoint = save_model_folder(first)
    plans = json.loads(plans_file(first).read_text())
    plans["guidino"]["gate_at"] = "input"
    plans_file(first).write_text(json.dumps(plans))
    with pytest.raises(GuidinoError, match="guidino.gate_at is 'input' in plans.json and 'skips' there"):
        start(0, checkpoint=checkpoint)


def test_a_checkpoint_cut_short_is_named(start):
    checkpoint = Path(save_model_folder(start(0)))
    checkpoint.write_bytes(checkpoint.read_bytes()[:5000])
    with pytest.raises(GuidinoError, match=f"{checkpoint} cannot be read as a checkpoint of nnU-Net"):
        start(0, checkpoint=str(checkpoint))
