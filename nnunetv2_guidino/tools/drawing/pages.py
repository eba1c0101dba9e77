"""Tables as CSV, LaTeX and Markdown; pages of text, tables and pictures as HTML and Markdown.

A user's names may hold anything. Each format shows them as they are and never as a formula, markup or mathematics.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

# pandas escapes LaTeX's own characters; these are for all encodings and for text and tables alike.
LATEX = str.maketrans({"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "±": r"$\pm$", "–": "--"})
LATEX |= str.maketrans({"↑": r"$\uparrow$", "↓": r"$\downarrow$"})
# An underscore inside a word or between digits is an underscore in Markdown; elsewhere it begins emphasis.
MARKDOWN = re.compile(r"[\\`*|<>\[\]&$~]|(?<![^\W_])_|_(?![^\W_])")


@dataclass(frozen=True)
class Section:
    """A part of a page. All text is plain text.

    Args:
        title: The heading; a section without one continues the section before it.
        text: A paragraph.
        table: A table of text; its column names are the header.
        notes: Points of a list.
        pictures: The title and the PNG or JPEG file's content of each picture; HTML shows them side by side.
        level: The level of the heading, 1 for the page's own title.
    """

    title: str = ""
    text: str = ""
    table: pd.DataFrame | None = None
    notes: Sequence[str] = ()
    pictures: Sequence[tuple[str, bytes]] = ()
    level: int = 2


def html(title: str, sections: Sequence[Section]) -> str:
    """Return an HTML page in one file: it holds its pictures, and its policy forbids the browser all requests."""
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["data_url"] = _data_url
    return environment.get_template("page.html").render(title=title, sections=sections)


def _data_url(picture: bytes) -> str:
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Return a page in Markdown, without lists and pictures."""
    parts = [f"# {in_markdown(title)}"]
    for section in sections:
        parts += [f"{'#' * section.level} {in_markdown(section.title)}"] if section.title else []
        parts += [in_markdown(section.text)] if section.text else []
        parts += [] if section.table is None else [markdown_table(section.table)]
    return "\n\n".join(parts) + "\n"


def markdown_table(table: pd.DataFrame) -> str:
    """Return a table in Markdown, with its first column aligned left and the others right."""
    rows = [table.columns, *table.itertuples(index=False)]
    lines = ["| " + " | ".join(in_markdown(str(cell)) for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(table.columns) - 1) + "|", *lines[1:]])


def in_markdown(text: str) -> str:
    """Escape text for a cell, heading or paragraph in Markdown."""
    return MARKDOWN.sub(lambda found: "\\" + found[0], text)


def latex(table: pd.DataFrame) -> str:
    """Return a table as a LaTeX tabular, which needs the package booktabs."""
    columns = "l" + "c" * (len(table.columns) - 1)
    return str(table.to_latex(index=False, escape=True, column_format=columns)).translate(LATEX)


def csv(table: pd.DataFrame) -> str:
    """Return a table as CSV."""
    return str(table.map(lambda cell: in_csv(cell) if isinstance(cell, str) else cell).to_csv(index=False))


def in_csv(text: str) -> str:
    """Put an apostrophe before =, +, - or @, so that a spreadsheet takes the cell for text and not for a formula."""
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text


def number(value: float | None, scale: float = 1, sign: str = "", digits: int = 2) -> str:
    """Return a number as text, or a dash if there is none; the sign "+" marks positive numbers too."""
    return "–" if value is None or pd.isna(value) else f"{scale * value:{sign}.{digits}f}"
