"""What the docs say must be there."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from nnunetv2_guidino.cli import SUBCOMMANDS
from nnunetv2_guidino.config import GuideConfig

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


def test_ci_runs_the_readme_s_test_command():
    commands = re.findall(r"python3 -m venv .*pytest.*", (REPOSITORY / "README.md").read_text())
    assert len(commands) == 1
    assert commands[0] in (REPOSITORY / ".ci" / "run").read_text().splitlines()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_setting_is_in_the_reference():
    text = (REPOSITORY / "docs" / "reference" / "guide_settings.md").read_text()
    missing = [field.name for field in fields(GuideConfig) if f"`{field.name}`" not in text]
    assert missing == []


@pytest.mark.slow
def test_table_of_what_is_supported_is_up_to_date(planned_trainer):
    import support_table

    assert support_table.PAGE.read_text() == support_table.page()


def test_every_subcommand_is_in_the_reference():
    text = (REPOSITORY / "docs" / "reference" / "commands.md").read_text()
    assert [name for name in SUBCOMMANDS if f"`guidino {name}" not in text] == []
