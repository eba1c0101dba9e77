"""Options of a command from the function that does the work: type, default and help of a parameter stand there alone.

A command adds the spelling, such as `references="-gt DIR"`. The function is read from its source: importing its module
may import torch, and the help shall answer at once.
"""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args, get_origin

REQUIRED = "==REQUIRED=="  # in place of a default, as argparse.SUPPRESS is
UNSAID = ("None", "True", "False", "", "()", "[]", REQUIRED, argparse.SUPPRESS)  # defaults that no help shows


class Action(NamedTuple):
    """A command under another one, such as `guidino encoder fetch`."""

    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int | None]


class Parameter(NamedTuple):
    """A parameter of a function or a field of a dataclass."""

    type: Any = str  # without None
    default: Any = REQUIRED
    text: str = ""


class Option:
    """The spelling of a parameter on the command line, and what differs there.

    Args:
        spelling: Flags and placeholders of values, as the help shows them: "-gt DIR", "--resize H W". Without a flag
            the parameter is positional.
        group: Title of the option's group in the help.
        keywords: Keywords of argparse's add_argument, in place of those that the parameter gives.
    """

    def __init__(self, spelling: str, *, group: str = "", **keywords: Any) -> None:
        self.flags = [word for word in spelling.split() if word.startswith("-")]
        values = tuple(word for word in spelling.split() if not word.startswith("-"))
        self.keywords = ({"metavar": values if len(values) > 1 else values[0]} if values else {}) | keywords
        self.group = group


def options_of(*functions: str, **options: str | Option) -> Callable[[Any], None]:
    """Return a function that adds options for parameters of functions to a parser or a group of it.

    Args:
        functions: "module:name" of functions or dataclasses whose docstrings list the parameters under "Args:". The
            first one that has a parameter counts.
        options: The spelling of each parameter, whose name becomes the option's destination.
    """

    def add_arguments(parser: Any) -> None:
        groups = {"": parser}
        for name, spelling in options.items():
            option = spelling if isinstance(spelling, Option) else Option(spelling)
            parameter = next((known[name] for known in map(read_parameters, functions) if name in known), Parameter())
            keywords = {"default": parameter.default, "help": parameter.text} | _values(parameter) | option.keywords
            default = keywords["default"]
            if str(default) not in UNSAID:
                keywords["help"] += f" (default: {' '.join(default) if isinstance(default, tuple) else default})"
            keywords["help"] = keywords["help"].strip().replace("%", "%%")
            if "action" in option.keywords:
                del keywords["type"]
            if option.flags:
                keywords |= {"dest": name, "required": default == REQUIRED}
            if option.group not in groups:
                groups[option.group] = parser.add_argument_group(option.group)
            groups[option.group].add_argument(*(option.flags or [name]), **keywords)

    return add_arguments


@cache
def read_parameters(function: str) -> dict[str, Parameter]:
    """Return the parameters of "module:name" from its source; their texts are those under "Args:" in the docstring."""
    module, _, name = function.partition(":")
    spec = find_spec(module)
    assert spec, f"there is no module {module}"
    body = ast.parse(Path(str(spec.origin)).read_text(encoding="utf-8")).body
    node: Any = next(node for node in body if getattr(node, "name", None) == name)
    if isinstance(node, ast.ClassDef):
        fields = [
            (ast.unparse(one.target), one.annotation, one.value) for one in node.body if type(one) is ast.AnnAssign
        ]
    else:
        named = [*node.args.args, *node.args.kwonlyargs]
        defaults = [*node.args.defaults, *node.args.kw_defaults]
        defaults = [None] * (len(named) - len(defaults)) + defaults
        fields = [(one.arg, one.annotation, default) for one, default in zip(named, defaults, strict=True)]
    texts = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", ast.get_docstring(node) or "", re.MULTILINE))
    return {
        name: Parameter(_type(hint), _evaluate(default) if default else REQUIRED, _help(texts.get(name, "")))
        for name, hint, default in fields
    }


def _evaluate(node: ast.expr) -> Any:
    try:
        return eval(ast.unparse(node), {"Path": Path, "Sequence": Sequence})
    except NameError:  # a type of our own, whose option says how it is read
        return None


def _type(node: ast.expr) -> Any:
    kind = _evaluate(node)
    return (get_args(kind)[0] if NoneType in get_args(kind) else kind) or str


def _help(text: str) -> str:
    """Return an entry of a docstring as an option's help. Nobody can type None: it is the default."""
    text = re.sub(r"(^|\. )None\b", r"\1The default", " ".join(text.split()).removesuffix("."))
    return re.sub(r"\bNone\b", "the default", text)


def _values(parameter: Parameter) -> dict[str, Any]:
    """Return argparse's keywords for the values of a type."""
    if parameter.type is bool:
        return {"action": "store_false" if parameter.default is True else "store_true"}
    if get_origin(parameter.type) in (Sequence, list):
        return {"nargs": "+"} | _values(Parameter(*get_args(parameter.type)))
    return {"type": path if parameter.type is Path else parameter.type}


def path(text: str) -> Path:
    """Convert a path. An empty one, as an unset variable leaves it, would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("is empty")
    return Path(text)
