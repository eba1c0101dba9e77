"""The tables of docs/explanation/cost.md are those of the measurements beside it, and the exponents are slopes."""

import cost_page
import cost_scale
import pytest

from nnunetv2_guidino.cost.measure import ENCODER, GUIDED, LORA, MEASURES, PLAIN, Costs, Key
from nnunetv2_guidino.cost.report import draw, table


def test_page_is_up_to_date():
    assert cost_page.PAGE.read_text(encoding="utf-8") == cost_page.page()


def test_exponent_is_the_slope_of_the_logarithms():
    assert cost_scale.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


def costs() -> Costs:
    """Two plans, of which the second was measured without a guide, with made-up numbers."""
    about = {
        "dataset": "D", "configuration": "2d", "rounds": 2, "device": "cpu", "machine": "M", "threads": 2, "date": "d",
        "plans": {"A": {"batch_size": 4, "patch_size": [256, 256], "encoder_mib": 80.0}, "B": {}},
    }  # fmt: skip
    medians = {("A", PLAIN): 1.0, ("A", ENCODER): 0.2, ("A", GUIDED): 1.05, ("A", LORA): 2.0, ("B", PLAIN): 4.0}
    values = {Key(name, *of): [value, value] for name in MEASURES for of, value in medians.items()}
    return Costs(about, values)


def test_what_the_page_says_of_numbers():
    lines = cost_page.targets({"2d_256": costs()}).splitlines()
    assert "| guided step ≤ 1.10 × plain | 1.05 ×, reached |" in lines
    assert "| LoRA step ≤ plain + 3.2 encoder passes | plain + 5.0 passes |" in lines
    rows = cost_page.case_table(costs()).splitlines()
    assert rows[-1].startswith("| B, plain | 4 s | ")
    assert rows[-1].endswith(" | 25 |")


def test_report_of_made_up_numbers(tmp_path):
    assert "A, guided" in table(costs())
    draw(costs(), tmp_path / "cost.png")
    assert (tmp_path / "cost.png").stat().st_size > 10_000
