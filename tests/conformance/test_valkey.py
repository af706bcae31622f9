"""The contract on the embedded Valkey."""

from collections.abc import Iterator

import pytest

from tests.conformance.brokers import Broker, valkey
from tests.conformance.redis_contract import RedisContract


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One server for the module; every test has a topic of its own."""
    with valkey() as server:
        yield server


class TestValkey(RedisContract):
    """Valkey keeps every promise."""
