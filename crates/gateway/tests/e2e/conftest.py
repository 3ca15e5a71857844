import pathlib

import pytest
from support.cluster import running_cluster
from support.node import binary
from support.process import Process


def pytest_sessionstart():
    """Without the binary every story would fail in its own way; say it once."""
    try:
        assert pathlib.Path(binary()).is_file()
    except (KeyError, AssertionError):
        raise pytest.UsageError("CAUSEWAY_BIN must hold the path of the built binary") from None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failed story shows what every process it could have met has logged."""
    report = yield
    if report.failed:
        for process in Process.running:
            report.sections.append((f"log of {process.name}", process.log()[-10_000:]))
    return report


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
