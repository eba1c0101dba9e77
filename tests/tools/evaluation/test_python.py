"""evaluate and compare from Python: without a command line, and without output files."""

import pandas as pd
import pytest
from evaluation_data import square, write_pngs

from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.evaluation.comparison import compare
from nnunetv2_guidino.tools.evaluation.evaluation import Scoring, evaluate
from nnunetv2_guidino.tools.evaluation.scored_labels import LabelSet

ONE_PROCESS = Scoring(processes=1)


def test_evaluate_and_compare(folders, tmp_path):
    gt, pred = map(str, folders)
    scores = evaluate(gt, pred, scoring=ONE_PROCESS)
    assert list(scores.table["dice"]) == pytest.approx([1, 7 / 8, 6 / 8, 5 / 8])
    assert scores.summary["foreground_mean"]["Dice"] == pytest.approx(scores.table["dice"].mean())
    assert scores.labels_from == f"{pred}/dataset.json"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gt", "pred"]

    labels = LabelSet({"object": 1})
    evaluate(gt, gt, str(tmp_path / "perfect"), labels=labels, scoring=ONE_PROCESS)
    evaluate(gt, pred, str(tmp_path / "shifted"), labels=labels, scoring=ONE_PROCESS)
    result = compare({name: [str(tmp_path / name)] for name in ("perfect", "shifted")})
    assert isinstance(result.table, pd.DataFrame)
    assert set(result.table["method"]) == {"perfect", "shifted"}
    assert len(result.differences.query("metric == 'dice' and `class` == 'object'")) == 4
    assert result.text.startswith("# Comparison")


def test_left_out_is_said(tmp_path):
    gt = write_pngs(tmp_path / "gt", {"a": 0 * square(5, 5), "b": square(5, 5)})
    result = evaluate(gt, gt, labels=LabelSet({"x": 1, "y": 2}), scoring=ONE_PROCESS)
    assert result.left_out == {"x": 1, "y": 2}


@pytest.mark.parametrize("wrong", [{"empty": "other"}, {"nsd_tolerance": -1.0}, {"processes": 0}])
def test_settings_out_of_range(wrong):
    with pytest.raises(GuidinoError, match="expected"):
        Scoring(**wrong)


def test_nothing_to_compare():
    with pytest.raises(GuidinoError, match="nothing to compare"):
        compare({})
