"""The broker URL's query."""

from datetime import timedelta

import pytest

from streams.redis.address import BrokerAddress
from streams.redis.errors import InvalidSettings
from streams.redis.settings import RedisSettings


def read(query: str) -> RedisSettings:
    """The settings of a URL with this query."""
    return BrokerAddress.parse(f"redis://127.0.0.1:6379/0?{query}").settings


def test_defaults_suit_most_agents() -> None:
    """Without a query there is a lease of 15 s and five deliveries."""
    settings = BrokerAddress.parse("redis://127.0.0.1").settings
    assert (settings.lease, settings.max_deliveries) == (timedelta(seconds=15), 5)
    assert settings.dead_letter_topic == "dead-letters"


def test_values_have_units() -> None:
    """Times and sizes are read with their units."""
    settings = read("lease=250ms&drain=0s&retention=2h&send_buffer_bytes=16m&max_deliveries=3&cluster=true")
    assert (settings.lease, settings.drain) == (timedelta(milliseconds=250), timedelta(0))
    assert (settings.retention, settings.send_buffer_bytes) == (timedelta(hours=2), 16 * 1024**2)
    assert (settings.max_deliveries, settings.cluster) == (3, True)


def test_settings_by_topic_are_repeated() -> None:
    """`groups` and `partitions` may be given for each topic."""
    settings = read("groups=a:x:y&groups=b:z&partitions=a:4")
    assert settings.groups == {"a": ("x", "y"), "b": ("z",)}
    assert settings.partitions == {"a": 4}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("leese=15s", "unknown parameter 'leese'"),
        ("lease=soon", "lease='soon' must be a time"),
        ("lease=0", "lease='0' must be a time above zero"),
        ("max_deliveries=1", "max_deliveries='1' must be a whole number above one"),
        ("prefetch=0", "prefetch='0' must be a whole number above zero"),
        ("cluster=perhaps", "cluster='perhaps' must be true or false"),
        ("send_buffer_bytes=much", "send_buffer_bytes='much' must be a size"),
        ("groups=topic", "groups='topic' must be <topic>:<group>"),
        ("partitions=4", "partitions='4' must be <topic>:<number>"),
    ],
)
def test_a_bad_parameter_is_named(query: str, message: str) -> None:
    """A parameter that is unknown or malformed fails at start, with its name and what it should be."""
    with pytest.raises(InvalidSettings, match=message):
        read(query)
