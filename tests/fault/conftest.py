from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cluster import Cluster, running_cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Return a cluster without nodes; what it starts ends with the test."""
    yield from running_cluster(tmp_path)
