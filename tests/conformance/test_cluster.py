"""The contract on a Cluster of three nodes."""

from collections.abc import Iterator

import pytest

from tests.conformance.brokers import Broker, cluster
from tests.conformance.redis_contract import RedisContract

pytestmark = pytest.mark.chaos  # several servers to start, and slower tests


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One set of servers for the module; every test has a topic of its own."""
    with cluster() as server:
        yield server


class TestCluster(RedisContract):
    """A cluster of three nodes keeps every promise."""
