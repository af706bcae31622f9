"""The contract on a master under a Sentinel."""

from collections.abc import Iterator

import pytest

from tests.conformance.brokers import Broker, sentinel
from tests.conformance.contract import TransportContract

pytestmark = pytest.mark.chaos  # several servers to start, and slower tests


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One set of servers for the module; every test has a topic of its own."""
    with sentinel() as server:
        yield server


class TestSentinel(TransportContract):
    """A master under a sentinel keeps every promise."""
