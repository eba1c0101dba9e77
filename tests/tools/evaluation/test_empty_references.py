"""Empty references in `guidino compare`: one rule for the table and the paired test."""

import re

import numpy as np
import pytest
from evaluation_data import FALSE_ALARM, NAN, RIGHT_ON_EMPTY, scores_of, square, value, write_pngs, write_summary

from nnunetv2_guidino.commands.compare import parse_runs
from nnunetv2_guidino.tools.evaluation.comparison import compare


def halves(folder, name, found, on_empty):
    """Write 20 cases with one Dice and 20 with an empty reference."""
    cases = {f"lesion_{i}": found for i in range(20)} | {f"healthy_{i}": on_empty for i in range(20)}
    return write_summary(folder / name, cases)


def test_finding_nothing_where_nothing_is_counts(tmp_path, guidino):
    """The table once gave A 96.55 and B 49.89, while the paired test found B better by 3.23."""
    a = halves(tmp_path, "a", 0.9655, RIGHT_ON_EMPTY)
    b = halves(tmp_path, "b", 0.9978, FALSE_ALARM)
    text = guidino("compare", f"A={a}", f"B={b}", "-o", tmp_path / "out")
    assert re.search(r"\| A \| 98\.2[78] \|", text)
    assert re.search(r"\| B \| 49\.89 \(-48\.3[89]\) \|", text)
    assert re.search(r"\| B \| Dice ↑ \(%\) \| -48\.3[89] \|", text)
    assert "| class 1 | 40 | 20 | 20 | 0 |" in text


@pytest.fixture
def both(tmp_path):
    a = halves(tmp_path, "a", 0.9, RIGHT_ON_EMPTY)
    b = halves(tmp_path, "b", 0.8, FALSE_ALARM)
    return compare({"a": [a], "b": [b]})


@pytest.mark.parametrize(
    ("metric", "best", "worst"), [("dice", 1, 0), ("iou", 1, 0), ("nsd", 1, 0), ("hd95", 0, 50), ("recall", 1, 0)]
)
def test_right_gets_the_best_value_of_each_metric(metric, best, worst, both):
    names = {"dice": "Dice", "iou": "IoU", "nsd": "NSD", "hd95": "HD95", "recall": "Recall"}
    a, b = ((scores_of(dice)[names[metric]] + other) / 2 for dice, other in ((0.9, best), (0.8, worst)))
    assert value(both.table, "a", "mean", metric) == pytest.approx(a)
    assert value(both.table, "b", "mean", metric) == pytest.approx(b)
    assert value(both.table, "b", "delta", metric) == pytest.approx(value(both.table, "b", "difference", metric))
    assert value(both.table, "b", "cases", metric) == 40


def test_where_no_run_predicts_anything_the_case_is_left_out_and_said(tmp_path):
    for name in "ab":
        halves(tmp_path, name, 0.9, RIGHT_ON_EMPTY)
    result = compare({"a": [tmp_path / "a"], "b": [tmp_path / "b"]})
    assert value(result.table, "a", "mean") == pytest.approx(0.9)
    assert value(result.table, "b", "cases") == 20
    assert "| class 1 | 40 | 20 | 0 | 20 |" in result.text


def test_alone_a_run_keeps_the_means_of_evaluate(tmp_path, guidino):
    nothing, something = np.zeros((40, 50)), square(5, 5)
    gt = write_pngs(tmp_path / "gt", {"a": something, "b": nothing, "c": nothing})
    pred = write_pngs(tmp_path / "pred", {"a": square(5, 6), "b": nothing, "c": something})
    printed = guidino("evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path / "s", "--labels", "x=1", "-np", 1)
    assert "x: 1 case left out of its means, where reference and prediction are empty" in printed
    result = compare({"s": [tmp_path / "s"]})
    assert value(result.table, "s", "mean") == pytest.approx((7 / 8 + 0) / 2)
    assert "| x | 3 | 2 | 1 | 1 |" in result.text


def test_seeds_count_the_same_cases(tmp_path):
    """A case that one seed gets wrong counts for the other seeds, and for the other method."""
    plain = [halves(tmp_path, "p0", 0.9, RIGHT_ON_EMPTY)]
    wrong = {"healthy_0": FALSE_ALARM}
    cases = {f"lesion_{i}": 0.8 for i in range(20)} | {f"healthy_{i}": RIGHT_ON_EMPTY for i in range(20)}
    guided = [write_summary(tmp_path / "g0", cases), write_summary(tmp_path / "g1", cases | wrong)]
    result = compare({"plain": plain, "guided": guided})
    assert value(result.table, "plain", "mean") == pytest.approx((20 * 0.9 + 1) / 21)
    assert value(result.table, "guided", "mean") == pytest.approx((20 * 0.8 + 0.5) / 21)
    assert value(result.table, "guided", "cases") == 21
    assert value(result.table, "guided", "difference") == pytest.approx(value(result.table, "guided", "delta"))


def test_ignored_cases_are_ignored_for_all(tmp_path):
    """With --empty ignore a missed case has no HD95, so the other method's HD95 does not count either."""
    missed = {"Dice": 0, "IoU": 0, "HD95": NAN, "NSD": 0, "Precision": NAN, "Recall": 0, "n_ref": 64, "n_pred": 0}
    alarm = FALSE_ALARM | {"HD95": NAN, "Recall": NAN}
    a = {"found": 0.9, "hard": 0.3, "healthy": RIGHT_ON_EMPTY}
    b = {"found": 0.8, "hard": missed, "healthy": alarm}
    folders = [write_summary(tmp_path / name, cases, empty="ignore") for name, cases in (("a", a), ("b", b))]
    result = compare({"a": folders[:1], "b": folders[1:]})
    assert value(result.table, "a", "mean", "hd95") == pytest.approx(1)
    assert value(result.table, "a", "mean", "dice") == pytest.approx((0.9 + 0.3 + 1) / 3)
    assert value(result.table, "a", "mean", "precision") == pytest.approx((0.9 + 1) / 2)
    for metric in ("hd95", "dice", "precision", "recall"):
        assert value(result.table, "b", "difference", metric) == pytest.approx(
            value(result.table, "b", "delta", metric)
        )
    assert "left out of HD95" in result.text


def test_a_difference_by_rounding_is_none(tmp_path):
    """0.1 + 0.2 is not 0.3, and Wilcoxon's test would rank their difference."""
    for seed, shift in enumerate((0.1, 0.2)):
        write_summary(tmp_path / f"a{seed}", {f"c{i}": 0.3 + shift for i in range(9)})
        write_summary(tmp_path / f"b{seed}", {f"c{i}": 0.3 + (0.1 + 0.2) / 2 for i in range(9)})
    runs = [f"{name}={tmp_path / name}0,{tmp_path / name}1" for name in "ab"]
    result = compare(parse_runs(runs))
    differences = result.differences
    assert (differences.loc[differences["metric"].isin(["dice", "nsd", "hd95"]), "difference"] == 0).all()
    assert value(result.table, "b", "p") == 1
