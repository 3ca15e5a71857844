"""docs/reliability.md has a row for every threat and every fault, and names no test that is not there."""

import re
import runpy

import pytest
from support.documents import broken_links
from support.facts import ROOT

PAGE = ROOT / "docs/reliability.md"
# In the order of their numbers.
NUMBERED = {"Threats": [f"T{number}" for number in range(1, 35)], "Faults": [f"F{number}" for number in range(1, 31)]}


def names_of_tests():
    """The names of all tests, in Python and in Rust."""
    files = [*ROOT.glob("crates/**/*.py"), *ROOT.glob("crates/**/*.rs")]
    sources = [file.read_text() for file in files if "node_modules" not in file.parts]
    return {name for source in sources for name in re.findall(r"^ *(?:async )?(?:def|fn) (\w+)\(", source, re.M)}


def rows(section):
    """The cells of each row of a section that begins with a number."""
    text = PAGE.read_text().split(f"\n## {section}\n")[1].split("\n## ")[0]
    lines = (line.strip("|").split("|") for line in text.splitlines() if re.match(r"\| [TF]\d", line))
    return [[cell.strip() for cell in cells] for cells in lines]


@pytest.mark.parametrize("section", NUMBERED)
def test_each_has_a_row_with_everything(section):
    numbers = [number for cells in rows(section) for number in re.findall(r"\b[TF]\d+\b", cells[0])]
    assert numbers == NUMBERED[section]
    for cells in rows(section):
        assert len(cells) == 5 and all(cells), cells[0]


def test_each_threat_has_a_test_named_after_it():
    for cells in rows("Threats"):
        number = cells[0].split()[0].lower()
        assert re.search(rf"`(?:test_)?{number}_\w+`", cells[3]), cells[0]


def test_every_test_that_is_named_is_there():
    text = PAGE.read_text()
    named = set(re.findall(r"`((?:test_|t\d+_|f\d+_|of_|one_)\w+)`", text))
    assert len(named) > 50
    assert named - names_of_tests() == set()
    scripts = {script for script in re.findall(r"`(scripts/\w+)", text)}
    assert all((ROOT / script).is_file() for script in scripts), scripts


def test_what_is_taken_away_is_there():
    """And so is the test that must notice: scripts/mutations runs for too long to be run here."""
    defences = runpy.run_path(str(ROOT / "scripts/mutations"))["DEFENCES"]
    for name, (file, line, _, test) in defences.items():
        assert (ROOT / file).read_text().count(line) == 1, name
        assert test in names_of_tests(), name


def test_its_links_lead_somewhere():
    assert [*broken_links(PAGE), *broken_links(ROOT / "docs/security.md"), *broken_links(ROOT / "SECURITY.md")] == []
