"""docs/reliability.md has a row for every fault, and names the stories that there are, and no others."""

import ast
import pathlib
import re

import pytest

pytestmark = pytest.mark.short

CRATES = pathlib.Path(__file__).parents[3]
PAGE = CRATES.parent / "docs" / "reliability.md"
FAULTS = [f"F{number}" for number in range(1, 31)]


def rows():
    section = re.search(r"^## Faults$(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S)[1]
    return {row[1]: row[0] for row in re.finditer(r"^\| (F\d+) .*$", section, re.M)}


def stories(*folders):
    for folder in folders:
        for file in (CRATES / "gateway" / "tests" / folder).glob("test_*.py"):
            tree = ast.parse(file.read_text())
            yield from (node.name for node in tree.body if getattr(node, "name", "").startswith("test_"))


def test_every_fault_has_its_row():
    assert list(rows()) == FAULTS


def test_every_story_that_is_named_is_there():
    named = set(re.findall(r"`(test_\w+)`", "".join(rows().values())))
    assert named <= set(stories("faults", "e2e"))


def test_every_story_of_a_fault_is_named_in_its_row():
    for story in stories("faults"):
        for fault in re.findall(r"(?:^test|(?<=\d))_(f\d+)(?=_)", story):
            row = rows()[fault.upper()]
            assert f"`{story}`" in row or "| the same |" in row, f"{story} is not in the row of {fault}"
