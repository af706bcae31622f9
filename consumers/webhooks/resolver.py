"""Names of receivers are looked up on threads of their own.

So one that hangs holds up no other. The event loop's own pool has four threads (uvloop), which other connections of
the process need too.
"""

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from aiohttp.abc import AbstractResolver, ResolveResult

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
