"""torch.compile, which nnU-Net applies to the network on CUDA."""

import pytest
import torch
from tiny_networks import DIMENSIONS
from torch._dynamo.utils import counters

from nnunetv2_guidino.lab.cost.random_training import dummy_batch
from nnunetv2_guidino.tools.doctor.rehearsal import epoch, recompile

EPOCHS = [
    *({"architecture": name, "patch_size": (64, 96) if count == 2 else (16, 32, 48)} for name, count in DIMENSIONS),
    {"guide": {"lora": {}}},
    {"guide": {"lora": {}}, "patch_size": (8, 32, 48)},
]


@pytest.mark.slow
@pytest.mark.parametrize("settings", EPOCHS, ids=str)
def test_the_trainer_s_epochs_are_one_graph_that_is_compiled_once(settings, planned_trainer):
    torch._dynamo.reset()
    counters.clear()
    if settings.get("architecture") == "nnwnet":
        settings = {**settings, "guide": {"gate_at": "input"}}
    trainer = planned_trainer("nnUNetTrainerGuiDINO_seed0", **settings)
    trainer.initialize()
    recompile(trainer, "eager")
    batch = dummy_batch(trainer)
    epoch(trainer, batch, 2)
    graphs = counters["stats"]["unique_graphs"]
    epoch(trainer, batch, 2)
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == graphs


@pytest.mark.parametrize(
    ("patch_size", "guide", "backend"),
    [
        # the inductor's C++ takes a minute to compile even one block; 14×21 tokens are averaged over 8×12 features
        pytest.param(
            (32, 48), {"layer": 1, "gate_at": "bottleneck", "min_input_size": 224}, "inductor", marks=pytest.mark.slow
        ),
        ((32, 48), {"lora": {"dropout": 0.0}, "min_input_size": 160}, "aot_eager"),
        ((8, 32, 48), {"slice_stride": 2, "guides": "classes"}, "aot_eager"),
    ],
)
def test_compiled_equals_eager_without_compiling_twice(patch_size, guide, backend, planned_trainer):
    torch._dynamo.reset()
    trainers = [planned_trainer("nnUNetTrainerGuiDINO_seed0", guide=guide, patch_size=patch_size) for _ in range(2)]
    compiled = trainers[1]
    for trainer in trainers:
        trainer.initialize()
        trainer.network.train()
    compiled.network = torch.compile(compiled.network, backend=backend)
    counters.clear()

    labels = torch.zeros(2, 1, *patch_size)
    labels[..., 8:24, 12:30] = 1
    half = (slice(None), slice(None), *[slice(None, None, 2)] * len(patch_size))
    graphs = []
    for step in range(3):
        data = torch.randn(2, 3, *patch_size, generator=torch.Generator().manual_seed(step))
        losses = [t.train_step({"data": data, "target": [labels, labels[half]]})["loss"] for t in trainers]
        assert losses[1] == pytest.approx(losses[0], rel=1e-4)
        # to validate and back
        outputs = []
        for trainer in trainers:
            trainer.set_deep_supervision_enabled(False)
            with torch.no_grad():
                outputs.append(trainer.network.eval()(data))
            trainer.set_deep_supervision_enabled(True)
            trainer.network.train()
        torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-3, atol=1e-3)
        graphs.append(counters["stats"]["unique_graphs"])
    assert not counters["graph_break"]
    assert graphs == [2, 2, 2]  # to train and to validate
