"""What a system under test stands on: servers of its own, proxies before them, and the offline LLM's controls."""

import asyncio
import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import asyncpg
from redis.asyncio import Redis
from redis.asyncio.sentinel import Sentinel

from infra.local.processes import remove_folder
from infra.local.servers import Postgres, Valkey, start_postgres, start_valkey
from tests.chaos.pipeline.clocks import Clocks, library
from tests.chaos.pipeline.proxy import Proxy
from tests.conformance.brokers import SentinelBroker, watched

LLM_LATENCY_S = 0.4
_DISK_MB = 640
_SOCKET_S = 5.0


class Ground(Enum):
    """What a fault needs beyond the servers."""

    PLAIN = auto()
    OWN_CLOCKS = auto()
    """A clock for each process, which can be stepped."""
    SENTINEL = auto()
    """A replica of the broker, and a Sentinel by whom alone the system finds it."""


@dataclass(frozen=True)
class Grounds:
    """The servers, and the proxies through which alone the system under test reaches them.

    Attributes:
        disk: a small file system of the database's own, or None if this machine does not let us make one.
        clocks: the wall clocks of all processes, one each, or None if they go by the machine's.
        sentinel: who watches the broker and its replica, or None if it stands alone.
    """

    valkey: Valkey
    postgres: Postgres
    broker: Proxy
    database: Proxy
    http: aiohttp.ClientSession
    disk: Path | None
    clocks: Clocks | None
    sentinel: SentinelBroker | None

    def broker_url(self, **settings: str) -> str:
        """Return the URL of the broker, through its proxy or by its Sentinel, with the transport's settings."""
        if self.sentinel is not None:
            return self.sentinel.url(**settings)
        query = urlencode(settings)
        return f"redis://127.0.0.1:{self.broker.port}/0" + (f"?{query}" if query else "")

    def broker_client(self) -> Redis:
        """Return a client such as any other service has, to be used with `async with`."""
        if self.sentinel is None:
            return Redis.from_url(self.broker_url(), socket_timeout=_SOCKET_S, socket_connect_timeout=_SOCKET_S)
        sentinel = Sentinel([("127.0.0.1", self.sentinel.sentinel_port)], socket_timeout=_SOCKET_S)
        client: Redis = sentinel.master_for("main")
        return client

    @property
    def database_url(self) -> str:
        """The database, through its proxy."""
        return self.postgres.url.replace(f":{self.postgres.port}/", f":{self.database.port}/")

    async def order_llm(self, control_url: str, **order: Any) -> None:
        """Tell the LLM what its next calls meet."""
        async with self.http.put(control_url, json=order) as answer:
            answer.raise_for_status()

    async def llm_calls(self, control_url: str) -> int:
        """Return how many calls the LLM has received."""
        async with self.http.get(control_url) as answer:
            document = await answer.json()
        return int(document["calls"]["received"])


@asynccontextmanager
async def grounds(kind: Ground) -> AsyncIterator[Grounds]:
    """Start the servers and their proxies; stop them in the end.

    Args:
        kind: own clocks are given if this machine can; they cost some time at every look at them.
    """
    async with AsyncExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="teamfit-chaos-"))
        stack.callback(remove_folder, folder)
        folder.chmod(0o755)
        clocks = Clocks(folder, preload) if kind is Ground.OWN_CLOCKS and (preload := library()) else None
        if clocks is not None:
            stack.callback(clocks.clean)
        disk = _small_disk(folder)
        if disk is not None:
            stack.callback(subprocess.run, ["umount", "--lazy", str(disk)], check=False)
        valkey = await asyncio.to_thread(start_valkey, env=_environment(clocks, "valkey"))
        stack.callback(valkey.stop)
        sentinel = await asyncio.to_thread(_watched, stack, valkey) if kind is Ground.SENTINEL else None
        data = (disk or folder) / "postgres"
        postgres = await asyncio.to_thread(start_postgres, data, durable=False, env=_environment(clocks, "postgres"))
        stack.callback(postgres.stop)
        await _keep_little_log(postgres)
        broker = await stack.enter_async_context(Proxy(valkey.port))
        database = await stack.enter_async_context(Proxy(postgres.port))
        http = await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)))
        yield Grounds(valkey, postgres, broker, database, http, disk, clocks, sentinel)


def _environment(clocks: Clocks | None, server: str) -> Mapping[str, str]:
    return {**os.environ, **(clocks.environment(server) if clocks else {})}


def _watched(stack: AsyncExitStack, master: Valkey) -> SentinelBroker:
    replica = start_valkey(options=("--replicaof", f"127.0.0.1 {master.port}"))
    stack.callback(replica.stop)
    return stack.enter_context(watched(master.port))


def _small_disk(folder: Path) -> Path | None:
    if os.geteuid() != 0:
        return None
    disk = folder / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MB}m,mode=755", "tmpfs", str(disk)]
    if subprocess.run(command, check=False, capture_output=True).returncode != 0:
        return None
    return disk


async def _keep_little_log(postgres: Postgres) -> None:
    """Have the write-ahead log fit on the small disk."""
    connection = await asyncpg.connect(postgres.url)
    try:
        await connection.execute("ALTER SYSTEM SET max_wal_size = '96MB'")
        await connection.execute("ALTER SYSTEM SET min_wal_size = '32MB'")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
