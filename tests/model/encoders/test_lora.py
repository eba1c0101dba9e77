import json
from pathlib import Path

import pytest
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from planned import CHANNELS, CLASSES, plans
from tiny_encoders import DEPTH, FAMILIES
from torch import nn

from nnunetv2_guidino.config import LoRA
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.lists import GATE_POSITIONS
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.lora import dropouts, linear_layers, parameter_counts, reached
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder
from nnunetv2_guidino.training.guided import nnUNetTrainerGuiDINO
from nnunetv2_guidino.training.naming import trainer_class
from nnunetv2_guidino.training.optimizers import GroupPolyLRScheduler

ZSCORE = "ZScoreNormalization"
SEPARATE = {"attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj"}
MLP = {"mlp.fc1", "mlp.fc2"}
TARGETS = {
    "dinov3": SEPARATE | {"mlp.up_proj", "mlp.down_proj"},
    "dinov2": SEPARATE | MLP,
    "dinov2_registers": SEPARATE | MLP,
    "vit": SEPARATE | MLP,
    "timm_dinov3": {"attn.qkv", "attn.proj"} | MLP,
    "timm_dinov2": {"attn.qkv", "attn.proj"} | MLP,
}


def adapted(folder, channels=3, layer=None) -> TokenEncoder:
    """With adapters that are no longer zero, as after training."""
    encoder = TokenEncoder(read_encoder_config(folder, layer), layer, [ZSCORE] * channels, 64, LoRA())
    encoder.load_pretrained(folder, "tiny")
    for name, parameter in encoder.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    return encoder


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_and_mlp_of_every_used_block_are_adapted(family, tiny_encoder):
    encoder = adapted(tiny_encoder(family), layer=2)
    layers = {name.split(".lora_A")[0] for name, _ in encoder.vit.named_parameters() if "lora_A" in name}
    assert {".".join(name.split(".")[-2:]) for name in layers} == TARGETS[family]
    assert len(layers) == 2 * len(TARGETS[family])


def test_blocks_without_linear_layers_are_refused_by_what_they_hold():
    vit = nn.Sequential(nn.Conv1d(4, 4, 1), nn.LayerNorm(4))
    with pytest.raises(GuidinoError, match="no linear layers in its blocks to adapt, only Conv1d, LayerNorm"):
        linear_layers(vit, vit)


def test_layers_that_the_encoder_passes_by_are_left_out_and_named(tiny_encoder):
    """timm's EVA computes q, k and v from the weight of `qkv`, so that adapters there would never learn."""
    encoder = adapted(tiny_encoder("timm_eva"))
    assert encoder.not_adapted == [f"timm_model.blocks.{block}.attn.qkv" for block in range(DEPTH)]
    encoder.train()(torch.randn(1, 3, 64, 64)).square().sum().backward()
    adapters = {name: p for name, p in encoder.named_parameters() if "lora_" in name}
    assert {name.split(".lora_")[0].partition(".blocks.0.")[2] for name in adapters} == {
        "", "attn.proj", "mlp.fc1", "mlp.fc2"
    }  # fmt: skip
    assert all(parameter.grad is not None for parameter in adapters.values())
    assert "no LoRA on 3 layers that the encoder passes by, timm_model.blocks.0.attn.qkv" in parameter_counts(
        {"token_encoder": encoder}
    )


def test_encoder_that_passes_all_its_layers_by_is_refused(tiny_encoder, monkeypatch):
    monkeypatch.setattr("nnunetv2_guidino.model.encoders.token_encoder.reached", lambda *_: [])
    with pytest.raises(GuidinoError, match="pass their layers by, so that adapters would not be trained; set guidino"):
        adapted(tiny_encoder("dinov3"))


def test_looking_for_reached_layers_leaves_no_trace():
    vit = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4)).eval().requires_grad_(False)
    unused = nn.Linear(4, 4)
    vit.register_module("unused", unused)
    state = torch.random.get_rng_state()
    image = torch.zeros(1, 4)
    assert reached(vit, ["0", "2", "unused"], lambda: vit[2](vit[1](vit[0](image)))) == ["0", "2"]
    assert reached(vit, ["0", "2"], lambda: vit[2](vit[0](image).detach())) == ["2"]
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(module._forward_hooks for module in vit.modules())
    assert all(parameter.grad is None for parameter in vit.parameters())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("family", FAMILIES)
def test_only_adapters_learn_and_only_their_dropout_is_active(family, channels, tiny_encoder):
    encoder = adapted(tiny_encoder(family), channels).train()
    encoder(torch.randn(2, channels, 50, 75)).square().sum().backward()
    for name, parameter in encoder.vit.named_parameters():
        assert parameter.requires_grad == ("lora_" in name), name
        assert (parameter.grad is not None) == ("lora_" in name), name
    dropout = {m for module in dropouts(encoder.vit) for m in module.modules()}
    assert dropout
    assert all(module.training == (module in dropout) for module in encoder.vit.modules())
    assert not any(module.training for module in encoder.eval().modules())


@pytest.mark.parametrize("family", FAMILIES)
def test_untrained_adapters_change_nothing(family, tiny_encoder):
    folder = tiny_encoder(family)
    plain = TokenEncoder(read_encoder_config(folder, None), None, [ZSCORE] * 3, 64)
    plain.load_pretrained(folder, "tiny")
    encoder = TokenEncoder(read_encoder_config(folder, None), None, [ZSCORE] * 3, 64, LoRA())
    encoder.load_pretrained(folder, "tiny")
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(encoder.eval()(image), plain(image))


def build(manager, deep_supervision: bool) -> nn.Module:
    configuration = manager.get_configuration("2d")
    return trainer_class("nnUNetTrainerGuiDINOLoRA").build_network_architecture(
        manager, configuration, CHANNELS, CLASSES, deep_supervision
    )


