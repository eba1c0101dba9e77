from pathlib import Path

import pytest
import torch
from nnunetv2.run.run_training import maybe_load_checkpoint

from nnunetv2_guidino.errors import GuidinoError


@pytest.fixture
def checkpoint(planned_trainer):
    """A checkpoint of some training, and the weights in it."""

    def save(name: str, **settings):
        trainer = planned_trainer(name, **settings)
        trainer.initialize()
        for parameter in trainer.network.parameters():
            torch.nn.init.normal_(parameter)
        file = str(Path(trainer.output_folder) / "checkpoint_final.pth")
        trainer.save_checkpoint(file)
        return file, trainer.network.state_dict()

    return save


def started_from(trainer, file: str) -> dict[str, torch.Tensor]:
    """The weights with which nnUNetv2_train -pretrained_weights starts."""
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
        assert torch.equal(ours[name], weight) == (".seg_layers." not in name), name


@pytest.mark.parametrize(
    ("trainer", "guide", "message"),
    [
        ("nnUNetTrainerGuiDINO_seed1", {"prototypes": 4}, r"tokenbook.prototypes has shape \(1, 4, 32\) there"),
        ("nnUNetTrainerGuiDINO_seed1", {"readout": "affine"}, "the checkpoint has no tokenbook.scale; .* and guide"),
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
