"""Whatever the files hold that a command reads: success, or one clear line; no traceback, hang or half-written output.

A failure is shown with the damage that made it. Other inputs, and more of them, by hand:

    GUIDINO_FUZZ_EXAMPLES=1000 pytest tests/fuzz -k guide
"""

from pathlib import Path

import pytest
from fuzzing import FUZZ, damages, play_damaged
from hypothesis import given
from scenes import SCENES

from nnunetv2_guidino.nnunet.folders import VARIABLES


@pytest.fixture
def scene(request, tmp_path: Path, monkeypatch):
    for name in VARIABLES:
        monkeypatch.setenv(name, str(tmp_path / name))
    return SCENES[request.param](tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("scene", SCENES, indirect=True)
def test_a_damaged_file(scene):
    assert scene.play()[0] == 0

    @FUZZ
    @given(damages(scene.sound))
    def check(damage):
        play_damaged(scene, damage)

    check()
