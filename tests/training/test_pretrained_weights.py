import json
from copy import copy
from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from tiny_encoders import CONFIGS
from transformers import AutoModel

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.nnunet.plans import RECORD, read_record


@pytest.fixture
def checkpoint(planned_trainer):
    """Return a function that saves a checkpoint of a training and returns it with its weights."""

    def save(name: str, **settings):
        trainer = planned_trainer(name, **settings)
        trainer.initialize()
        for parameter in trainer.network.parameters():
            torch.nn.init.normal_(parameter)
        if (fusion := getattr(trainer.network, "late_fusion", None)) is not None:
            fusion.weight.fill_(1.0)
            fusion.bias.fill_(-1.0)
        file = str(Path(trainer.output_folder) / "checkpoint_final.pth")
        trainer.save_checkpoint(file)
        return file, trainer.network.state_dict()

    return save


def started_from(trainer, file: str) -> dict[str, torch.Tensor]:
    """Return the weights with which nnUNetv2_train -pretrained_weights starts."""
    maybe_load_checkpoint(trainer, continue_training=False, validation_only=False, pretrained_weights_file=file)
    return trainer.network.state_dict()


def test_plain_checkpoint_fills_the_planned_network_and_the_guide_starts_fresh(checkpoint, planned_trainer):
    file, plain = checkpoint("nnUNetTrainerGuiDINOBaseline")
    fresh = planned_trainer("nnUNetTrainerGuiDINO_seed0", fold=1)
    fresh.initialize()
    guided = started_from(planned_trainer("nnUNetTrainerGuiDINO_seed0"), file)
    for name, weight in fresh.network.state_dict().items():
        planned = name.removeprefix("network.") if name.startswith("network.") else None
        expected = plain[planned] if planned and ".seg_layers." not in name else weight
        assert torch.equal(guided[name], expected), name


def test_guided_checkpoint_fills_everything(checkpoint, planned_trainer):
    file, theirs = checkpoint("nnUNetTrainerGuiDINO_seed1")
    ours = started_from(planned_trainer("nnUNetTrainerGuiDINO_seed2"), file)
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        is_new = ".seg_layers." in name or name.startswith("late_fusion.")
        assert torch.equal(ours[name], weight) != is_new, name


@pytest.mark.parametrize(
    ("trainer", "guide", "message"),
    [
        ("nnUNetTrainerGuiDINO_seed1", {"prototypes": 4}, "guidino.prototypes is 8 in the plans and 4 there"),
        ("nnUNetTrainerGuiDINO_seed1", {"readout": "affine"}, "guidino.readout is 'logistic' .* and 'affine' there"),
        (
            "nnUNetTrainerGuiDINO_seed1",
            {"gate_at": "bottleneck"},
            "guidino.gate_at is 'skips' .* and 'bottleneck' there",
        ),
        ("nnUNetTrainerGuiDINO_seed1", {"gate": "product"}, "guidino.gate is 'blend' .* and 'product' there"),
        ("nnUNetTrainerGuiDINO_seed1", {"guides": "classes"}, "guidino.guides is 'foreground' .* and 'classes' there"),
        ("nnUNetTrainerGuiDINOLoRA_seed1", {}, "guidino.lora is None in the plans and {.*} there"),
        ("nnUNetTrainerGuiDINOBaseline", {}, "the checkpoint has no network.encoder.stages.2"),
    ],
)
def test_what_does_not_fit_is_an_error(trainer, guide, message, checkpoint, planned_trainer):
    file, _ = checkpoint(trainer, guide=guide)
    if "Baseline" in trainer:
        content = torch.load(file, weights_only=False)
        weights = content["network_weights"]
        content["network_weights"] = {name: weights[name] for name in weights if "stages.2" not in name}
        torch.save(content, file)
    with pytest.raises(GuidinoError, match=message):
        started_from(planned_trainer("nnUNetTrainerGuiDINO"), file)


def other_encoder(folder: Path, depth: int = 3) -> Path:
    """Return an encoder of the fixtures' family with another seed."""
    torch.manual_seed(7)
    config = copy(CONFIGS["dinov3"])
    config.num_hidden_layers = depth
    AutoModel.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def start(planned_trainer, monkeypatch):
    """Follow nnU-Net's order of calls up to the moment when it loads data."""
    monkeypatch.setattr(nnUNetTrainer, "on_train_start", lambda self: None)

    def start(trainer, file: str):
        started_from(trainer, file)
        trainer.on_train_start()
        return trainer

    return start


