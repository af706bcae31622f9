"""Where a key's events go."""

import subprocess
import sys

import pytest
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as kafka_murmur2
from hypothesis import given
from hypothesis import strategies as st

from streams.redis.keys import foreign_stream_keys, murmur2, partition_for, stream_key, stream_keys


@given(st.binary())
def test_the_hash_is_kafkas(key: bytes) -> None:
    """Every key hashes as Kafka's default partitioner hashes it."""
    assert murmur2(key) == kafka_murmur2(key) & 0xFFFFFFFF


@given(st.binary(), st.integers(min_value=1, max_value=64))
def test_a_key_keeps_its_partition_on_kafka(key: bytes, partitions: int) -> None:
    """Moving a topic to Kafka leaves every key in its partition, so the order of a key is kept."""
    everywhere = list(range(partitions))
    assert partition_for(key, partitions) == DefaultPartitioner()(key, everywhere, everywhere)


def test_a_topic_with_one_partition_is_the_key_of_its_name() -> None:
    """`XADD job-requests …` by hand reaches the topic `job-requests`."""
    assert stream_key("job-requests") == "job-requests"
    assert stream_key("job-requests", prefix="staging:") == "staging:job-requests"


def test_partitions_have_hash_tags_of_their_own() -> None:
    """The braces hold the partition, so that partitions spread over a Cluster's slots."""
    assert stream_keys("orders", 3) == ["{orders.0}", "{orders.1}", "{orders.2}"]


@given(st.integers(min_value=1, max_value=9), st.integers(min_value=1, max_value=9))
def test_a_writer_who_counts_more_partitions_or_one_is_betrayed(read: int, written: int) -> None:
    """Unless everything is read, one of its streams is among those that readers look for."""
    unread = set(stream_keys("orders", written)) - set(stream_keys("orders", read))
    assert bool(unread) == bool(unread & set(foreign_stream_keys("orders", read)))


def test_a_partition_that_does_not_exist_is_an_error() -> None:
    """Asking for a partition beyond the last one names the topic and how many it has."""
    with pytest.raises(ValueError, match=r"partition 3 of topic 'orders': it has 3 partition"):
        stream_key("orders", 3, 3)


@pytest.mark.parametrize("module", ["entry", "keys", "dead_letter", "errors"])
def test_the_pure_modules_need_neither_faust_nor_redis(module: str) -> None:
    """A client that only writes entries imports these, and installs neither Faust nor redis-py for it."""
    code = (
        f"import sys, streams.redis.{module};"
        "print([name for name in ('faust', 'mode', 'redis', 'aiokafka') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
