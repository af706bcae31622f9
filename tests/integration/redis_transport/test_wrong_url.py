"""Broker URLs that reach something else than they should: one sentence says which part to mend, whoever reads it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qsl

import pytest
import trustme

from infra.errors import DependencyDown
from infra.local.servers import start_valkey
from infra.settings import Settings
from producers.broker import Broker
from producers.client import JobRequests, SubmitFailed
from tests.chaos.redis_transport.proxy import proxied
from tests.commands import commands
from tests.conformance.brokers import RedisBroker
from tests.conformance.harness import Bench, collect, transport_of
from tests.waiting import wait_for

Place: TypeAlias = Callable[[int, ssl.SSLContext], AbstractAsyncContextManager[int]]


@asynccontextmanager
async def plain(port: int, _context: ssl.SSLContext) -> AsyncIterator[int]:
    """Valkey itself."""
    yield port


@asynccontextmanager
async def tls(port: int, context: ssl.SSLContext) -> AsyncIterator[int]:
    """Valkey behind TLS."""
    async with proxied(port, context) as proxy:
        yield proxy.port


@asynccontextmanager
async def http(_port: int, _context: ssl.SSLContext) -> AsyncIterator[int]:
    """A web server."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


# Which place the URL reaches, the URL, and the fix that is named.
WRONG: dict[str, tuple[Place, str, str]] = {
    "redis:// to TLS": (tls, "redis://127.0.0.1:{port}/0?timeout=1s", "write rediss://"),
    "redis:// with a password to TLS": (tls, "redis://:x@127.0.0.1:{port}/0?timeout=1s", "write rediss://"),
    "rediss:// to a port without TLS": (plain, "rediss://127.0.0.1:{port}/0?timeout=1s", "write redis://"),
    "rediss:// to a web server": (http, "rediss://127.0.0.1:{port}/0?timeout=1s", "write redis://"),
    "redis:// to a web server": (http, "redis://127.0.0.1:{port}/0", "check host and port"),
    "a certificate of nobody": (tls, "rediss://127.0.0.1:{port}/0", "ssl_ca_certs"),
    "no such database": (plain, "redis://127.0.0.1:{port}/99", "write /0 behind the port"),
    "a password that is none": (plain, "redis://:x@127.0.0.1:{port}/0", "remove what stands before the @"),
    "a user that is none": (plain, "redis://me:x@127.0.0.1:{port}/0", "check user and password"),
    "no Sentinel": (plain, "redis://127.0.0.1:{port}/0?sentinel=main", "remove sentinel="),
    "no such host": (plain, "redis://redis.invalid:6379/0", "check its name"),
}


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    """What a server needs for TLS."""
    made = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(made)
    return made


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    """A Valkey of its own, since some of these URLs name no prefix."""
    with start_valkey() as valkey:
        yield valkey.port


async def probed(url: str) -> str:
    """What a process that publishes hears: the API, the commands, `teamfit up`."""
    broker = Broker(Settings(_env_file=None, broker_url=url), name="test")
    try:
        with pytest.raises(DependencyDown) as caught:
            await broker.probe()
    finally:
        await broker.close()
    return str(caught.value)


async def submitted(url: str) -> str:
    """What an upstream service hears from the client."""
    async with JobRequests.connect(url) as requests:
        with pytest.raises(SubmitFailed) as caught:
            await requests.submit(organization_id="acme", team_id="t", requirements="walk")
    return str(caught.value)


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("read", [probed, submitted])
async def test_the_part_to_mend_is_named(
    server: int, context: ssl.SSLContext, name: str, read: Callable[[str], Awaitable[str]]
) -> None:
    """By whoever publishes and by the client: in one line, which repeats no password."""
    place, url, fix = WRONG[name]
    async with place(server, context) as port:
        said = await read(url.format(port=port))
    assert fix in said
    assert said.count(fix) == 1
    assert "\n" not in said
    assert ":x@" not in said
    assert read is not probed or said.endswith("; check BROKER_URL")


@pytest.mark.parametrize("name", ["redis:// to TLS", "rediss:// to a port without TLS", "no such database"])
async def test_a_worker_says_it_where_one_looks(server: int, context: ssl.SSLContext, bench: Bench, name: str) -> None:
    """Its readiness has the part to mend, and it starts as soon as the place is right."""
    place, url, fix = WRONG[name]
    async with place(server, context) as port:
        address, _, query = url.format(port=port).partition("?")
        bench.broker = RedisBroker(name, address, fixed=tuple(parse_qsl(query)))
        worker = bench.app()
        collect(bench, worker)
        starting = asyncio.create_task(worker.start())
        try:
            await wait_for(lambda: any(fix in one for one in transport_of(worker).health()), what=fix)
        finally:
            async with asyncio.timeout(10):
                await worker.stop()
            starting.cancel()


@pytest.mark.parametrize("command", [("lag",), ("llm", "hold", "show"), ("verify",)], ids=" ".join)
async def test_commands_that_ask_no_broker_do_not_look(
    database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Whoever needs the broker names it; the others work without."""
    monkeypatch.chdir(tmp_path)
    said = await commands(monkeypatch, DATABASE_URL=database_url, BROKER_URL="redis://")(*command)
    if command == ("lag",):
        assert (said.exit_code, said.stderr.count("\n")) == (2, 1)
        assert said.stderr.startswith("teamfit: BROKER_URL cannot be used: it has no host; write redis://HOST:6379")
    else:
        assert said.exit_code == 0, said.output
