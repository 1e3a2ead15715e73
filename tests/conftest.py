"""What all tests share."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.apiserver.cluster import Cluster, running

# A slow machine is no wrong result.
settings.register_profile("pegel", deadline=None)
settings.load_profile("pegel")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real API server, started once."""
    with running() as found:
        yield found
