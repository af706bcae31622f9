"""The contract on the machine's own Redis."""

from collections.abc import Iterator

import pytest

from tests.conformance.brokers import Broker, redis_on_path
from tests.conformance.redis_contract import RedisContract


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """One server for the module; every test has a topic of its own."""
    with redis_on_path() as server:
        yield server


class TestRedisOnPath(RedisContract):
    """The machine's own redis keeps every promise."""
