import subprocess
import sys
from pathlib import Path

import nnunetv2_guidino

LIGHT = "import sys; import {}; print([m for m in ('torch', 'transformers', 'nnunetv2') if m in sys.modules])"


def output_of(code: str, **options) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, **options).stdout


def test_import_and_help_stay_light():
    for module in (
        "nnunetv2_guidino",
        "nnunetv2_guidino.cli",
        "nnunetv2_guidino.config",
        "nnunetv2_guidino.commands.doctor",
    ):
        assert output_of(LIGHT.format(module)).strip() == "[]", module


def test_registration_imports_nothing_for_other_trainers():
    folder = nnunetv2_guidino.registration_folder()
    code = "import nnUNetTrainerGuiDINO as m; assert not hasattr(m, 'nnUNetTrainer'); assert not hasattr(m, 'x')"
    code += "; import sys; print([m for m in sys.modules if m.startswith(('torch', 'nnunetv2_guidino'))])"
    assert output_of(code, cwd=folder).strip() == "[]"


def test_registration_stays_light_for_a_user_s_own_trainer():
    code = "import nnUNetTrainerGuiDINO as m; assert not hasattr(m, 'nnUNetTrainerGuiDINOMine')"
    code += "; import sys; print([m for m in ('torch', 'transformers', 'nnunetv2') if m in sys.modules])"
    assert output_of(code, cwd=nnunetv2_guidino.registration_folder()).strip() == "[]"


def test_registration_folder_of_the_clone_holds_that_one_module():
    """nnU-Net imports all modules in nnUNet_extTrainer."""
    folder = Path(__file__).resolve().parents[2] / "nnunetv2_guidino" / "registration"
    assert [p.name for p in folder.iterdir() if p.name != "__pycache__"] == ["nnUNetTrainerGuiDINO.py"]