@pytest.mark.parametrize("recorded", [True, False], ids=["of this version", "of 0.1.0"])
def test_plans_name_the_encoder_that_the_checkpoint_brought(recorded, checkpoint, start, planned_trainer, tmp_path):
    file, theirs = checkpoint("nnUNetTrainerGuiDINO_seed1", guide={"encoder": str(other_encoder(tmp_path / "other"))})
    if not recorded:
        content = torch.load(file, weights_only=False)
        del content["network_weights"][RECORD]
        torch.save(content, file)
    source = torch.load(file, weights_only=False)["init_args"]["plans"]["guidino"]["encoder_source"]
    trainer = start(planned_trainer("nnUNetTrainerGuiDINO_seed2"), file)
    name = "token_encoder.vit.norm.weight"
    assert torch.equal(trainer.network.state_dict()[name], theirs[name])
    assert trainer.plans_manager.plans["guidino"]["encoder_source"] == source
    assert read_record(trainer.network.state_dict()[RECORD]).encoder_source == source
    assert trainer.my_init_kwargs["plans"]["guidino"]["encoder_source"] == source  # which checkpoints hold


def test_the_encoder_stays_where_a_plain_checkpoint_brings_none(checkpoint, start, planned_trainer, tiny_encoder):
    file, _ = checkpoint("nnUNetTrainerGuiDINOBaseline")
    trainer = start(planned_trainer("nnUNetTrainerGuiDINO"), file)
    assert trainer.plans_manager.plans["guidino"]["encoder_source"]["folder"] == str(tiny_encoder("dinov3"))


def test_a_frozen_checkpoint_is_adapted(checkpoint, start, planned_trainer):
    file, theirs = checkpoint("nnUNetTrainerGuiDINO_seed1")
    trainer = start(planned_trainer("nnUNetTrainerGuiDINOLoRA_seed2"), file)
    ours = trainer.network.state_dict()
    for name, weight in ours.items():
        if ".lora_B." in name:
            assert not weight.any(), name  # so that the adapters begin with no update
        elif not any(part in name for part in (".lora_A.", ".seg_layers.", "late_fusion.")) and name != RECORD:
            assert torch.equal(weight, theirs[name.replace(".base_layer", "")]), name
    image = torch.randn(1, 3, 32, 48)
    frozen = planned_trainer("nnUNetTrainerGuiDINO_seed3")
    started_from(frozen, file)
    with torch.no_grad():
        guides = (network.eval()(image)[-1] for network in (trainer.network, frozen.network))
        torch.testing.assert_close(*guides)


@pytest.mark.parametrize(
    ("there", "here"),
    [
        ({"labels": {"background": 0, "a": 1, "b": 2, "c": 3}}, {}),
        ({"guide": {"min_input_size": 32}}, {}),
        ({"guide": {"lambda_guide": 0.5}}, {"guide": {"lambda_guide": 2.0}}),
    ],
    ids=["classes", "size of the input", "weights of the loss"],
)
def test_what_may_change_from_one_training_to_the_next(there, here, checkpoint, start, planned_trainer):
    file, theirs = checkpoint("nnUNetTrainerGuiDINO_seed1", **there)
    trainer = start(planned_trainer("nnUNetTrainerGuiDINO_seed2", **here), file)
    assert torch.equal(trainer.network.tokenbook.prototypes, theirs["tokenbook.prototypes"])


@pytest.mark.parametrize(("activation", "fits"), [(100.0, True), (1e5, False), (None, False)])
def test_float16_is_chosen_by_the_encoder_that_the_checkpoint_brought(activation, fits, checkpoint, planned_trainer):
    file, _ = checkpoint("nnUNetTrainerGuiDINO_seed1")
    content = torch.load(file, weights_only=False)
    record = json.loads(bytes(content["network_weights"][RECORD]))
    record["encoder_source"]["largest_activation"] = activation
    content["network_weights"][RECORD] = torch.frombuffer(bytearray(json.dumps(record).encode()), dtype=torch.uint8)
    torch.save(content, file)
    trainer = planned_trainer("nnUNetTrainerGuiDINO_seed2")
    started_from(trainer, file)
    assert trainer.bare_network().token_encoder.fits_float16 == fits
