"""The examples of docs/reference/python_api.md import what is there and call it as its signature says.

tests/test_docs_typed.py runs them.
"""

import ast
import dataclasses
import importlib
import inspect
import re
import typing
from pathlib import Path

import pytest

from nnunetv2_guidino.cli import SUBCOMMANDS

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reference" / "python_api.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
# What each subcommand does, as a function.
FUNCTIONS = {
    "benchmark": "benchmark", "cost": "measure",
    "convert": "convert", "demo": "demo", "compare": "compare", "doctor": "examine", "encoder": "probe", "plan": "plan",
    "evaluate": "evaluate", "guide": "guide",
}  # fmt: skip


def imported(tree: ast.Module) -> dict[str, object]:
    """Names that an example imports, with what they are."""
    return {
        alias.name: getattr(importlib.import_module(str(node.module)), alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def ours(example: str) -> dict[str, object]:
    found = imported(ast.parse(example))
    return {
        name: thing for name, thing in found.items() if str(getattr(thing, "__module__", "")).startswith("nnunetv2")
    }


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: text.splitlines()[-1])
def test_calls_fit_their_signatures(example):
    tree = ast.parse(example)
    names = imported(tree)
    results: dict[str, object] = {}
    calls = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ours(example):
            function = names[node.func.id]
            positional = [None] * len(node.args)
            inspect.signature(function).bind(*positional, **{str(keyword.arg): None for keyword in node.keywords})
            calls += 1
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name):
            function, target = names.get(node.value.func.id), node.targets[0]
            if function is not None and isinstance(target, ast.Name):
                results[target.id] = typing.get_type_hints(function)["return"]
            elif function is not None:  # several targets
                assert typing.get_origin(typing.get_type_hints(function)["return"]) is tuple
    assert calls
    for node in ast.walk(tree):  # what is read off a result is a field of it
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in results:
            kind = results[node.value.id]
            fields = {field.name for field in dataclasses.fields(kind)} if dataclasses.is_dataclass(kind) else set()
            assert node.attr in fields | set(dir(kind)), f"{node.value.id}.{node.attr}"


@pytest.mark.parametrize("name", sorted({name for example in EXAMPLES for name in ours(example)}))
def test_functions_are_typed_and_documented(name):
    (function,) = {ours(example)[name] for example in EXAMPLES if name in ours(example)}
    assert (inspect.getdoc(function) or "").split("\n")[0].endswith((".", "?"))
    signature = inspect.signature(function)
    assert all(parameter.annotation is not parameter.empty for parameter in signature.parameters.values())
    assert signature.return_annotation is not signature.empty


def test_every_subcommand_has_its_function():
    assert set(FUNCTIONS) == set(SUBCOMMANDS)
    shown = {name for example in EXAMPLES for name in ours(example)}
    assert set(FUNCTIONS.values()) <= shown
