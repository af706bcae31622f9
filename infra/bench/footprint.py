"""This module measures storage, connections, CPU seconds and memory.

They are what jobs leave in storage, which connections processes hold, and what processes take of the machine, a
server's own children included.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
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


_MEGABYTE = 1_000_000


class Usage:
    """Samples the use of named processes.

    Call `sample` now and then: memory has peaks, and CPU seconds are lost with a process.
    """

    def __init__(self, pids: Mapping[str, int]) -> None:
        """Take the first sample."""
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._peak_mb: dict[str, float] = dict.fromkeys(pids, 0.0)
        self._cpu_s: dict[tuple[str, int], float] = {}
        self.sample()
        self._cpu_before = self._cpu_by_name()

    def sample(self) -> None:
        """Look at every process."""
        for name, process in self._processes.items():
            family = [process, *process.children(recursive=True)]
            memory = 0.0
            for member in family:
                with suppress(psutil.NoSuchProcess):
                    times = member.cpu_times()
                    self._cpu_s[name, member.pid] = times.user + times.system
                    # Members of a family share memory, so only the sum of their shares is what they take.
                    memory += member.memory_info().rss if len(family) == 1 else member.memory_full_info().pss
            self._peak_mb[name] = max(self._peak_mb[name], memory / _MEGABYTE)

    def cpu_s(self) -> dict[str, float]:
        """Return the CPU seconds that each name has used since the first sample."""
        return {name: seconds - self._cpu_before[name] for name, seconds in self._cpu_by_name().items()}

    def peak_mb(self) -> dict[str, float]:
        """Return the most memory that each name was seen to take, in megabytes."""
        return self._peak_mb

    def _cpu_by_name(self) -> dict[str, float]:
        return {
            name: sum(seconds for (owner, _), seconds in self._cpu_s.items() if owner == name)
            for name in self._processes
        }
