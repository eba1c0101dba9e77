"""The tables of docs/explanation/cost.md are those of the measurements beside it, and the exponents are slopes."""

import cost_page
import cost_scale
import pytest

from nnunetv2_guidino.lab.cost.cost_report import draw, table
from nnunetv2_guidino.lab.cost.timing import ENCODER, GUIDED, LORA, MEASURES, PLAIN, Costs, Key


def test_page_is_up_to_date():
    assert cost_page.PAGE.read_text(encoding="utf-8") == cost_page.page()


def test_exponent_is_the_slope_of_the_logarithms():
    assert cost_scale.exponent([1, 2, 4], [3, 12, 48]) == pytest.approx(2)


def costs(rounds: int = 20) -> Costs:
    """Two plans, of which the second was measured without a guide, with made-up numbers."""
    about = {
        "dataset": "D", "configuration": "2d", "rounds": rounds, "device": "cpu", "machine": "M", "threads": 2,
        "date": "d", "plans": {"A": {"batch_size": 4, "patch_size": [256, 256], "encoder_mib": 80.0}, "B": {}},
    }  # fmt: skip
    medians = {("A", PLAIN): 1.0, ("A", ENCODER): 0.2, ("A", GUIDED): 1.05, ("A", LORA): 2.0, ("B", PLAIN): 4.0}
    factors = [1.0, 1.5] * (rounds // 2)
    return Costs(about, {Key(m, *of): [value * f for f in factors] for m in MEASURES for of, value in medians.items()})


def test_what_the_page_says_of_numbers():
    lines = cost_page.case_table(costs()).splitlines()
    assert lines[2].startswith("| A, plain | 1 to 1.5 s | ")
    assert lines[4].startswith("| A, guided | 1.05 to 1.58 s; 1.05 × (1.05 to 1.05) | ")
    assert cost_page.case_table(costs(rounds=4)).splitlines()[4].startswith("| A, guided | 1.05 to 1.58 s | ")


def test_what_drifts_is_not_on_the_page():
    drifting = costs()
    for key, values in drifting.values.items():
        if key.measure == "step":
            values.sort()
    assert cost_page.case_table(drifting).splitlines()[4].startswith("| A, guided | – | 1.05 to 1.58 s; 1.05 × (")


def test_report_of_made_up_numbers(tmp_path):
    assert "A, guided" in table(costs())
    draw(costs(), tmp_path / "cost.png")
    assert (tmp_path / "cost.png").stat().st_size > 10_000
