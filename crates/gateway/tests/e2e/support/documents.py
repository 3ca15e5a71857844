"""The documentation for operators, as text."""

import pathlib
import re

OPERATIONS = pathlib.Path(__file__).parents[5] / "docs" / "operations.md"


def headings(document):
    return re.findall(r"^#+ (.+)$", document.read_text(), re.M)


def anchors(document):
    """As they are made of headings: lower case, no punctuation, dashes for blanks."""
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings(document)}


def broken_links(document):
    """Links to what is not there; those to other places are not followed."""
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text()):
        file, _, anchor = target.partition("#")
        path = document.parent / file if file else document
        if "://" not in target and not (path.exists() and (not anchor or anchor in anchors(path))):
            yield target


def series_table(document):
    """The table of series: name → the labels that it is said to have."""
    lines = document.read_text().splitlines()
    rows = [line.split("|")[1] for line in lines if line.startswith(("| `causeway_", "| `process_"))]
    cells = [cell for row in rows for cell in re.findall(r"`((?:causeway|process)_\w+)(?:\{([\w,]+)\})?`", row)]
    names = [name for name, _ in cells]
    assert len(names) == len(set(names)), "a series is in the table twice"
    return {name: set(labels.split(",")) - {""} for name, labels in cells}
