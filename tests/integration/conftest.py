"""What integration tests share."""

from collections.abc import Iterator

import pytest

from tests.apiserver.cluster import Cluster, running


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real API server, started once."""
    with running() as found:
        yield found
