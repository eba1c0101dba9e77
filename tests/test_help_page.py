"""The tables and plots of the help page, from a summary like those in docs/benchmarks."""

import help_page
import numpy as np
import pandas as pd
import pytest

PAGE = """# Does it help?
<!-- all benchmarks -->
<!-- end of all benchmarks -->
Prose.
<!-- benchmark: small -->
an earlier table
<!-- end of the benchmark -->
More prose.
"""


@pytest.fixture
def benchmarks(tmp_path):
    """small.csv: two methods with 25 and all cases; the guided one's only guide is for two classes."""
    rows = []
    for cases in ("25", "all"):
        for method in ("plain", "guided"):
            row = {"dataset": "Dataset901_X", "configuration": "2d", "training_cases": cases, "method": method}
            limits = {"": 0.5, "_low": 0.4, "_high": 0.6}
            scores = {f"{metric}{limit}": value for metric in ("dice", "iou") for limit, value in limits.items()}
            guided = method == "guided"
            differences = {
                f"{metric}_difference{limit}": value / 10 if guided else np.nan
                for metric in ("dice", "iou")
                for limit, value in limits.items()
            }
            about = {"class": "foreground mean", "trainings": 3, "seconds": 61.4}
            rows.append(row | about | scores | differences)
            if guided:
                guide = {"guide_dice": 0.3, "above_guide": 0.2, "above_guide_low": 0.1, "above_guide_high": 0.3}
                calibration = {"best_dice": 0.35, "calibration_error": 0.0123}
                rows.append(row | {"class": "any foreground"} | guide | calibration)
    pd.DataFrame(rows).to_csv(tmp_path / "small.csv", index=False)
    (tmp_path / "small.yaml").write_text("title: Small\n")
    return tmp_path


def test_tables_and_plots_are_filled_in_and_prose_stays(benchmarks):
    text = help_page.page(PAGE, benchmarks, benchmarks)
    assert "an earlier table" not in text
    assert "Prose." in text
    assert "**Dataset901_X, 2d, 25 training cases**" in text
    line = next(line for line in text.splitlines() if line.startswith("| guided"))
    assert line == (
        r"| guided | 50.00 \[40.00, 60.00\] | +5.00 \[+4.00, +6.00\] | 50.00 \[40.00, 60.00\] | +5.00 \[+4.00, +6.00\] "
        r"| 30.00 | +20.00 \[+10.00, +30.00\] | 35.00 | 0.012 | 3 | 61 |"
    )
    assert "| plain | 50.00 \\[40.00, 60.00\\] | – |" in text
    for name in ("help.png", "help_small.png"):
        assert f"]({name})" in text
        assert (benchmarks / name).read_bytes().startswith(b"\x89PNG")
    assert help_page.page(text, benchmarks, benchmarks) == text


def test_the_plot_of_all_shows_longer_trainings_on_the_same_data_and_shared_ones_once(benchmarks):
    for name in ("longer", "shared"):
        (benchmarks / f"{name}.yaml").write_text(f"title: {name}\n")
    small = help_page.read_summary("small", benchmarks)
    longer = small.assign(dice_difference=small["dice_difference"] + 0.1)
    rows = help_page.joined({"small": small, "longer": longer, "shared": small}, benchmarks)
    guided = rows[(rows["method"] == "guided") & (rows["class"] == "foreground mean")]
    assert list(guided["dataset"]) == ["Small", "Small", "longer", "longer"]