@pytest.mark.parametrize("gate_at", GATE_POSITIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_network_that_predicts_has_merged_adapters(family, gate_at, tiny_encoder):
    section = {
        "encoder_config": read_encoder_config(tiny_encoder(family), 2),
        **{"layer": 2, "gate_at": gate_at, "min_input_size": 64, "prototypes": 8, "lora": {"rank": 4, "alpha": 12}},
    }
    training, predicting = build(plans(section), True), build(plans(section), False)
    assert not any("lora" in name for name, _ in predicting.named_parameters())
    patch = torch.randn(1, CHANNELS, 32, 48)
    for seed in (0, 1):  # nnU-Net loads the weights of one fold after the other into one network
        torch.manual_seed(seed)
        for parameter in training.parameters():
            nn.init.normal_(parameter, std=0.1)
        weights = training.state_dict()
        predicting.load_state_dict(weights)
        assert any("lora_A" in name for name in weights)  # the caller's are left alone
        expected = training.eval()(patch)[0]
        torch.testing.assert_close(predicting.eval()(patch), expected, atol=1e-4, rtol=1e-4)


def test_torch_compile_sees_one_graph(tiny_encoder):
    section = {"encoder_config": read_encoder_config(tiny_encoder("dinov3"), None), "min_input_size": 64, "lora": {}}
    explanation = torch._dynamo.explain(build(plans(section), True).train())(torch.randn(2, CHANNELS, 32, 48))
    assert explanation.graph_break_count == 0, explanation.break_reasons


def test_groups_have_their_own_rate_and_everything_trainable_once(planned_trainer):
    trainer = planned_trainer("nnUNetTrainerGuiDINOLoRA", guide={"lora": {"learning_rate": 2e-3}})
    trainer.initialize()
    assert type(trainer.optimizer) is torch.optim.AdamW
    rest, adapters = trainer.optimizer.param_groups
    assert (rest["lr"], adapters["lr"]) == (1e-4, 2e-3)
    trainable = {name: p for name, p in trainer.network.named_parameters() if p.requires_grad}
    assert {id(p) for p in adapters["params"]} == {id(p) for name, p in trainable.items() if "lora_" in name}
    assert sorted(id(p) for p in rest["params"] + adapters["params"]) == sorted(map(id, trainable.values()))


def test_schedule_is_nnunet_s_for_every_group():
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    rates = [1e-2, 5e-4]
    groups = [{"params": [p], "lr": rate} for p, rate in zip(parameters, rates, strict=False)]
    optimizer = torch.optim.AdamW(groups)
    schedule = GroupPolyLRScheduler(optimizer, 10)
    for epoch in (0, 1, 5, 9):
        schedule.step(epoch)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            stock = torch.optim.SGD([parameters[2]], rate)
            PolyLRScheduler(stock, rate, 10).step(epoch)
            assert group["lr"] == pytest.approx(stock.param_groups[0]["lr"])
        assert schedule.get_last_lr() == [group["lr"] for group in optimizer.param_groups]


def test_resuming_restores_adapters_moments_and_rates(planned_trainer, tmp_path, monkeypatch):
    from planned import save_model_folder

    first = planned_trainer("nnUNetTrainerGuiDINOLoRA_10epochs")
    first.initialize()
    first.on_train_epoch_start()
    patch = torch.randn(2, CHANNELS, 32, 48)
    sum(output.square().sum() for output in first.network(patch)).backward()
    first.optimizer.step()
    first.current_epoch = 4
    file = save_model_folder(first)
    monkeypatch.setenv("GUIDINO_ENCODER", "/gone")
    again = planned_trainer("nnUNetTrainerGuiDINOLoRA_10epochs")
    again.load_checkpoint(file)
    for name, weight in first.network.state_dict().items():
        assert torch.equal(weight, again.network.state_dict()[name]), name
    for one, other in zip(first.optimizer.state.values(), again.optimizer.state.values(), strict=True):
        assert torch.equal(one["exp_avg"], other["exp_avg"])
    again.on_train_epoch_start()
    assert again.current_epoch == 5
    assert [group["lr"] for group in again.optimizer.param_groups] == pytest.approx([1e-4 * 0.5**0.9, 5e-4 * 0.5**0.9])


def test_plans_decide_and_the_name_fills_in(planned_trainer, tmp_path):
    by_plans = planned_trainer("nnUNetTrainerGuiDINO", guide={"lora": {"rank": 4}})
    assert type(by_plans) is nnUNetTrainerGuiDINO
    by_plans.initialize()
    assert by_plans.network.token_encoder.lora == LoRA(rank=4)
    by_name = planned_trainer("nnUNetTrainerGuiDINOLoRA", guide={"lora": None})
    by_name.initialize()
    assert json.loads(json.dumps(by_name.plans_manager.plans["guidino"]["lora"])) == {
        **{"rank": 8, "alpha": 16, "dropout": 0.05, "learning_rate": 5e-4}
    }
    both = planned_trainer("nnUNetTrainerGuiDINOLoRA", guide={"lora": {"rank": 2}})
    both.initialize()
    assert both.network.token_encoder.lora == LoRA(rank=2)


def test_log_tells_what_is_trained(planned_trainer):
    trainer = planned_trainer("nnUNetTrainerGuiDINOLoRA")
    trainer.initialize()
    encoder = trainer.network.token_encoder
    # q, k, v, o of 32 × 32, up and down of 32 × 64, rank 8, in each of 3 blocks
    adapters = DEPTH * 8 * (4 * 64 + 2 * 96)
    counts = f"token_encoder {adapters:,} / {sum(p.numel() for p in encoder.parameters()):,}"
    assert counts in Path(trainer.log_file).read_text()
