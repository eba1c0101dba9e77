"""`guidino compare` on evaluated folders."""

import csv

import numpy as np
import pytest
from evaluation_data import CASES, scores, square, value, write_pngs, write_summary
from scipy.stats import wilcoxon

from nnunetv2_guidino.commands.compare import parse_run, parse_runs
from nnunetv2_guidino.errors import GuidinoError
from nnunetv2_guidino.tools.evaluation.comparison import (
    intervals,
    load_runs,
    mean_over_runs,
    paired_differences,
    significance,
)

BASE, BETTER = [0.5, 0.6, 0.7, 0.8, 0.9, 0.7], [0.55, 0.7, 0.85, 0.8, 0.91, 0.69]


def test_mean_and_deviation_over_seeds(tmp_path):
    for seed in range(3):
        write_summary(tmp_path / f"s{seed}", scores([d + 0.01 * seed for d in BASE]))
    write_summary(tmp_path / "b", scores(BETTER))
    runs = ",".join(str(tmp_path / f"s{seed}") for seed in range(3))
    table = mean_over_runs(load_runs(parse_runs([f"plain={runs}", f"guided={tmp_path / 'b'}"])))
    assert value(table, "plain", "mean") == pytest.approx(np.mean(BASE) + 0.01)
    assert value(table, "plain", "std") == pytest.approx(0.01)
    assert value(table, "plain", "runs") == 3
    assert value(table, "guided", "delta") == pytest.approx(np.mean(BETTER) - np.mean(BASE) - 0.01)
    assert np.isnan(value(table, "guided", "std"))


def test_folds_are_runs_whether_in_one_folder_or_several(tmp_path):
    together = write_summary(tmp_path / "model" / "evaluation", scores(BASE), folds="000111")
    write_summary(tmp_path / "f0", dict(zip(CASES[:3], BASE[:3], strict=True)))
    write_summary(tmp_path / "f1", dict(zip(CASES[3:], BASE[3:], strict=True)))
    table = mean_over_runs(
        load_runs(parse_runs([str(tmp_path / "model"), f"apart={tmp_path / 'f0'},{tmp_path / 'f1'}"]))
    )
    for name in ("model", "apart"):
        assert value(table, name, "runs") == 2
        assert value(table, name, "std") == pytest.approx(np.std([0.6, 0.8], ddof=1))
    assert parse_run(str(together))[0] == "model"


def test_paired_differences_average_the_seeds_first(tmp_path):
    write_summary(tmp_path / "a", scores(BASE), classes="12")
    for seed, shift in enumerate((-0.02, 0.04)):
        write_summary(tmp_path / f"b{seed}", scores([d + shift for d in BETTER]), classes="12")
    scored = load_runs(parse_runs([str(tmp_path / "a"), f"b={tmp_path / 'b0'},{tmp_path / 'b1'}"]))
    differences = paired_differences(scored)
    chosen = differences[(differences["metric"] == "dice") & (differences["class"] == "foreground mean")]
    expected = np.array(BETTER) + 0.01 - BASE
    assert chosen["difference"].to_numpy() == pytest.approx(expected)
    result = significance(differences)
    assert value(result, "b", "difference") == pytest.approx(expected.mean())
    assert value(result, "b", "p") == wilcoxon(chosen["difference"]).pvalue


def test_same_predictions_do_not_differ(tmp_path):
    write_summary(tmp_path / "a", scores(BASE))
    scored = load_runs(parse_runs([f"a={tmp_path / 'a'}", f"b={tmp_path / 'a'}"]))
    assert value(significance(paired_differences(scored)), "b", "p") == 1
    result = intervals(scored)
    assert value(result, "b", "ci_low") == value(result, "b", "ci_high") == 0


def test_command_writes_the_tables_and_the_plot(tmp_path, guidino):
    gt = write_pngs(tmp_path / "gt", {name: square(10, 10) for name in CASES})
    for run, step in (("near", 1), ("far", 2)):
        predictions = {name: square(10 + i * step % 5, 10 + step) for i, name in enumerate(CASES)}
        pred = write_pngs(tmp_path / run, predictions)
        guidino("evaluate", "-gt", gt, "-pred", pred, "-o", tmp_path / f"{run}_scores", "--labels", "x=1", "-np", 1)
    out = tmp_path / "out"
    runs = [f"far_off={tmp_path / 'far_scores'}", f"near={tmp_path / 'near_scores'}"]
    text = guidino("compare", *runs, "-o", out)
    names = ["comparison.csv", "comparison.md", "comparison.tex", "differences.csv", "differences.png"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert (out / "comparison.md").read_text().strip() == text.strip()
    with (out / "comparison.csv").open() as file:
        table = list(csv.DictReader(file))
    near = next(row for row in table if (row["method"], row["metric"]) == ("near", "dice"))
    shown = f"{100 * float(near['mean']):.2f} ({100 * float(near['delta']):+.2f})"
    assert shown in text
    latex = (out / "comparison.tex").read_text()
    assert rf"near & {shown}" in latex
    assert r"far\_off" in latex
    assert (out / "differences.png").read_bytes().startswith(b"\x89PNG")


def test_one_run_gives_its_row(tmp_path, guidino):
    write_summary(tmp_path / "only", scores(BASE), folds="000111")
    text = guidino("compare", tmp_path / "only", "-o", tmp_path / "out")
    assert "| only | 70.00 ± 14.14 |" in text
    assert "Paired" not in text
    assert not (tmp_path / "out" / "differences.csv").exists()


REFUSED = {
    "missing case": ({"dice": dict(list(scores(BASE).items())[1:])}, r"b was not scored on 1 case \(case_0\) of a"),
    "extra case": ({"dice": scores(BASE) | {"new": 0.5}}, r"b was also scored on 1 case \(new\), but a was not"),
    "other references": (
        {"n_ref": 65},
        r"b was scored with other references than a for 6 cases \(case_0, case_1, .*…\)",
    ),
    "other policy": ({"empty": "ignore"}, r"a/summary\.json has empty penalize, .*b/summary\.json has ignore"),
    "other classes": ({"classes": "2"}, r"has classes .*class 1.*class 2"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_runs_that_cannot_be_compared(name, tmp_path):
    changes, message = REFUSED[name]
    write_summary(tmp_path / "a", scores(BASE))
    write_summary(tmp_path / "b", **{"dice": scores(BASE)} | changes)
    with pytest.raises(GuidinoError, match=message):
        load_runs(parse_runs([str(tmp_path / "a"), str(tmp_path / "b")]))


def test_seeds_on_different_cases(tmp_path):
    write_summary(tmp_path / "s0", scores(BASE))
    write_summary(tmp_path / "s1", dict(list(scores(BASE).items())[:4]))
    with pytest.raises(GuidinoError, match=r"a has 2 runs of some cases, fewer of 2 cases \(case_4, case_5\)"):
        load_runs(parse_runs([f"a={tmp_path / 's0'},{tmp_path / 's1'}"]))


def test_runs_that_are_none(tmp_path):
    with pytest.raises(GuidinoError, match=r"has no summary\.json; run guidino evaluate first"):
        load_runs(parse_runs([str(tmp_path)]))
    (tmp_path / "summary.json").write_text('{"mean": {}}')
    with pytest.raises(GuidinoError, match="was not written by guidino evaluate"):
        load_runs(parse_runs([str(tmp_path)]))
    write_summary(tmp_path / "a", scores(BASE))
    with pytest.raises(GuidinoError, match="two runs are called a"):
        load_runs(parse_runs([str(tmp_path / "a"), str(tmp_path / "a")]))
