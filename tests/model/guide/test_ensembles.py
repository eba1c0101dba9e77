"""nnU-Net predicts with several folds: a frozen encoder sees a tile twice, and what it shares changes no bit."""

import json
from pathlib import Path

import pytest
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from planned import save_model_folder

from nnunetv2_guidino.model.encoders import token_memory

FOLDS = (0, 1, 2)


@pytest.fixture
def ensemble(planned_trainer):
    """nnU-Net's predictor of a model of three folds, whose mirroring is on, and the images that its encoder gets."""

    def ensemble(change=lambda weights, fold: None, name="nnUNetTrainerGuiDINO", **settings):
        for fold in FOLDS:
            trainer = planned_trainer(name, fold=fold, **settings)
            torch.manual_seed(fold)
            trainer.initialize()
            trainer.inference_allowed_mirroring_axes = tuple(range(len(trainer.configuration_manager.patch_size)))
            file = save_model_folder(trainer)
            checkpoint = torch.load(file, weights_only=False)
            change(checkpoint["network_weights"], fold)
            torch.save(checkpoint, file)
        folder = Path(trainer.output_folder).parent
        (folder / "dataset.json").write_text(json.dumps(trainer.dataset_json))
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder), FOLDS, "checkpoint_final.pth")
        encoded = []
        predictor.network.token_encoder.vit.register_forward_pre_hook(
            lambda vit, args, options: encoded.append(options["pixel_values"]), with_kwargs=True
        )
        return predictor, encoded

    return ensemble


@pytest.mark.parametrize("patch_size", [(32, 48), (4, 32, 48)])
def test_folds_share_tokens_bit_by_bit(patch_size, ensemble, monkeypatch):
    predictor, encoded = ensemble(patch_size=patch_size)
    images = [torch.randn(3, 4, 40, 50), torch.randn(3, 4, 40, 50)]
    counts, predictions = [], []
    for image in images:
        predictions.append(predictor.predict_logits_from_preprocessed_data(image))
        counts.append(len(encoded))
        encoded.clear()
    memory = predictor.network.token_encoder.memory
    monkeypatch.setattr(memory, "start_again", memory.forget)
    for image, prediction, count in zip(images, predictions, counts, strict=True):
        expected = predictor.predict_logits_from_preprocessed_data(image)
        assert torch.equal(prediction, expected)
        passes = len(encoded) // len(FOLDS)
        assert passes == (64 if len(patch_size) == 2 else 16)  # four tiles of each slice, four ways of mirroring
        # The first two folds of the first image, but for its first tile; then the first one.
        assert count == (2 * passes - 1 if image is images[0] else passes)
        encoded.clear()
    assert not torch.equal(predictions[0], predictions[1])


def test_slices_that_are_mirrored_through_are_turned_round(ensemble, monkeypatch):
    predictor, encoded = ensemble(patch_size=(4, 32, 48))
    predictor.list_of_parameters = predictor.list_of_parameters[:1]
    image = torch.randn(3, 4, 32, 48)
    prediction = predictor.predict_logits_from_preprocessed_data(image)
    assert len(encoded) == 4  # eight ways of mirroring
    monkeypatch.setattr(token_memory, "MOST", 0)
    predictor.network.token_encoder.memory.forget()
    torch.testing.assert_close(predictor.predict_logits_from_preprocessed_data(image), prediction, atol=0.01, rtol=0)
    assert len(encoded) == 4 + 8


def test_one_fold_keeps_its_first_tile_alone(ensemble):
    predictor, _ = ensemble()
    predictor.list_of_parameters = predictor.list_of_parameters[:1]
    for _ in range(2):
        predictor.predict_logits_from_preprocessed_data(torch.randn(3, 1, 40, 50))
        assert len(predictor.network.token_encoder.memory._kept) == 1


def test_what_does_not_fit_is_encoded_by_every_fold(ensemble, monkeypatch):
    predictor, encoded = ensemble()
    image = torch.randn(3, 1, 40, 50)
    expected = predictor.predict_logits_from_preprocessed_data(image)
    memory = predictor.network.token_encoder.memory
    monkeypatch.setattr(token_memory, "MOST", 3 * memory._bytes // len(memory._kept))
    predictor, encoded = ensemble()
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(image), expected)
    memory = predictor.network.token_encoder.memory
    assert len(memory._kept) == 3
    passes = 16  # four tiles, four ways
    assert len(encoded) == passes + (passes - 1) + (passes - 3)


def other_encoder(weights, fold):
    for name, tensor in weights.items():
        if name.endswith("blocks.0.norm1.bias"):
            tensor += fold


def other_adapters(weights, fold):
    generator = torch.Generator().manual_seed(fold)
    for name, tensor in weights.items():
        if ".lora_B." in name:
            tensor.normal_(generator=generator)


@pytest.mark.parametrize(
    ("change", "trainer"),
    [(other_encoder, "nnUNetTrainerGuiDINO"), (other_adapters, "nnUNetTrainerGuiDINOLoRA")],
)
def test_folds_with_encoders_of_their_own_share_nothing(change, trainer, ensemble, monkeypatch):
    predictor, encoded = ensemble(change, trainer)
    image = torch.randn(3, 1, 40, 50)
    prediction = predictor.predict_logits_from_preprocessed_data(image)
    assert len(encoded) == 16 * len(FOLDS)
    monkeypatch.setattr(token_memory, "MOST", 0)
    assert torch.equal(predictor.predict_logits_from_preprocessed_data(image), prediction)
