"""Health says whether the loops still turn; the probe, whether entries are taken.

The first does no I/O, and the second writes no entry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from time import monotonic

from redis.exceptions import ResponseError

from .address import advice_on
from .errors import BrokerUnavailable, WritesRefused
from .server import Client, Server, close, translate

__all__ = ["Health", "probe"]


class Health:
    """The last sign of life of each loop."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._loops: dict[str, tuple[float, float]] = {}  # loop to (last sign of life, most seconds between two)
        self._errors: dict[str, str] = {}

    def expect(self, loop: str, every: float) -> None:
        """Require a sign of life from `loop` at least every so many seconds."""
        self._loops[loop] = (self._clock(), every)

    def alive(self, loop: str) -> None:
        """The loop has done a round that reached the server."""
        last = self._loops.get(loop)
        if last is not None:
            self._loops[loop] = (self._clock(), last[1])
        self._errors.pop(loop, None)

    def failing(self, loop: str, error: BaseException) -> None:
        """The loop could not do its round."""
        self._errors[loop] = f"{type(error).__name__}: {error}{advice_on(error)}"

    def forget(self, loop: str) -> None:
        """The loop has ended as it should."""
        self._loops.pop(loop, None)
        self._errors.pop(loop, None)

    def problems(self) -> list[str]:
        """Return one sentence for each current problem; empty when all is well."""
        now = self._clock()
        found = [f"{loop} fails: {error}" for loop, error in self._errors.items()]
        for loop, (last, every) in self._loops.items():
            if loop not in self._errors and now - last > every:
                found.append(f"{loop} stands still for {now - last:.0f} s")
        return found


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
