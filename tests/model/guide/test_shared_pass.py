"""One pass of the transformer for a network on tokens and its guide."""

import pytest
import torch
from torch import nn

from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder

SIZE = (64, 96)


@pytest.fixture
def trainer(planned_trainer, tiny_encoder):
    def build(name="segdino", folder=None, guide=None, **settings):
        folder = folder or tiny_encoder("dinov3")
        layers = {"layers": [1, 2, 3], "widths": [4, 6, 8]} if name == "segdino" else {"layers": [3]}
        config = read_encoder_config(tiny_encoder("dinov3"), None)
        network = {"encoder_config": config, "pretrained": str(folder), **layers, **settings}
        trainer = planned_trainer(
            "nnUNetTrainerGuiDINO_seed0", architecture=name, network=network, guide=guide, patch_size=SIZE
        )
        trainer.initialize()
        return trainer

    return build


def passes(network: nn.Module) -> list[int]:
    """A list that grows with every pass of a transformer in it."""
    counted: list[int] = []
    for encoder in network.modules():
        if isinstance(encoder, TokenEncoder):
            encoder.vit.register_forward_hook(lambda *_: counted.append(1))
    return counted


@pytest.mark.parametrize(
    ("name", "guide"),
    [
        ("segdino", {}),
        ("segdino", {"layer": 2, "gate_at": "bottleneck"}),
        ("segdino", {"layer": [1, 3], "guides": "classes"}),
        ("seg_guidino", {}),
        ("seg_guidino_partner", {"layer": 3}),
    ],
)
def test_a_step_has_one_pass_and_gives_what_two_would(name, guide, trainer):
    trainer = trainer(name, guide=guide)
    network = trainer.network.train()
    for dropout in (module for module in network.modules() if isinstance(module, nn.Dropout2d)):
        dropout.p = 0.0
    counted = passes(network)
    patch = torch.randn(2, 3, *SIZE)
    together = network(patch)
    assert len(counted) == 1
    network.common_layers = None
    apart = network(patch)
    assert len(counted) == 3
    torch.testing.assert_close(together, apart)


def test_a_whole_step_of_the_trainer_has_one_pass_and_prediction_too(trainer):
    trainer = trainer()
    counted = passes(trainer.network)
    trainer.network.train()
    trainer.train_step({"data": torch.randn(2, 3, *SIZE), "target": [torch.ones(2, 1, *SIZE)] * 2})
    assert len(counted) == 1
    manager = trainer.plans_manager
    predicting = trainer.build_network_architecture(manager, manager.get_configuration("2d"), 3, 2, False)
    predicting.load_state_dict(trainer.network.state_dict())
    counted = passes(predicting)
    with torch.no_grad():
        predicting.eval()(torch.randn(1, 3, *SIZE))
    assert len(counted) == 1


@pytest.mark.parametrize(
    ("guide", "settings"),
    [
        ({"gate_at": "input"}, {}),
        ({"min_input_size": 32}, {"min_input_size": 128}),
        ({"lora": {"rank": 2}}, {}),
        ({}, {"tuning": "lora"}),
        ({}, {"tuning": "full"}),
        ({"layer": 2}, {"layers": [1, 3], "widths": [4, 6]}),
    ],
    ids=["gate at the input", "other sizes", "an adapted guide", "an adapted network", "a tuned one", "other layers"],
)
def test_two_passes_where_one_would_not_do(guide, settings, trainer):
    trainer = trainer(guide=guide, **settings)
    counted = passes(trainer.network)
    trainer.network(torch.randn(1, 3, *SIZE))
    assert len(counted) == 2


def test_weights_that_differ_are_not_shared_even_when_they_come_later(trainer, tmp_path):
    shared = trainer()
    assert shared.network.common_layers == (2,)
    weights = {key: tensor.clone() for key, tensor in shared.network.state_dict().items()}
    weights["network.token_encoder.vit.norm.weight"] += 1
    shared.network.load_state_dict(weights)
    assert shared.network.common_layers is None
    weights["token_encoder.vit.norm.weight"] += 1
    shared.network.load_state_dict(weights)
    assert shared.network.common_layers == (2,)


def test_compiled_without_a_graph_break(trainer):
    network = trainer().network.train()
    torch._dynamo.reset()
    report = torch._dynamo.explain(network)(torch.randn(2, 3, *SIZE))
    assert report.graph_break_count == 0, report.break_reasons
