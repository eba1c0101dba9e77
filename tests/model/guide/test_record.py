"""A checkpoint knows its guide: a model folder whose plans.json names another one is not predicted with."""

import json
from pathlib import Path

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from planned import save_model_folder
from transformers import AutoModel, Dinov2Config

from nnunetv2_guidino.config import GuideConfig
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.encoders.source import versions
from nnunetv2_guidino.nnunet.plans import RECORD, read_record


@pytest.fixture
def model(planned_trainer):
    """A model folder of one fold, and what changes the guide in its plans.json."""

    def model(name: str = "nnUNetTrainerGuiDINO", **guide):
        trainer = planned_trainer(name, guide=guide)
        trainer.initialize()
        save_model_folder(trainer)
        folder = Path(trainer.output_folder).parent
        (folder / "dataset.json").write_text(json.dumps(trainer.dataset_json))

        def change(**settings):
            plans = json.loads((folder / "plans.json").read_text())
            plans["guidino"] |= settings
            (folder / "plans.json").write_text(json.dumps(plans))

        return folder, change

    return model


def predictor(folder: Path, *folds: int) -> nnUNetPredictor:
    """As nnUNetv2_predict makes it, with the weights loaded."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), folds or (0,), "checkpoint_final.pth")
    return predictor


def without_record(folder: Path) -> None:
    file = folder / "fold_0" / "checkpoint_final.pth"
    checkpoint = torch.load(file, weights_only=False)
    del checkpoint["network_weights"][RECORD]
    torch.save(checkpoint, file)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"gate_at": "input"}, "gate_at"),
        ({"gate": "product"}, "gate"),
        ({"readout": "affine"}, "readout"),
        ({"similarity": "dot"}, "similarity"),
        ({"layer": 2}, "layer"),
        ({"min_input_size": 32}, "min_input_size"),
        ({"slice_stride": 2}, "slice_stride"),
        ({"classes": 2}, "classes"),
        ({"prototypes": 4}, "prototypes"),
    ],
)
def test_another_guide_in_plans_json_is_refused_by_name(settings, key, model):
    folder, change = model()
    predictor(folder)
    change(**settings)
    with pytest.raises(GuidinoError, match=f"guidino.{key} is .* in plans.json and .* with them"):
        predictor(folder)


def test_adapters_of_another_scale_are_refused(model):
    folder, change = model("nnUNetTrainerGuiDINOLoRA")
    predictor(folder)
    change(lora={"rank": 8, "alpha": 32})
    with pytest.raises(GuidinoError, match="guidino.lora.alpha is 32 in plans.json and 16 with them"):
        predictor(folder)


def test_a_size_of_the_encoder_that_plans_json_lacks_is_no_other_one(model, tmp_path):
    """transformers would take its default, with which other heads look at the same weights."""
    config = Dinov2Config(hidden_size=48, num_attention_heads=4, num_hidden_layers=1, image_size=56, patch_size=14)
    AutoModel.from_config(config).save_pretrained(tmp_path / "four_heads")
    folder, change = model(encoder=str(tmp_path / "four_heads"))
    architecture = json.loads((folder / "plans.json").read_text())["guidino"]["encoder_config"]
    assert architecture.pop("num_attention_heads") == 4
    assert architecture.pop("layer_norm_eps") == Dinov2Config().layer_norm_eps  # the default, so that nothing changes
    change(encoder_config={**architecture, "num_attention_heads": 4})
    predictor(folder)
    change(encoder_config=architecture)
    with pytest.raises(GuidinoError, match="num_attention_heads is 12 in plans.json and 4 with them"):
        predictor(folder)


def test_what_computes_the_same_may_change(model):
    folder, change = model()
    change(lambda_guide=0.5, encoder="elsewhere", versions={"torch": "3"}, encoder_source=None)
    predictor(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"classes": 0}, "classes is 0; expected at least 1"), ({"layer": 99}, "layer is 99, but .* has 3 blocks")],
)
def test_what_no_model_can_have_is_refused_without_a_record_too(settings, message, model):
    folder, change = model()
    without_record(folder)
    change(**settings)
    with pytest.raises(GuidinoError, match=f"guidino.{message}"):
        predictor(folder)


def test_each_fold_is_asked(model):
    folder, _ = model()
    other = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=False)
    section = {**json.loads(bytes(other["network_weights"][RECORD].tolist())), "gate_at": "bottleneck"}
    other["network_weights"][RECORD] = torch.tensor(list(json.dumps(section).encode()), dtype=torch.uint8)
    (folder / "fold_1").mkdir()
    torch.save(other, folder / "fold_1" / "checkpoint_final.pth")
    both = predictor(folder, 0, 1)
    with pytest.raises(GuidinoError, match="guidino.gate_at is 'skips' in plans.json and 'bottleneck' with them"):
        both.predict_logits_from_preprocessed_data(torch.randn(3, 1, 32, 48))


def test_weights_of_version_0_1_0_have_no_record_and_are_taken(model):
    folder, _ = model()
    without_record(folder)
    predictor(folder)


def test_the_record_says_what_was_trained(planned_trainer):
    trainer = planned_trainer("nnUNetTrainerGuiDINO")
    trainer.initialize()
    record = read_record(trainer.network.state_dict()[RECORD])
    assert record == GuideConfig.from_plans(trainer.plans_manager.plans) == trainer.guide_config
    assert record.encoder_source["sha256"]
    assert record.versions == versions()
