"""What the docs say must be there."""

import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from nnunetv2_guidino import lists
from nnunetv2_guidino.cli import SUBCOMMANDS, find
from nnunetv2_guidino.config import DEFAULT_ENCODER, GUIDES, READOUTS, SIMILARITIES, GuideConfig, LoRA
from nnunetv2_guidino.training.naming import GRAMMAR

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def test_ci_runs_the_readme_s_test_command():
    commands = re.findall(r"python3 -m venv .*pytest.*", (REPOSITORY / "README.md").read_text())
    assert len(commands) == 1
    assert commands[0] in (REPOSITORY / ".ci" / "run").read_text().splitlines()


def test_no_command_of_the_readme_clears_the_environment_of_another():
    environments = re.findall(r"python3 -m venv (?:--clear )?(\S+)", (REPOSITORY / "README.md").read_text())
    assert len(environments) == 2
    assert len({*environments}) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_setting_is_in_the_reference():
    text = (REPOSITORY / "docs" / "reference" / "guide_settings.md").read_text()
    missing = [key for key in GuideConfig().to_plans() if f"`{key}`" not in text]
    assert missing == []


def test_defaults_and_choices_of_settings_are_the_code_s():
    text = (REPOSITORY / "docs" / "reference" / "guide_settings.md").read_text()
    rows = {
        key: (default, meaning) for key, default, meaning in re.findall(r"^\| `(.+?)` \| (.+?) \| (.+) \|$", text, re.M)
    }
    defaults = GuideConfig(encoder=DEFAULT_ENCODER).to_plans() | {f"lora.{k}": v for k, v in asdict(LoRA()).items()}
    for key, (written, _) in rows.items():
        if written != "filled in":
            numbers = re.findall(r"[\d.]+(?:e-?\d+)?", written)
            default = defaults[key]
            assert str(default) in written or json.dumps(default) in written or float(numbers[0]) == default, key
    choices = {"gate_at": lists.GATE_POSITIONS, "gate": lists.GATES, "similarity": SIMILARITIES, "readout": READOUTS}
    for key, names in {**choices, "guides": GUIDES}.items():
        assert [name for name in names if f'`"{name}"`' not in rows[key][1]] == []


def test_grammar_of_the_trainers_is_the_code_s():
    text = (REPOSITORY / "docs" / "reference" / "trainers.md").read_text()
    for line in re.findall(r"nnUNetTrainerGuiDINO\S*\[[^\s,]*", GRAMMAR):
        assert f"\n{line}\n" in text


@pytest.mark.slow
def test_table_of_what_is_supported_is_up_to_date(planned_trainer):
    import support_table

    assert support_table.PAGE.read_text() == support_table.page()


def test_every_subcommand_is_in_the_reference():
    text = (REPOSITORY / "docs" / "reference" / "commands.md").read_text()
    assert [name for name in SUBCOMMANDS if f"`guidino {name}" not in text] == []


FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"(?:^    .*\n)+", re.MULTILINE)


def typed_commands(page: Path, name: str) -> Iterator[list[str]]:
    """The commands whose names begin so in a page's blocks of code, in words."""
    text = re.sub(r"\\\n\s*", " ", page.read_text())
    for line in "\n".join([*FENCED.findall(text), *INDENTED.findall(FENCED.sub("", text))]).splitlines():
        for command in re.split(r"&&|\|\||[|;]", re.sub(r"(^|\s)#.*", "", line)):
            if re.match(rf"\s*(?:\w+=\S+ )*{name}", command):
                words = shlex.split(command)
                yield words[next(i for i, word in enumerate(words) if "=" not in word) :]  # behind variables


def mentioned_commands(page: Path) -> Iterator[list[str]]:
    """The commands of ours in a page's sentences, which may be shortened."""
    for code in re.findall(r"`(guidino [^`]+)`", FENCED.sub("", page.read_text())):
        yield code.split()


def options_of(name: str) -> set[str]:
    """Those of the commands below it too, and their names."""
    module = importlib.import_module(f"nnunetv2_guidino.commands.{name}")
    actions = getattr(module, "actions", dict)()
    parsers = [find([name, *action])[0] for action in ([[each] for each in actions] or [[]])]
    return {*actions}.union(*(option.option_strings for parser in parsers for option in parser._actions))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_work_when_typed(page):
    for _, *words in typed_commands(page, "guidino "):
        if words[0] == "--version":
            continue
        try:
            parser, _, rest = find(words)
            parser.parse_args(rest)
        except SystemExit as error:
            pytest.fail(f"{page.name}: guidino {shlex.join(words)}: {error.__context__}")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mentioned_commands_have_the_options(page):
    for _, name, *words in mentioned_commands(page):
        if name in ("X", "SUBCOMMAND"):
            continue
        assert name in SUBCOMMANDS, page.name
        known = options_of(name)
        assert {word for word in words if re.match(r"--?[a-z]", word)} <= known, f"{page.name}: guidino {name} {words}"


@pytest.mark.slow
def test_commands_of_nnunet_have_the_options_when_typed():
    asked: dict[str, dict[str, str]] = {}
    for page in PAGES:
        for name, *words in typed_commands(page, "nnUNetv2_"):
            asked.setdefault(name, {}).update({word: page.name for word in words if re.match(r"--?[a-z]", word)})
    for name, options in asked.items():
        script = Path(sys.executable).parent / name
        done = subprocess.run([script, "-h"], capture_output=True, text=True, check=True)
        known = set(re.findall(r"(?<![\w-])--?\w[\w-]*", done.stdout))
        assert {option: page for option, page in options.items() if option not in known} == {}, name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_imported_is_there(page):
    for line in re.findall(r"^ *(from nnunetv2_guidino[\w.]* import .+)$", page.read_text(), re.MULTILINE):
        exec(line)
