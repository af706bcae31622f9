"""This module maps a topic's partition to its stream, and a key to its partition.

Keys hash as Kafka's default partitioner does (murmur2 of the key's bytes, sign bit cleared, modulo the number of
partitions), so moving a topic to Kafka keeps every key where its neighbours are. Nothing here needs Faust or redis-py.
"""

from __future__ import annotations

__all__ = ["foreign_stream_keys", "murmur2", "partition_for", "stream_key", "stream_keys"]

_MASK = 0xFFFFFFFF


def stream_key(topic: str, partition: int = 0, partitions: int = 1, prefix: str = "") -> str:
    """The Redis key of one partition of a topic.

    A topic with one partition is the key of the same name. With more, the braces make `<topic>.<partition>` the hash
    tag, so that the partitions spread over a Cluster's slots and a companion key can be put beside its stream.
    """
    if not 0 <= partition < partitions:
        raise ValueError(f"partition {partition} of topic {topic!r}: it has {partitions} partition(s)")
    return f"{prefix}{topic}" if partitions == 1 else f"{prefix}{{{topic}.{partition}}}"


def stream_keys(topic: str, partitions: int = 1, prefix: str = "") -> list[str]:
    """The Redis keys of all partitions of a topic, in order."""
    return [stream_key(topic, partition, partitions, prefix) for partition in range(partitions)]


def foreign_stream_keys(topic: str, partitions: int, prefix: str = "") -> list[str]:
    """Return the keys of a writer with another partition count. No reader of this many partitions looks there.

    With fewer partitions than here, every entry is read; with more, some key comes to the one after the last.
    """
    first = stream_key(topic, 0, 2, prefix) if partitions == 1 else stream_key(topic, 0, 1, prefix)
    return [first, stream_key(topic, partitions, partitions + 1, prefix)]


def partition_for(key: bytes, partitions: int) -> int:
    """The partition that holds a key."""
    return 0 if partitions == 1 else (murmur2(key) & 0x7FFFFFFF) % partitions


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit murmur2 with its seed, as an unsigned number."""
    length = len(data)
    multiplier = 0x5BD1E995
    result = (0x9747B28C ^ length) & _MASK
    whole = length - length % 4
    for index in range(0, whole, 4):
        word = int.from_bytes(data[index : index + 4], "little")
        word = (word * multiplier) & _MASK
        word ^= word >> 24
        word = (word * multiplier) & _MASK
        result = ((result * multiplier) & _MASK) ^ word
    if length > whole:
        result ^= int.from_bytes(data[whole:], "little")
        result = (result * multiplier) & _MASK
    result ^= result >> 13
    result = (result * multiplier) & _MASK
    return result ^ (result >> 15)
