"""The contract on Kafka's protocol, served by the embedded Tansu."""

from collections.abc import Iterator

import pytest

from tests.conformance.brokers import Broker, tansu
from tests.conformance.contract import TransportContract


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One server for the module; every test has a topic of its own."""
    with tansu() as server:
        yield server


class TestTansu(TransportContract):
    """The same agents, and Faust's own Kafka transport."""
