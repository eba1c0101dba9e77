"""The report and its tables, of made-up results."""

from html.parser import HTMLParser

import numpy as np
import pandas as pd

from nnunetv2_guidino.benchmark.report import Results, write_report


def results() -> Results:
    """Two methods on one data set with 25, 50 and all training cases; two of twelve trainings are not done."""
    cells = [("Dataset901_<X>", "2d", cases) for cases in (25, 50, "all")]
    compared, differences, runs, curves = [], [], [], []
    for i, (dataset, configuration, cases) in enumerate(cells):
        where = {"dataset": dataset, "configuration": configuration, "training_cases": cases}
        for j, method in enumerate(("plain", "guided")):
            row = where | {"class": "foreground mean", "method": method, "metric": "dice"}
            interval = {"difference": 0.1, "ci_low": 0.05, "ci_high": 0.15} if j else {}
            compared.append(row | {"mean": 0.5 + 0.1 * (i + j), "std": 0.01, "runs": 2, "cases": 4} | interval)
            compared.append(row | {"metric": "hd95", "mean": 3.0, "std": np.nan, "runs": 2, "cases": 4})
            runs += [
                where | {"method": method, "fold": "0", "seed": s, "state": "done" if i else "failed"} for s in (0, 1)
            ]
            curves += [where | {"method": method, "epoch": epoch, "train_loss": -epoch / 9} for epoch in range(3)]
        rows = [row | {"case": f"c{n}", "difference": n / 100} for n in range(4)]
        differences += rows
    tables = (pd.DataFrame(table) for table in (runs, compared, compared, differences, curves))
    return Results(*tables)


class Checker(HTMLParser):
    """Counts images, and tags from elsewhere."""

    images, outside = 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        source = dict(attrs).get("src") or ""
        self.images += tag == "img" and source.startswith("data:image/png;base64,")
        self.outside += tag in ("script", "link") or source.startswith("http")


def test_report_is_one_file_with_tables_and_curves(tmp_path):
    file = write_report(tmp_path / "out", "A & B", results(), ["nothing is done of <c>"])
    assert sorted(path.name for path in file.parent.iterdir()) == [
        *("comparison.csv", "curves.csv", "differences.csv", "report.html", "runs.csv", "scores.csv")
    ]
    text = file.read_text()
    checker = Checker()
    checker.feed(text)
    assert checker.images == 3  # fewer cases, differences, training
    assert checker.outside == 0
    for shown in (
        "A &amp; B",
        "12 trainings: 8 done, 4 failed.",
        "Dataset901_&lt;X&gt;, 2d, 25 training cases",
        "60.00 ± 1.00",
        "+10.00 [+5.00, +15.00]",
        "nothing is done of &lt;c&gt;.",
        "<h2>Not done</h2>",
    ):
        assert shown in text
