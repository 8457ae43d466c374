import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cluster import Cluster, running_cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Return a cluster without nodes; what it starts ends with the test."""
    yield from running_cluster(tmp_path)


@pytest.fixture
def logging_put_back() -> Iterator[None]:
    """Undo what a framework does to the root logger."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
