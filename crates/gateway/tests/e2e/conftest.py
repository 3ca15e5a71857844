import shlex
import sys

import pytest
from support.cluster import running_cluster
from support.node import binary
from support.stories import pytest_runtest_makereport, pytest_sessionstart  # noqa: F401  (pytest looks for them here)


def pytest_terminal_summary(terminalreporter, config):
    """How to run each story again that did not end well, by itself."""
    reports = [report for outcome in ("failed", "error") for report in terminalreporter.getreports(outcome)]
    for story in sorted({report.nodeid for report in reports}):
        again = shlex.join([sys.executable, "-m", "pytest", f"{config.rootpath}/{story}"])
        terminalreporter.write_line(f"again: CAUSEWAY_BIN={shlex.quote(binary())} {again}")


@pytest.fixture(scope="module")
def cluster(request, tmp_path_factory):
    """Shared by the stories of one file, which leave it as they found it; SETTINGS of that file are the nodes'."""
    settings = getattr(request.module, "SETTINGS", None)
    with running_cluster(tmp_path_factory.mktemp("cluster"), settings) as cluster:
        yield cluster


@pytest.fixture
def doomed_cluster(tmp_path):
    """For a story that breaks it."""
    with running_cluster(tmp_path) as cluster:
        yield cluster
