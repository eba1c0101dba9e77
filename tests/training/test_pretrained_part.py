"""Our trainers load and record the pretrained part of a network, unless a checkpoint brings all weights."""

import json
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from safetensors.torch import load_file
from timm_weights import save_fake

from nnunetv2_guidino.errors import GuidinoError

BASELINE, GUIDED = "nnUNetTrainerGuiDINOBaseline", "nnUNetTrainerGuiDINO"
EMBEDDING = "encoder.embedding.weight"
SIZE = (64, 96)


@pytest.fixture
def swin(tmp_path) -> Path:
    return save_fake("swin_unet", tmp_path / "swin")


@pytest.fixture
def trainer(planned_trainer, swin, monkeypatch):
    """Return a function that builds a trainer of a tiny Swin-Unet with fake pretrained weights."""
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)

    def build(name: str, pretrained: object = swin, **settings):
        network = {"pretrained": str(pretrained)}
        return planned_trainer(name, architecture="swin_unet", network=network, patch_size=SIZE, **settings)

    return build


def record(trainer):
    return trainer.plans_manager.plans["configurations"]["2d"]["architecture"].get("pretrained_source")


def weights(trainer):
    return trainer.segmentation_network().state_dict()


@pytest.mark.parametrize("name", [BASELINE, f"{BASELINE}Paper", GUIDED, f"{GUIDED}PaperLoRA"])
def test_it_is_loaded_and_recorded(name, trainer, swin):
    trainer = trainer(name)
    trainer.initialize()
    theirs = load_file(swin / "model.safetensors")
    assert torch.equal(weights(trainer)[EMBEDDING], theirs["patch_embed.proj.weight"])
    assert record(trainer)["folder"] == str(swin)
    assert record(trainer)["sha256"] in Path(trainer.log_file).read_text()
    assert trainer.my_init_kwargs["plans"] is trainer.plans_manager.plans  # which checkpoints hold
    trainer.network(torch.randn(2, 3, *SIZE))


def test_the_folder_is_not_there(trainer):
    with pytest.raises(GuidinoError, match="encoder /no/such/folder: there is no such folder"):
        trainer(BASELINE, pretrained="/no/such/folder").initialize()


@pytest.fixture
def checkpoint(trainer, swin):
    """Return a function that saves a checkpoint with changed weights, and removes the fake weights."""

    def save(name: str):
        trained = trainer(name)
        trained.initialize()
        torch.nn.init.normal_(trained.segmentation_network().encoder.embedding.weight)
        file = str(Path(trained.output_folder) / "checkpoint_final.pth")
        trained.save_checkpoint(file)
        (swin / "model.safetensors").unlink()
        return trained, file

    return save


@pytest.mark.parametrize("name", [BASELINE, GUIDED])
def test_a_resumed_training_needs_no_folder_and_keeps_the_record(name, trainer, checkpoint):
    trained, _ = checkpoint(name)
    resumed = trainer(name)
    maybe_load_checkpoint(resumed, continue_training=True, validation_only=False)
    assert torch.equal(weights(resumed)[EMBEDDING], weights(trained)[EMBEDDING])
    if name == BASELINE:
        resumed.on_train_start()
    assert record(resumed) == record(trained)
    resumed.network(torch.randn(2, 3, *SIZE))


def test_weights_that_take_its_place_leave_no_record_of_it(trainer, checkpoint, swin):
    trained, file = checkpoint(BASELINE)
    save_fake("swin_unet", swin)
    fresh = trainer(f"{BASELINE}_seed1")
    maybe_load_checkpoint(fresh, continue_training=False, validation_only=False, pretrained_weights_file=file)
    fresh.on_train_start()
    assert record(fresh) is None
    assert torch.equal(weights(fresh)[EMBEDDING], weights(trained)[EMBEDDING])


def test_to_predict_nothing_is_loaded(trainer, checkpoint):
    trained, file = checkpoint(BASELINE)
    plans = json.loads(json.dumps(trained.plans_manager.plans))
    manager = type(trained.plans_manager)(plans)
    network = trained.build_network_architecture(manager, manager.get_configuration("2d"), 3, 2, False)
    network.load_state_dict(torch.load(file, weights_only=False)["network_weights"])
    with torch.no_grad():
        network(torch.randn(1, 3, *SIZE))


def test_stock_nnunet_refuses_and_names_ours(trainer):
    ours = trainer(BASELINE)
    plans = {**ours.plans_manager.plans, "continue_training": False}
    stock = nnUNetTrainer(plans, "2d", 0, ours.dataset_json, torch.device("cpu"))
    stock.initialize()
    batch = {"data": torch.randn(2, 3, *SIZE), "target": [torch.zeros(2, 1, *SIZE)] * 2}
    stock.network.train()
    with pytest.raises(GuidinoError, match="train it with -tr nnUNetTrainerGuiDINOBaseline"):
        stock.train_step(batch)


@pytest.mark.parametrize(
    ("name", "tuning", "optimizer", "rates"),
    [
        (BASELINE, "frozen", torch.optim.SGD, [1e-2]),
        (BASELINE, "full", torch.optim.SGD, [1e-2]),
        (BASELINE, "lora", torch.optim.AdamW, [1e-4, 2e-4]),
        (f"{BASELINE}Paper", "frozen", torch.optim.AdamW, [1e-4]),
        (f"{BASELINE}Paper", "lora", torch.optim.AdamW, [1e-4, 2e-4]),
        (GUIDED, "lora", torch.optim.AdamW, [1e-4, 2e-4]),
        (f"{GUIDED}LoRA", "frozen", torch.optim.AdamW, [1e-4, 5e-4]),
        (f"{GUIDED}LoRA", "lora", torch.optim.AdamW, [1e-4, 2e-4, 5e-4]),
    ],
)
def test_only_what_is_trained_is_stepped_and_each_transformer_s_adapters_at_their_rate(
    name, tuning, optimizer, rates, planned_trainer
):
    network = {"tuning": tuning, "lora": {"learning_rate": 2e-4}}
    trainer = planned_trainer(name, architecture="segdino", network=network, patch_size=SIZE)
    trainer.initialize()
    assert type(trainer.optimizer) is optimizer
    groups = trainer.optimizer.param_groups
    assert sorted(group["lr"] for group in groups) == rates
    assert trainer.initial_lr == groups[0]["lr"]
    stepped = [id(parameter) for group in groups for parameter in group["params"]]
    trained = [id(parameter) for parameter in trainer.network.parameters() if parameter.requires_grad]
    assert sorted(stepped) == sorted(trained)
    adapters = [name for name, parameter in trainer.network.named_parameters() if "lora_" in name]
    assert sum(len(group["params"]) for group in groups[1:]) == len(adapters)
