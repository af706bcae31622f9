"""One HTTP session sends webhooks to receivers of all kinds: absent, slow, endless, hostile.

Nothing of an answer is kept but its status and the beginning of its text. Redirects are not followed: they could lead
inside, and a signed body would go to whoever is named.

Names are looked up on threads of their own, so one that hangs holds up no other. The event loop's own pool has four
threads (uvloop), which other connections of the process need too.
"""

import asyncio
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from importlib.metadata import version
from typing import Any, Final, cast

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from yarl import URL

from consumers.webhooks.addresses import any_socket, public_socket
from consumers.webhooks.retries import Answer
from infra.texts import storable

TIMEOUT: Final = timedelta(seconds=15)
"""What the specification allows a receiver for its answer."""
_CONNECT_S: Final = 5.0
# A body that is read to its end lets its connection be used again; one that does not end soon is not worth it.
_MOST_BYTES: Final = 16 * 1024
_REST_S: Final = 1.0
# Shorter than the idle time of common servers (Node: 5 s), which would close a connection as it is used again.
_KEEP_ALIVE_S: Final = 4.0
_SHOWN: Final = 200
_LONGEST_PROBLEM: Final = 1_000


class Receivers:
    """Sends to receivers.

    Args:
        allow_private: whether addresses of inner networks and of this machine are reached.
        timeout: longest that one try may take.
    """

    def __init__(self, *, allow_private: bool, timeout: timedelta = TIMEOUT) -> None:
        self._socket = any_socket if allow_private else public_socket
        self._timeout = aiohttp.ClientTimeout(total=timeout.total_seconds(), sock_connect=_CONNECT_S)
        self._session: aiohttp.ClientSession | None = None
        self._resolver = Resolver()

    async def post(self, url: str, headers: Mapping[str, str], body: str) -> Answer:
        """Send a body and return the answer, or why there is none. Raises nothing but CancelledError."""
        try:
            async with self._opened().post(URL(url), data=body.encode(), headers=headers, allow_redirects=False) as got:
                text = await _beginning(got)
                return Answer(got.status, _problem(got, text), got.headers.get("Retry-After"))
        except TimeoutError:
            return Answer(None, f"no answer in {self._timeout.total:g} s, or no connection in {_CONNECT_S:g} s")
        except aiohttp.ClientConnectorError as error:
            # Its own text is made of the number of the system's error, which a refused address has not.
            return Answer(None, storable(f"no connection: {error.os_error}", _LONGEST_PROBLEM))
        except aiohttp.ClientResponseError as error:
            # Its status is no answer's: it is what a server would say of a request that cannot be read.
            return Answer(None, storable(f"no answer of HTTP: {' '.join(error.message.split())}", _LONGEST_PROBLEM))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Answer(None, storable(f"{type(error).__name__}: {error}", _LONGEST_PROBLEM))

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()
        await self._resolver.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # How many are under way at once is bounded by whoever sends.
                connector=_Connector(
                    limit=0,
                    keepalive_timeout=_KEEP_ALIVE_S,
                    socket_factory=self._socket,
                    resolver=self._resolver,
                ),
                timeout=self._timeout,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                headers={
                    "Content-Type": "application/json",
                    "User-Agent": f"TEAMFIT-Webhooks/{version('teamfit-pipeline')}",
                    "Accept-Encoding": "identity",
                },
            )
        return self._session


class _HeadFirst(ResponseHandler):
    """An answer whose head counts, whatever follows it in the same packet.

    A body that a 204 must not have, or that is longer or broken, takes aiohttp 3.14 the answer before it too.
    """

    def data_received(self, data: bytes) -> None:
        """Take what has come, the head by itself."""
        head, end, rest = data.partition(b"\r\n\r\n")
        super().data_received(head + end)
        if rest:
            super().data_received(rest)


class _Connector(aiohttp.TCPConnector):
    def __init__(self, **how: Any) -> None:  # noqa: ANN401 - aiohttp's own
        super().__init__(**how)
        self._factory = cast("partial[ResponseHandler]", partial(_HeadFirst, loop=asyncio.get_running_loop()))


async def _beginning(answer: aiohttp.ClientResponse) -> bytes:
    """Return the beginning of a body. What goes wrong with it does not matter: the status is known."""
    text = bytearray()
    with suppress(aiohttp.ClientError, OSError, TimeoutError):
        async with asyncio.timeout(_REST_S):
            while len(text) < _MOST_BYTES and (some := await answer.content.read(_MOST_BYTES - len(text))):
                text += some
    if not answer.content.at_eof():
        answer.close()
    return bytes(text)


def _problem(answer: aiohttp.ClientResponse, text: bytes) -> str | None:
    status = answer.status
    if 200 <= status < 300:  # noqa: PLR2004 - as HTTP has it
        return None
    if 300 <= status < 400:  # noqa: PLR2004 - the same
        where = answer.headers.get("Location", "nowhere")
        return storable(f"{status}: redirects to {where!r}, and none is followed", _LONGEST_PROBLEM)
    shown = " ".join(text[:_SHOWN].decode(errors="replace").split())
    return storable(f"{status}: {shown}".rstrip(": "), _LONGEST_PROBLEM)


# More than there are tries under way by default. A thread is made when it is first needed.
_THREADS: Final = 128
_NUMBERS: Final = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV


class Resolver(AbstractResolver):
    """Looks names up as the system does."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="webhook-names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a name. Raises OSError if it has none."""
        found = await asyncio.get_running_loop().run_in_executor(self._threads, _look_up, host, port, family)
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=kind, proto=protocol, flags=_NUMBERS)
            for kind, _, protocol, _, address in found
        ]

    async def close(self) -> None:
        """Begin no more look-ups; what hangs ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(
    host: str, port: int, family: socket.AddressFamily
) -> list[tuple[int, int, int, str, tuple[str | int | bytes, ...]]]:
    return [*socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)]
