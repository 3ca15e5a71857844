"""What every suite does around its stories (pytest's hooks, for the conftest.py of each)."""

import pathlib

import pytest

from .node import binary
from .process import Process


def pytest_sessionstart():
    """Without the binary every story would fail in its own way; say it once."""
    try:
        assert pathlib.Path(binary()).is_file()
    except (KeyError, AssertionError):
        raise pytest.UsageError("CAUSEWAY_BIN must hold the path of the built binary") from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed story shows what every process it could have met has logged; fixtures find why in `item.failure`."""
    report = yield
    if call.when == "call":
        item.failure = call.excinfo and call.excinfo.exconly()
    if report.failed:
        for process in Process.running:
            report.sections.append((f"log of {process.name}", process.log()[-10_000:]))
    return report
