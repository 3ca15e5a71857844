import os
import pathlib
import sys

import pytest

# The parts of the end-to-end suite are the parts here.
sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "e2e"))

from experiment import SEED, Experiment
from support.cluster import running_cluster
from support.stories import pytest_runtest_makereport, pytest_sessionstart  # noqa: F401  (pytest looks for them here)


def pytest_report_header():
    return f"seed {SEED}: replay with scripts/faults --seed {SEED}"


@pytest.fixture
def experiment(request, tmp_path):
    reports = os.environ.get("CAUSEWAY_FAULT_REPORTS", tmp_path / "reports")
    experiment = Experiment(request.node.name, reports)
    yield experiment
    experiment.report(request.node.failure)


@pytest.fixture
def cluster(tmp_path):
    with running_cluster(tmp_path) as cluster:
        yield cluster


@pytest.fixture
def linked_cluster(tmp_path):
    """Each node's way to Redis leads through a fault proxy of its own."""
    with running_cluster(tmp_path, linked=True) as cluster:
        yield cluster
