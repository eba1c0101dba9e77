"""Names that other programs take for formulas, markup, mathematics or terminal sequences."""

import csv
import re

import pandas as pd
import pytest
from evaluation_data import rows, square, write_pngs, write_summary

from nnunetv2_guidino.tools.drawing.pages import in_csv, in_markdown, latex

NAMES = [
    "=HYPERLINK(1)",
    "+1",
    "-1",
    "@x",
    "$5",
    "$a$b_c^d$",
    "<b>&amp;",
    "a|b",
    "**bold**",
    "`x`",
    "50%",
    r"\alpha{}",
    "#1",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_cases_and_classes(name, guidino, tmp_path):
    gt = write_pngs(tmp_path / "gt", {name: square(5, 5)})
    pred = write_pngs(tmp_path / "pred", {name: square(5, 6)})
    images = write_pngs(tmp_path / "images", {f"{name}_0000": square(5, 5)})
    arguments = ["-gt", gt, "-pred", pred, "-i", images, "-o", tmp_path / "s", "-np", 1]
    label = name.replace(",", "").replace("=", "§")
    guidino("evaluate", *arguments, f"--labels={label}=1")
    row = rows(tmp_path / "s")[0]
    assert not row["case"].startswith(("=", "+", "-", "@"))
    assert row["case"].removeprefix("'") == name
    html = (tmp_path / "s" / "report.html").read_text()
    assert "<b>" not in html
    assert "<b>" not in (tmp_path / "s" / "report.md").read_text().replace(r"\<b\>", "")

    method = f"x{label}" if label.startswith("-") else label  # a leading dash would make it an option
    guidino("compare", f"a={tmp_path / 's'}", f"{method}={tmp_path / 's'}", "-o", tmp_path / "c")
    for file in ("comparison.csv", "differences.csv"):
        with (tmp_path / "c" / file).open() as opened:
            cells = [cell for line in csv.reader(opened) for cell in line]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "@")) or re.match(r"-[^\d.]", cell)]


def in_latex(text: str) -> str:
    """Return a table's cell, which equals its header."""
    header, cell = re.findall(r"x & (.*?) \\\\", latex(pd.DataFrame({"x": ["x"], text: [text]})))
    assert header == cell
    return cell


def test_in_latex():
    assert in_latex(r"a_b & 50% $5 #1 {x}") == r"a\_b \& 50\% \$5 \#1 \{x\}"
    assert in_latex(r"a~b^c\d<e") == r"a\textasciitilde b\textasciicircum c\textbackslash d\textless{}e"
    assert in_latex("1 ± 2 ↑ – |") == r"1 $\pm$ 2 $\uparrow$ -- \textbar{}"


def test_in_markdown():
    assert in_markdown("far_off 5_000 nnUNet__plans") == r"far_off 5_000 nnUNet\_\_plans"
    assert in_markdown("a|b *c* <d> [e](f) `g` $h$ _i_ ~~j~~ \\") == (
        r"a\|b \*c\* \<d\> \[e\](f) \`g\` \$h\$ \_i\_ \~\~j\~\~ " + "\\\\"
    )


def test_in_csv():
    assert [in_csv(text) for text in ("=1", " =1", "+1", "-1", "@a", "a=1", "")] == (
        ["'=1", "' =1", "'+1", "'-1", "'@a", "a=1", ""]
    )


@pytest.mark.parametrize("name", ["a\nb", "a\x1b[2Jb", "a\tb", "a\udcffb"])
def test_names_that_cannot_be_shown(name, guidino, tmp_path):
    write_pngs(tmp_path / "gt", {name: square(5, 5)})
    folders = ["-gt", tmp_path / "gt", "-pred", tmp_path / "gt", "-o", tmp_path / "s", "--labels", "x=1"]
    with pytest.raises(AssertionError, match=r"gt: the name '.*\\.*' holds a character that cannot be shown"):
        guidino("evaluate", *folders)
    write_summary(tmp_path / "a", {name: 0.5})
    with pytest.raises(AssertionError, match="cannot be shown"):
        guidino("compare", tmp_path / "a")
    write_summary(tmp_path / "a", {"x": 0.5})
    with pytest.raises(AssertionError, match="the name of a method: .*cannot be shown"):
        guidino("compare", f"{name}={tmp_path / 'a'}")
