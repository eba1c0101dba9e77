"""The checks of `guidino doctor --train` on the CPU with a tiny network; each sees what it is meant to see."""

from dataclasses import replace

import pytest
import torch
from tiny_networks import encoder_config

from nnunetv2_guidino.cli import main
from nnunetv2_guidino.tools.doctor import gpu_check
from nnunetv2_guidino.tools.doctor.gpu_check import CHECKS, CPU, ONLY_WITH_CUDA
from nnunetv2_guidino.tools.doctor.rehearsal import Rehearsal, temporary_folders

TINY = Rehearsal(
    CPU,
    (32, 48),
    2,
    steps=4,
    guide={"min_input_size": 64},
    features=4,
    encoder_config=encoder_config(num_hidden_layers=2),
)
ON_A_CPU = [check for check in CHECKS if check not in ONLY_WITH_CUDA]


@pytest.fixture(autouse=True)
def _folders():
    with temporary_folders():
        yield


@pytest.mark.parametrize("check", ON_A_CPU)
def test_all_is_well(check):
    assert check(TINY).remedy is None


def test_volumes_in_two_parts(monkeypatch):
    monkeypatch.setattr(
        "nnunetv2_guidino.model.encoders.token_encoder.TOKENS_AT_ONCE", 100
    )  # of 8 slices of 4×6 tokens each
    volumes = replace(TINY, patch_size=(4, 32, 48), guide={**TINY.guide, **gpu_check.LORA})
    for check in gpu_check.VOLUME_CHECKS:
        assert check(volumes).remedy is None


def test_a_graph_break_is_seen(monkeypatch):
    from nnunetv2_guidino.model.guide.guided_network import GuidedNetwork

    forward = GuidedNetwork.forward

    def broken(self, patch):
        torch._dynamo.graph_break()
        return forward(self, patch)

    monkeypatch.setattr(GuidedNetwork, "forward", broken)
    assert "graph breaks" in (gpu_check.two_compiled_epochs(TINY).remedy or "")


def test_another_gradient_is_seen(monkeypatch):
    step = gpu_check._finite_step

    def other_step(trainer, rehearsal):
        loss = step(trainer, rehearsal)
        if trainer.bare_network().token_encoder.training:
            for parameter in trainer.bare_network().tokenbook.parameters():
                parameter.grad.neg_()
        return loss

    monkeypatch.setattr(gpu_check, "_finite_step", other_step)
    finding = gpu_check.step_agrees_with_the_cpu(TINY)
    assert "a cosine is not above 0.99" in (finding.remedy or "")
    assert "tokenbook -1.0000" in finding.is_so


def test_a_memory_of_other_tokens_is_seen(monkeypatch):
    from nnunetv2_guidino.model.encoders.token_memory import TokenMemory

    recall = TokenMemory.recall
    monkeypatch.setattr(
        TokenMemory, "recall", lambda self, images, encode: recall(self, images, encode) + self._has_repeats
    )
    assert "the token memory changes a prediction" in (gpu_check.predictions(TINY).remedy or "")


def test_the_command_prints_a_line_for_each_and_goes_on_after_an_error(monkeypatch, capsys):
    def broken(rehearsal):
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(gpu_check, "CHECKS", [broken, gpu_check.no_waits])
    assert main(["doctor", "--train", "-device", "cpu"]) == 1
    first, second, remedy, left_out, last = capsys.readouterr().out.splitlines()
    assert first.startswith("[ok] rehearsal: cpu, random DINOv3 ViT-S/16, patch 64×64, batch 2")
    assert second == "[!!] broken: fails: RuntimeError: no kernel image is available"
    assert "please report it" in remedy
    assert "no_waits (only a GPU is waited for)" in left_out
    assert last == "1 to put right."


def test_all_without_train_is_refused(capsys):
    assert main(["doctor", "--all"]) == 1
    assert capsys.readouterr().err == "guidino doctor: error: --all is for trainings; give --train too\n"
