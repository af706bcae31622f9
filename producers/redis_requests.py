"""Requests are written into a Redis stream. It needs `redis` alone."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, TypeAlias, cast

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import BusyLoadingError, ReadOnlyError

from streams.jobs.events import JobCancelRequested, JobRequested
from streams.jobs.topics import JOB_REQUESTS
from streams.redis.address import BrokerAddress
from streams.redis.entry import encode_entry
from streams.redis.keys import partition_for, stream_key
from streams.redis.server import Server, close

Event: TypeAlias = JobRequested | JobCancelRequested

_RETRIES: Final = 3
_CONNECTIONS: Final = 50  # who finds all of them in use waits for one; nothing is wrong with the broker then


@dataclass(frozen=True, slots=True)
class RedisRequests:
    """The stream of requests, for writing. Made by `connect`."""

    redis: Redis
    prefix: str
    partitions: int
    free_connections: asyncio.Semaphore

    @classmethod
    @asynccontextmanager
    async def connect(cls, broker_url: str, partitions: int) -> "AsyncIterator[RedisRequests]":
        """Give the stream until the block ends. The first connection opens with the first events.

        Raises:
            ValueError: the URL is malformed, or of a broker that the client does not speak to.
        """
        address = BrokerAddress.parse(broker_url)
        settings = address.settings
        if settings.cluster:
            raise ValueError("broker URL: this client does not support cluster=true; send requests over HTTP instead")
        client = Server(address).open(
            block=timedelta(0),
            # Repeating an XADD may write an entry twice; the pipeline counts it once.
            retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=1.0), _RETRIES),
            retry_on=[BusyLoadingError, ReadOnlyError],
        )
        redis = cast("Redis", client)  # a Cluster is refused above
        parts = settings.partitions.get(JOB_REQUESTS, partitions)
        try:
            yield cls(redis, settings.prefix, parts, asyncio.Semaphore(_CONNECTIONS))
        finally:
            await close(client)

    async def write(self, events: Sequence[Event]) -> None:
        """Write events in one round trip."""
        async with self.free_connections:
            pipeline = self.redis.pipeline(transaction=False)
            for event in events:
                partition = partition_for(event.key, self.partitions)
                stream = stream_key(JOB_REQUESTS, partition, self.partitions, self.prefix)
                fields = encode_entry(event.key, event.encode())
                pipeline.execute_command("XADD", stream, "*", *(part for pair in fields.items() for part in pair))
            await pipeline.execute()
