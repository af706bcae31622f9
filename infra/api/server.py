"""Uvicorn serves the API, and every wait of a connection has an end.

Uvicorn alone waits for ever for a request that was begun, and for a client that reads no more of its answer.
"""

import asyncio
import signal
import socket
import sys
from typing import Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from infra.api.app import create_api
from infra.api.leaving import Server
from infra.api.problems import ProblemResponse
from infra.auth import signing_key
from infra.garbage import spare_what_stays
from infra.ports import require_free
from infra.settings import Settings
from infra.telemetry import start_logging

# Longer than a POST takes. Whoever waits for a job, or listens to its events, is answered at once: see `leaving`.
_DRAIN_S: Final = 10


class BoundedConnection(H11Protocol):
    """An HTTP/1.1 connection that is closed when its client keeps it waiting.

    Attributes:
        headers_within_s: from a request's first byte to the end of its headers.
        read_within_s: from when an answer fills the buffers to when its reader has emptied them.
    """

    headers_within_s: float = 20.0
    read_within_s: float = 30.0
    _headers: asyncio.TimerHandle | None = None
    _reader: asyncio.TimerHandle | None = None
    _has_begun = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Wait for a first request as long as for a next one. Load balancers open connections beforehand."""
        super().connection_made(transport)
        _send_at_once(transport)
        self._expect_headers(self.timeout_keep_alive)

    def data_received(self, data: bytes) -> None:
        """Take the bytes; complete headers decide how long to wait for the rest."""
        if self.conn.their_state is h11.IDLE and not self._has_begun:
            # Blank lines that a client sends behind a body are not the next request (RFC 9112, section 2.2).
            data = data.lstrip(b"\r\n")
            if not data:
                return
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._cancel_headers()
            self._has_begun = False
        elif not self._has_begun:
            self._has_begun = True
            self._expect_headers(self.headers_within_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._cancel_headers()
        self._cancel_reader()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Give the reader its time, once the buffers are full."""
        super().pause_writing()
        self._expect_reader()

    def resume_writing(self) -> None:
        """Go on: the reader has caught up."""
        self._cancel_reader()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Wait for the reader of the last bytes, too: closing does not throw them away."""
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._expect_reader()

    def send_400_response(self, msg: str) -> None:
        """Answer what is not HTTP with a problem document, unless an answer has begun."""
        if self.conn.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
            answer = ProblemResponse(400, "bad_request", f"{msg} Send HTTP/1.1.", headers={"Connection": "close"})
            status = h11.Response(status_code=400, headers=answer.raw_headers, reason=b"Bad Request")
            for event in (status, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def _expect_headers(self, within_s: float) -> None:
        self._cancel_headers()
        self._headers = self.loop.call_later(within_s, self.transport.close)

    def _cancel_headers(self) -> None:
        if self._headers is not None:
            self._headers.cancel()
            self._headers = None

    def _expect_reader(self) -> None:
        if self._reader is None:
            # Closing would wait for the reader as well.
            self._reader = self.loop.call_later(self.read_within_s, self.transport.abort)

    def _cancel_reader(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            self._reader = None


def _send_at_once(transport: asyncio.Transport) -> None:
    """Have an answer's body follow its headers at once.

    Otherwise it waits 40 ms for the client to confirm them. asyncio sees to it only where it opened the listener.
    """
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def configuration(
    app: ASGIApp,
    settings: Settings,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    connection: type[BoundedConnection] = BoundedConnection,
) -> uvicorn.Config:
    """Return how uvicorn serves the API."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=connection,
        ws="none",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # `BehindProxy` reads them, before it forgets who the proxy was
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=_DRAIN_S,
    )


def serve(host: str, port: int, *, root_path: str | None = None) -> None:
    """Serve the API until a signal stops it.

    Raises:
        PortTaken: another program listens there.
        NoSigningKey: it is missing or too short.
    """
    started = start_logging("api")
    settings = started if root_path is None else Settings(root_path=root_path)
    signing_key(settings)
    require_free(port, "--port", host=host)
    # Uvicorn raises the signal again once it has stopped in good order; that is no failure.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(0))
    server = Server(configuration(create_api(settings), settings, host=host, port=port))
    spare_what_stays()
    server.run()
