"""The report and its tables from made-up results."""

from dataclasses import fields
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from nnunetv2_guidino.lab.benchmark.benchmark_report import Results, report_sections, summarize, write_report
from nnunetv2_guidino.tools.drawing.pages import html


def results() -> Results:
    """Two methods on one data set with 25, 50 and all training cases; four of twelve trainings have not finished."""
    cells = [("Dataset901_<X>", "2d", cases) for cases in (25, 50, "all")]
    compared, differences, runs, curves, guides, beside = [], [], [], [], [], []
    for i, (dataset, configuration, cases) in enumerate(cells):
        where = {"dataset": dataset, "configuration": configuration, "training_cases": cases}
        for j, method in enumerate(("plain", "guided")):
            for name in ("foreground mean", "lesion"):
                row = where | {"class": name, "method": method, "runs": 2, "cases": 4 if j else np.nan, "std": 0.01}
                difference = {"difference": 0.1, "ci_low": 0.05, "ci_high": 0.15} if j else {}
                for metric, value in {"dice": 0.5 + 0.1 * (i + j), "iou": 0.4, "hd95": 3.0}.items():
                    row = row | {"metric": metric, "mean": value, "mean_low": value - 0.1, "mean_high": value + 0.1}
                    compared.append(row | difference)
            runs += [
                where | {"method": method, "fold": "0", "seed": s, "state": "done" if i else "failed", "seconds": 60}
                for s in (0, 1)
            ]
            curves += [where | {"method": method, "epoch": epoch, "train_loss": -epoch / 9} for epoch in range(3)]
        row = where | {"class": "foreground mean", "method": "guided", "metric": "dice"}
        differences += [row | {"case": f"c{n}", "difference": n / 100} for n in range(4)]
        of_guide = where | {"class": "lesion", "method": "guided"}
        calibration = {"best_threshold": 0.35, "best_dice": 0.55, "calibration_error": 0.02}
        guides += [of_guide | {"seed": s, "guide_dice": 0.5, "segmentation_dice": 0.6} | calibration for s in (0, 1)]
        dice = {"segmentation_dice": 0.6, "guide_dice": 0.5, "above_guide": 0.1}
        limits = {f"{name}_{limit}": value for name, value in dice.items() for limit in ("low", "high")}
        beside.append(of_guide | dice | limits)
    tables = (pd.DataFrame(table) for table in (runs, compared, differences, guides, curves, beside))
    runs, compared, differences, guides, curves, beside = tables
    summary = summarize(compared, beside, guides, runs)
    return Results(summary, runs, compared, compared, differences, guides, guides, guides, curves)


class Checker(HTMLParser):
    """Counts images, and tags that load other files."""

    images, outside = 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        source = dict(attrs).get("src") or ""
        self.images += tag == "img" and source.startswith("data:image/")
        self.outside += tag in ("script", "link") or source.startswith("http")


def test_report_is_one_file_with_tables_and_curves(tmp_path):
    pictures = {"Dataset901_<X> 2d": [("case_<1>: seed 0", b"a picture"), ("case_2: seed 0", b"another")]}
    file = write_report(tmp_path / "out", "A & B", results(), pictures, ["nothing is done of <c>"])
    tables = {f"{field.name}.csv" for field in fields(Results)}
    assert {path.name for path in file.parent.iterdir()} == tables | {"report.html"}
    text = file.read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.images == 3 + 2  # fewer cases, differences, training; worst cases
    assert checker.outside == 0
    for shown in (
        "A &amp; B",
        "12 trainings: 8 done, 4 failed.",
        "Dataset901_&lt;X&gt;, 2d, 25 training cases",
        "60.00 ± 1.00",
        "+10.00 [+5.00, +15.00]",
        "<li>nothing is done of &lt;c&gt;</li>",
        "<h3>guide alone</h3>",
        "<td>60.00</td><td>50.00</td><td>+10.00 [+10.00, +10.00]</td><td>0.35</td><td>55.00</td><td>0.020</td>",
        "case_&lt;1&gt;: seed 0",
        "<h2>Not done</h2>",
    ):
        assert shown in text


def test_the_summary_has_a_row_for_each_method_of_a_data_set_with_one_class():
    summary = results().summary
    assert list(summary["method"]) == ["plain", "guided"] * 3
    assert set(summary["class"]) == {"foreground mean"}
    plain, guided = summary.iloc[0], summary.iloc[1]
    assert (guided["dice"], guided["dice_low"], guided["dice_difference_high"]) == (0.6, 0.5, 0.15)
    assert (guided["guide_dice"], guided["best_threshold"], guided["seconds"]) == (0.5, 0.35, 60)
    assert plain["cases"] == 4
    assert plain[["guide_dice", "dice_difference"]].isna().all()


def test_the_summary_of_one_method_alone_has_no_differences():
    made = results()
    plain = made.comparison[made.comparison["method"] == "plain"]
    plain = plain.drop(columns=["cases", "difference", "ci_low", "ci_high"], errors="ignore")
    summary = summarize(plain, pd.DataFrame(), pd.DataFrame(), made.runs)
    assert set(summary["method"]) == {"plain"}
    assert summary["dice"].notna().all()
    assert summary[["dice_difference", "dice_difference_low"]].isna().all(axis=None)


def test_a_benchmark_without_guides_or_comparison_has_a_report():
    made = results()
    nothing = pd.DataFrame()
    without_guides = summarize(made.comparison, nothing, nothing, made.runs)
    assert "guide_dice" not in without_guides
    for summary, comparison in ((without_guides, made.comparison), (nothing, nothing)):
        few = Results(summary, made.runs, comparison, comparison, nothing, nothing, nothing, nothing, made.curves)
        text = html("title", report_sections(few, {}, []))
        assert "guide alone" not in text
        assert "<h2>Training</h2>" in text
