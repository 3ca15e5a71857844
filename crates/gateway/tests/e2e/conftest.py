import pytest
from support.cluster import running_cluster
from support.stories import pytest_runtest_makereport, pytest_sessionstart  # noqa: F401  (pytest looks for them here)


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
