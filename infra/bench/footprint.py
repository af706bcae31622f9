"""This module measures what jobs leave in storage, and which connections processes hold."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self
from urllib.parse import urlsplit

import aiosql
import psutil
from redis import Redis

from infra.local.stack import Stack
from infra.postgres import Connection

_queries = aiosql.from_path(Path(__file__).with_name("footprint.sql"), "asyncpg")

_POSTGRES: Final = "Postgres"
_BROKER: Final = "the broker"


@dataclass(frozen=True, slots=True)
class Stored:
    """The bytes of tables, with indexes and long values, and of an embedded broker."""

    tables: Mapping[str, int]
    broker: int

    @classmethod
    async def now(cls, stack: Stack, connection: Connection) -> Self:
        """Measure."""
        tables = {row["name"]: row["bytes"] async for row in _queries.sizes(connection)}
        return cls(tables, _broker_bytes(stack))

    def less(self, before: "Stored", jobs: int) -> dict[str, int]:
        """Return how many bytes each job has added, by table.

        What adds less than one is left out.
        """
        added = {name: (size - before.tables.get(name, 0)) / jobs for name, size in self.tables.items()}
        added["(broker)"] = (self.broker - before.broker) / jobs
        return {name: round(size) for name, size in sorted(added.items(), key=lambda one: -one[1]) if size >= 1}


def connections(stack: Stack) -> dict[str, dict[str, int]]:
    """Return how many connections each process holds to Postgres and to the broker."""
    ports = {
        urlsplit(stack.settings.database_url).port: _POSTGRES,
        urlsplit(stack.broker_address).port: _BROKER,
    }
    held = {}
    for name, pid in stack.pids().items():
        found = Counter(
            ports[one.raddr.port]
            for one in psutil.Process(pid).net_connections("tcp")
            if one.status == psutil.CONN_ESTABLISHED and one.raddr and one.raddr.port in ports
        )
        if found:
            held[name] = dict(found)
    return held


def _broker_bytes(stack: Stack) -> int:
    if stack.valkey is None:
        return 0
    with Redis.from_url(stack.broker_address) as client:
        return int(client.info("memory")["used_memory"])
