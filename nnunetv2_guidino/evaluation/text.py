"""Names, which may hold anything, as text in CSV, Markdown and LaTeX.

matplotlib takes them with parse_math=False, HTML with html.escape.
"""

from __future__ import annotations

import re
import unicodedata

from nnunetv2_guidino.errors import GuidinoError

# Control characters (line ends, terminal sequences), parts of characters, separators of lines and paragraphs.
UNPRINTABLE = ("Cc", "Cs", "Zl", "Zp")
LATEX: dict[str, str | int | None] = {
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    **{character: rf"\{character}" for character in "%_&#${}"},
}
# An underscore within a word is itself; so is one between digits.
MARKDOWN = re.compile(r"[\\`*|<>\[\]&$~]|(?<![^\W_])_|_(?![^\W_])")


def check_name(name: str, where: str) -> None:
    """Refuse a name that would break lines, tables or the screen.

    Raises:
        GuidinoError: For control characters, and for file names that are no text (not UTF-8).
    """
    if any(unicodedata.category(character) in UNPRINTABLE for character in name):
        raise GuidinoError(f"{where}: the name {name!a} holds a character that cannot be shown; rename it")


def in_csv(text: str) -> str:
    """A cell that a spreadsheet takes for text and not for a formula: an apostrophe before =, +, - or @."""
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def in_latex(text: str) -> str:
    """A cell of a LaTeX table."""
    return text.translate(str.maketrans(LATEX))


def in_markdown(text: str) -> str:
    """A cell or heading in Markdown that shows these characters."""
    return MARKDOWN.sub(lambda found: "\\" + found[0], text)
