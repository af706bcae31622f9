"""The contract on the oldest supported server."""

from collections.abc import Iterator

import pytest

from tests.conformance.brokers import Broker, redis_6_2
from tests.conformance.redis_contract import RedisContract


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One server for the module; every test has a topic of its own."""
    with redis_6_2() as server:
        yield server


class TestRedis62(RedisContract):
    """The oldest supported server keeps every promise."""
