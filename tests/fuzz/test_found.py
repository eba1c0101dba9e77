"""What fuzzing has found, each by itself: these were tracebacks, hangs, or complaints that named another file."""

import json

import pytest
from fuzzing import Damage, Scene, changed, inflicted
from scenes import SCENES

from nnunetv2_guidino.nnunet.folders import VARIABLES


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Play a scene with a file damaged; returns the exit code and the complaint."""
    for name in VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / name))

    def with_damage(name: str, file_name: str, damage) -> tuple[int, str]:
        scene: Scene = SCENES[name](tmp_path)
        file = next(file for file in scene.files if file.name == file_name)
        how, content = (damage, b"") if isinstance(damage, str) else ("content", damage(scene.sound[file]))
        with inflicted(Damage(file, how, content), scene.sound[file]):
            return scene.play()

    return with_damage


def becomes(*path, to):
    """Another value in JSON."""
    return lambda sound: json.dumps(changed(json.loads(sound), path, to)).encode()


def byte(position: int, value: int):
    return lambda sound: sound[:position] + bytes([value]) + sound[position + 1 :]


CHECKPOINT = "checkpoint_final.pth"
SCHEMES = ("configurations", "2d", "normalization_schemes")
NO_CASE = "x/case0 is no case as nnU-Net preprocesses it"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("scene", "file", "damage", "message"),
    [
        ("export_lora", CHECKPOINT, byte(76, 0xE1), f"{CHECKPOINT} cannot be read as a checkpoint"),
        ("export_lora", CHECKPOINT, lambda _: b"\x83K\x03\x04\0\0", f"{CHECKPOINT} cannot be read as a checkpoint"),
        ("export_lora", "plans.json", becomes("guidino", "x", to=1), "model/plans.json: guidino.x"),
        ("export_lora", "plans.json", becomes("guidino", "encoder_config", "backbone", to=1), "encoder_config in "),
        ("plan_show", "plans.json", becomes("guidino", "x", to=1), "plans.json: guidino.x"),
        ("guide", CHECKPOINT, lambda _: b"\x8eK\x03\x04\0\0\x08\x08\0\0\x82" + b"\0" * 40, CHECKPOINT),
        ("guide", "plans.json", becomes("foreground_intensity_properties_per_channel", to=[]), "plans.json does not"),
        ("guide", "plans.json", becomes("transpose_forward", 1, to=7), "plans.json does not say how images are read"),
        ("guide", "plans.json", becomes("label_manager", to="Nobody's"), "plans.json does not describe"),
        ("convert_images", "dataset.json", becomes("resized_to", 1, to=10**9), "dataset.json: resized_to is"),
        ("encoder_check", "config.json", becomes("apply_layernorm", to=None), "config.json: no dinov2 can be made"),
        ("encoder_check", "model.safetensors", "fifo", "model.safetensors is no regular file"),
        ("encoder_probe", "case0.b2nd", lambda _: b"\x9e\xa8b2frame", NO_CASE),
        ("encoder_probe", "case0.b2nd", "fifo", "case0.b2nd is no regular file"),
        ("encoder_probe", "case0_seg.b2nd", "fifo", "case0_seg.b2nd is no regular file"),
        ("encoder_probe", "case0.pkl", lambda _: b"\x80\x04", NO_CASE),
        ("encoder_probe", "nnUNetPlans.json", becomes(*SCHEMES, to=[]), "normalization_schemes"),
        (
            "encoder_probe",
            "nnUNetPlans.json",
            becomes(*SCHEMES, to=["ZScoreNormalization"]),
            "its shapes (3, 1, 40, 50) and (1, 40, 50) are not those of 1 channels",
        ),
        ("encoder_probe", "splits_final.json", becomes(0, "train", 0, to="x"), "splits_final.json"),
        ("convert_predictions", "mapping.csv", "fifo", "mapping.csv is no regular file"),
        ("convert_predictions", "dataset.json", becomes("file_ending", to=None), "dataset.json: file_ending is None"),
        ("convert_images", "dataset.json", becomes("channel_names", "2", to=[]), "dataset.json: the model has the"),
        ("benchmark", "matrix.yaml", "fifo", "matrix.yaml"),
    ],
)  # fmt: skip
def test_it_is_named(scene, file, damage, message, play):
    code, error = play(scene, file, damage)
    assert code == 1
    assert message in error


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("card", [b"---\nlicense: \xcf\n---\n", b"---\nlicense: a\x11\n---\n", b"---\n- a\n---\n"])
def test_a_model_card_that_cannot_be_read_says_nothing_of_a_licence(card, play):
    assert play("encoder_check", "README.md", lambda _: card) == (0, "")
