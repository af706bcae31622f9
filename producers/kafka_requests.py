"""Requests are written into a Kafka topic. It needs `aiokafka`, which is an extra."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any, Final

from producers.redis_requests import Event
from streams.jobs.topics import JOB_REQUESTS

KAFKA: Final = ("kafka://", "aiokafka://")
_LONGEST_S: Final = 10.0


class KafkaRequests:
    """The topic of requests, for writing. Made by `connect`."""

    def __init__(self, servers: Sequence[str]) -> None:
        self._servers = servers
        self._opening = asyncio.Lock()
        self._producer: Any = None

    @classmethod
    @asynccontextmanager
    async def connect(cls, broker_url: str) -> "AsyncIterator[KafkaRequests]":
        """Give the topic until the block ends. The connection opens with the first events.

        Raises:
            ValueError: the URL is malformed, or the extra is not installed.
        """
        servers = _servers(broker_url)
        if find_spec("aiokafka") is None:
            raise ValueError("broker URL: kafka:// needs one package more: pip install 'teamfit-client[kafka]'")
        opened = cls(servers)
        try:
            yield opened
        finally:
            if opened._producer is not None:
                await opened._producer.stop()

    async def write(self, events: Sequence[Event]) -> None:
        """Write events; return when all replicas have them."""
        async with asyncio.timeout(_LONGEST_S * 2):
            producer = await self._opened()
            sent = [await producer.send(JOB_REQUESTS, value=event.encode(), key=event.key) for event in events]
            await asyncio.gather(*sent)

    async def _opened(self) -> Any:  # noqa: ANN401 - aiokafka is without types
        from aiokafka import AIOKafkaProducer  # noqa: PLC0415 - an extra, for this broker alone

        async with self._opening:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    bootstrap_servers=self._servers, acks="all", request_timeout_ms=int(_LONGEST_S * 1_000)
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer


def _servers(broker_url: str) -> list[str]:
    """Return host and port of each broker.

    Raises:
        ValueError: there is none, or more than host and port.
    """
    rest = broker_url.strip().partition("://")[2].split("?", maxsplit=1)[0].rstrip("/")
    servers = [one.strip() for one in rest.replace(";", ",").split(",") if one.strip(" :")]
    if not servers:
        raise ValueError("broker URL: it has no host; write kafka://HOST:9092")
    if "@" in rest or "/" in rest:
        raise ValueError("broker URL: kafka:// takes hosts and ports alone; write kafka://HOST:9092")
    return [one if ":" in one else f"{one}:9092" for one in servers]
