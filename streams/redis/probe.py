"""The probe asks whether the server takes entries now, without writing one."""

from __future__ import annotations

from collections.abc import Iterable

from redis.exceptions import ResponseError

from .errors import BrokerUnavailable, WritesRefused
from .server import Client, Server, close, translate
from .wrong_url import advice_on

__all__ = ["probe"]


async def probe(server: Server, streams: Iterable[bytes]) -> None:
    """Ask whether entries can be written to these streams now. Nothing is written.

    Raises:
        WritesRefused: the server answers, but is full, read-only, or short of replicas or disk.
        BrokerUnavailable: it does not answer.
    """
    client = server.open()
    try:
        for stream in streams:
            await _probe(client, stream)
    finally:
        await close(client)


async def _probe(client: Client, stream: bytes) -> None:
    """Ask for an entry with an ID that no stream takes.

    Redis looks at its memory, its disk, its replicas, its role and the caller's rights before it looks at the ID, so
    this gets as far as a real entry would.
    """
    try:
        await client.execute_command("XADD", stream, "0-0", "probe", "")
    except ResponseError as error:
        if "must be greater than 0-0" in str(error):  # Redis says it in text only
            return
        if advice := advice_on(error):
            raise BrokerUnavailable(f"Connection to broker failed: {error}{advice}", maybe_written=False) from error
        # redis-py has a class for some of the codes, and leaves the others, such as NOREPLICAS, in the text.
        code = str(error).partition(" ")[0] if type(error) is ResponseError else type(error).__name__
        raise WritesRefused(code) from error
    except Exception as error:
        raise translate(error, sent=False) from error
