"""`DATABASE_URL` against a real PostgreSQL, with TLS and without, read alike by everything that connects."""

import asyncio
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from infra.errors import DependencyDown
from infra.local.servers import Postgres
from infra.migrations import upgrade
from infra.postgres import Database

_ROOT = Path(__file__).parents[2]


_ASKS_FOR_TLS = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # the first bytes of a client that wants it


@dataclass
class Secure:
    """An end of TLS before the run's server, as a provider's proxy is: the embedded server is built without.

    Attributes:
        url: of the database through it.
        authority: the file of the authority that signed its certificate.
        stranger: the file of another authority.
        encrypted: by connection, whether the client asked for TLS.
    """

    server: Postgres
    port: int
    authority: Path
    stranger: Path
    encrypted: list[bool] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.server.url.replace(f":{self.server.port}/", f":{self.port}/")

    def parameters(self, text: str) -> str:
        return text.replace("AUTHORITY", str(self.authority)).replace("STRANGER", str(self.stranger))


@pytest.fixture
async def secure(postgres_server: Postgres, tmp_path: Path) -> AsyncIterator[Secure]:
    """A server whose certificate is for 127.0.0.1."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "stranger.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    opened = Secure(postgres_server, 0, tmp_path / "authority.pem", tmp_path / "stranger.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(len(_ASKS_FOR_TLS))
            opened.encrypted.append(first == _ASKS_FOR_TLS)
            if opened.encrypted[-1]:
                writer.write(b"S")
                await writer.start_tls(context)
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", postgres_server.port)
            if not opened.encrypted[-1]:
                server_writer.write(first)
            await asyncio.wait(
                [asyncio.create_task(_pipe(reader, server_writer)), asyncio.create_task(_pipe(server_reader, writer))]
            )

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listening:
        opened.port = listening.sockets[0].getsockname()[1]
        yield opened


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _work(url: str) -> None:
    database = Database(url, size=1)
    try:
        async with database.transaction() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    finally:
        await database.close()


@pytest.mark.parametrize(
    ("parameters", "encrypted"),
    [
        ("", True),  # asyncpg prefers TLS, as libpq does
        ("sslmode=disable", False),
        ("sslmode=allow", False),
        ("sslmode=prefer", True),
        ("sslmode=require", True),
        ("sslmode=require&channel_binding=require", True),
        ("sslmode=verify-ca&sslrootcert=AUTHORITY", True),
        ("sslmode=verify-full&sslrootcert=AUTHORITY", True),
        ("SSLMODE=REQUIRE", True),
        ("ssl=true", True),
        ("sslmode=require&target_session_attrs=read-write&connect_timeout=5&application_name=a%20b", True),
        ("sslmode=require&options=-c%20search_path%3Dpublic&pgbouncer=true&schema=public", True),
        ("sslmode=&connect_timeout=&sslrootcert=&pgbouncer=", True),
    ],
)
async def test_every_sslmode_does_what_libpq_does(secure: Secure, parameters: str, encrypted: bool) -> None:
    """Encrypted when asked for or preferred, whatever else a service puts into its URL."""
    await _work(f"{secure.url}?{secure.parameters(parameters)}")
    assert set(secure.encrypted) == {encrypted}


@pytest.mark.parametrize(
    "parameters",
    [
        *(f"sslmode={mode}&sslrootcert=STRANGER" for mode in ("require", "verify-ca", "verify-full")),
        *("sslmode=verify-full", "sslmode=verify-full&sslrootcert=system"),
    ],
)
async def test_a_certificate_of_nobody_we_trust_is_named(secure: Secure, parameters: str) -> None:
    """One line says that it is the certificate; without a file, the system's authorities decide."""
    for attempt in (_work, upgrade):
        with pytest.raises(DependencyDown, match="the certificate of Postgres is refused"):
            await attempt(f"{secure.url}?{secure.parameters(parameters)}")


@pytest.mark.parametrize("mode", ["require", "verify-full&sslrootcert=AUTHORITY"])
async def test_a_server_without_tls_is_named(secure: Secure, postgres_server: Postgres, mode: str) -> None:
    """Nothing is sent in the clear that was to be encrypted, and one line says why."""
    url = f"{postgres_server.url}?{secure.parameters(f'sslmode={mode}')}"
    for attempt in (_work, upgrade):
        with pytest.raises(DependencyDown, match="Postgres has no TLS, which sslmode in DATABASE_URL asks for"):
            await attempt(url)


async def test_the_first_host_that_answers_is_taken(secure: Secure) -> None:
    """Several hosts with ports of their own, one of them away; a driver's name; a list of ports as a parameter."""
    user, _, place = secure.url.removeprefix("postgresql://").partition("@")
    for url in (
        f"postgresql+asyncpg://{user}@127.0.0.1:1,{place}?sslmode=require",
        f"postgres://{user}@/teamfit?host=127.0.0.1,127.0.0.1&port=1,{secure.port}&sslmode=require",
    ):
        await _work(url)
    assert set(secure.encrypted) == {True}


@pytest.mark.parametrize("command", ["migrate", "verify", "failed list", "job show " + "0" * 32])
def test_commands_say_it_in_one_line(postgres_server: Postgres, command: str, tmp_path: Path) -> None:
    """A managed service's URL against a server without TLS: every command says the same, without a traceback."""
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", *command.split()],
        env={**os.environ, "DATABASE_URL": f"{postgres_server.url}?sslmode=require", "PYTHONPATH": str(_ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "teamfit: Postgres has no TLS, which sslmode in DATABASE_URL asks for: turn it on, or use sslmode=prefer; or "
        "what listens there is no Postgres: check host and port\n"
    )
    assert list(tmp_path.iterdir()) == []
