"""Write trained encoders under one version of transformers, and read them under another.

python encoder_versions.py write FOLDER | python encoder_versions.py read FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from tiny_encoders import FAMILIES, save_tiny_encoder
from torch import nn

from nnunetv2_guidino.config import GuideConfig, LoRA
from nnunetv2_guidino.model.encoders import precision
from nnunetv2_guidino.model.encoders.architecture import read_encoder_config
from nnunetv2_guidino.model.encoders.export_lora import export_lora
from nnunetv2_guidino.model.encoders.token_encoder import TokenEncoder

LAYERS = [1, 3]
SCHEMES = ["ZScoreNormalization"] * 3
ADAPTED = LoRA(rank=2, dropout=0)


def encoder(architecture: dict, lora: LoRA | None, merge: bool = False) -> TokenEncoder:
    return TokenEncoder(architecture, LAYERS, SCHEMES, 64, lora, merge)


def optimizer(model: TokenEncoder) -> torch.optim.AdamW:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def moments(model: TokenEncoder, adamw: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    """AdamW's first moment of each adapter, by a name that no version changes."""
    names = {id(p): model.family.stable_name(name.removeprefix("vit.")) for name, p in model.named_parameters()}
    return {names[id(p)]: state["exp_avg"] for p, state in adamw.state.items()}


def write(family: str, folder: Path) -> None:
    """A frozen and an adapted encoder, with their tokens of an image."""
    source = save_tiny_encoder(family, folder / "encoder")
    architecture = read_encoder_config(source, LAYERS)
    image = torch.randn(1, 3, 64, 64)
    for name, lora in (("frozen", None), ("lora", ADAPTED)):
        model = encoder(architecture, lora)
        model.load_pretrained(source, "tiny")
        record = {"architecture": architecture, "image": image}
        if lora is not None:
            adamw = optimizer(model)
            for _ in range(2):
                adamw.zero_grad()
                model(image).square().mean().backward()
                adamw.step()
            record |= {"optimizer": adamw.state_dict(), "moments": moments(model, adamw)}
        record |= {
            "tokens": model(image).detach(),
            "state": model.state_dict(),
            # what version 0.1.0 wrote: the names of the installed libraries
            "state of 0.1.0": {f"vit.{key}": value for key, value in model.vit.state_dict().items()},
        }
        torch.save(record, folder / f"{name}.pt")


def read(family: str, folder: Path) -> None:
    """Raises AssertionError if anything is not as it was written."""
    assert read_encoder_config(folder / "encoder", LAYERS) == load(folder, "frozen")["architecture"]
    for name, lora in (("frozen", None), ("lora", ADAPTED)):
        record = load(folder, name)
        for state in ("state", "state of 0.1.0"):
            for merge in (False, True) if lora else (False,):
                model = encoder(record["architecture"], lora, merge)
                model.load_state_dict(record[state])
                torch.testing.assert_close(model(record["image"]), record["tokens"], atol=1e-5, rtol=1e-5)
        if lora is not None:
            model = encoder(record["architecture"], lora)
            assert model.state_dict().keys() == record["state"].keys()
            adamw = optimizer(model)
            adamw.load_state_dict(record["optimizer"])
            found = moments(model, adamw)
            assert found.keys() == record["moments"].keys()
            assert all(torch.equal(found[key], value) for key, value in record["moments"].items())
    read_with_peft(folder)


def read_with_peft(folder: Path) -> None:
    """Export the adapters, and load them with peft alone."""
    record = load(folder, "lora")
    config = GuideConfig(encoder="tiny", layer=LAYERS, lora=ADAPTED, encoder_config=record["architecture"])
    for state in ("state", "state of 0.1.0"):
        weights = {f"token_encoder.{key}": value for key, value in record[state].items()}
        model_folder = folder / f"model of {state}"
        (model_folder / "fold_0").mkdir(parents=True)
        (model_folder / "plans.json").write_text(json.dumps({"configurations": {}, "guidino": config.to_plans()}))
        content = {"trainer_name": "x", "init_args": {"configuration": "2d"}, "network_weights": weights}
        torch.save(content, model_folder / "fold_0" / "checkpoint_final.pth")
        export_lora(model_folder, model_folder / "adapter", "0", "checkpoint_final.pth")
        plain = encoder(record["architecture"], None)
        plain.load_pretrained(folder / "encoder", "tiny")
        plain.vit = PeftModel.from_pretrained(nn.Module.eval(plain.vit), model_folder / "adapter").eval()
        torch.testing.assert_close(plain(record["image"]), record["tokens"], atol=1e-5, rtol=1e-5)
        assert f"- transformers {transformers.__version__}" in (model_folder / "adapter" / "README.md").read_text()


def load(folder: Path, name: str) -> dict:
    return torch.load(folder / f"{name}.pt", weights_only=False)


if __name__ == "__main__":
    precision.has_bfloat16 = lambda device: False  # as conftest.py has it: bfloat16's steps are larger than 1e-5
    action = {"write": write, "read": read}[sys.argv[1]]
    for family in FAMILIES:
        action(family, Path(sys.argv[2]) / family)
    print(transformers.__version__)
