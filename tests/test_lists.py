"""The tables of what can be added."""

import subprocess
import sys
from pathlib import Path

import pytest

from nnunetv2_guidino import lists
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.model.guide.gates import Gate
from nnunetv2_guidino.model.guide.positions import Position
from nnunetv2_guidino.model.networks.contract import Architecture

TABLES = {name: table for name, table in vars(lists).items() if name.isupper() and isinstance(table, dict)}
del TABLES["CONVERTERS"]  # files beside the package, which tests/tools/conversion/test_converters.py loads
BASES = {"GATES": Gate, "GATE_POSITIONS": Position, "ARCHITECTURES": Architecture}


@pytest.mark.parametrize(
    ("table", "name"), [(table, name) for table in TABLES for name in TABLES[table]], ids=lambda word: word
)
def test_each_line_leads_to_what_it_says(table, name):
    entry = TABLES[table][name]
    target = entry.load()
    assert table not in BASES or issubclass(target, BASES[table])
    assert target.__doc__
    assert entry.summary
    assert name.isidentifier()


def test_tables_and_settings_are_read_without_torch():
    """Options and help are made from them."""
    program = "import sys, nnunetv2_guidino.config; print(sorted({'torch', 'numpy', 'nnunetv2'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (
            "nnunetv2_guidino.nowhere:X",
            "nnunetv2_guidino.nowhere:X cannot be loaded: there is no module nnunetv2_guidin",
        ),
        ("nowhere.at.all:X", "there is no module nowhere"),
        ("nnunetv2_guidino.errors:X", "nnunetv2_guidino.errors:X cannot be loaded: .* no attribute 'X'"),
    ],
)
def test_a_line_that_leads_nowhere_says_so(target, message):
    with pytest.raises(GuidinoError, match=message):
        lists.Entry(target, "").load()


def test_what_a_module_itself_cannot_import_is_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "needs_what_is_not_there.py").write_text("import not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="not_there"):
        lists.Entry("needs_what_is_not_there:X", "").load()


def test_the_nearest_name_is_offered_where_one_is_near():
    with pytest.raises(
        GuidinoError, match="x is 'skip'; expected one of skips, bottleneck, input; did you mean skips?"
    ):
        lists.find(lists.GATE_POSITIONS, "skip", "x")
    with pytest.raises(GuidinoError, match="input$"):
        lists.find(lists.GATE_POSITIONS, "zzz", "x")
    with pytest.raises(GuidinoError, match="expected one of none that there is$"):
        lists.find({}, "zzz", "x")


def test_the_reference_has_each_name_and_default():
    page = (Path(__file__).resolve().parents[1] / "docs" / "reference" / "guide_settings.md").read_text()
    rows = {line.split("|")[1].strip(" `"): line for line in page.splitlines() if line.startswith("| `")}
    for key, table in {"gate_at": lists.GATE_POSITIONS, "gate": lists.GATES}.items():
        assert [name for name in table if f'`"{name}"`' not in rows[key]] == []
    for name, term in lists.LOSS_TERMS.items():
        assert rows[f"lambda_{name}"].split("|")[2].strip() == f"{term.weight:g}"
