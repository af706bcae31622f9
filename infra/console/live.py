"""The board reads each page that is looked at in turn, once for all.

One page is read at a time, with a pause after it: the database sees a bounded number of statements a second however
many people look, and none when no one does. A browser closes the stream of a tab that is hidden.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic
from typing import Final, Generic, TypeAlias, TypeVar

import structlog

from infra.bugs import chain_of, frames_of
from infra.errors import Refused, TeamfitError

log = structlog.get_logger(__name__)

T = TypeVar("T")
Render: TypeAlias = Callable[[], Awaitable[str]]

MOST_STREAMS: Final = 500
"""Streams at a time of one process; a page that gets none works, and is not live."""


@dataclass(slots=True)
class _Feed:
    """A page that somebody looks at: what it was last, and who waits for what it is next."""

    render: Render
    followers: int = 0
    html: str | None = None
    version: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def refresh(self) -> None:
        """Read it again; wake the followers if it is another."""
        try:
            html = await self.render()
        except TeamfitError as error:
            # Whoever looks keeps what they have; the page itself says what is wrong when it is loaded again.
            log.warning("console.page_not_read", why=str(error))
            return
        except Exception as error:  # noqa: BLE001 - one page's bug must not end the reading of all others
            log.warning("console.page_not_read", why=chain_of(error), where=frames_of(error))
            return
        if html != self.html:
            self.html, self.version = html, self.version + 1
            self.changed.set()
            self.changed = asyncio.Event()


class Board:
    """The pages that are looked at now.

    Args:
        every_s: how often each page is read.
        pause_s: the pause between one page and the next; pages are read less often when there are many.
    """

    def __init__(self, *, every_s: float = 2.0, pause_s: float = 0.1) -> None:
        self._every_s, self._pause_s = every_s, pause_s
        self._feeds: dict[object, _Feed] = {}
        self._reading: asyncio.Task[None] | None = None
        self._is_over = False

    @contextmanager
    def _followed(self, key: object, render: Render) -> Iterator[_Feed]:
        feed = self._feeds.setdefault(key, _Feed(render))
        feed.followers += 1
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        try:
            yield feed
        finally:
            feed.followers -= 1
            if not feed.followers:
                del self._feeds[key]

    def admit(self) -> None:
        """Raise Refused if too many streams are open."""
        if sum(feed.followers for feed in self._feeds.values()) >= MOST_STREAMS:
            raise Refused("too_many_streams", f"{MOST_STREAMS} live pages are open; close some, or reload by hand")

    async def follow(self, key: object, render: Render, *, patience_s: float) -> AsyncGenerator[str | None, None]:
        """Yield the page whenever it has changed, and None after a quiet while."""
        seen = 0
        with self._followed(key, render) as feed:
            while not self._is_over:
                changed = feed.changed
                if feed.html is not None and feed.version != seen:
                    seen = feed.version
                    yield feed.html
                    continue
                try:
                    async with asyncio.timeout(patience_s):
                        await changed.wait()
                except TimeoutError:
                    yield None

    async def _read(self) -> None:
        while self._feeds:
            began = monotonic()
            for feed in list(self._feeds.values()):
                await feed.refresh()
                await asyncio.sleep(self._pause_s)
            await asyncio.sleep(max(0.0, self._every_s - (monotonic() - began)))

    def end(self) -> None:
        """Have all streams end: the process does."""
        self._is_over = True
        for feed in self._feeds.values():
            feed.changed.set()

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()


class Shared(Generic[T]):
    """Reads something once for all who ask within a while."""

    def __init__(self, read: Callable[[], Awaitable[T]], *, for_s: float = 2.0) -> None:
        self._read, self._for_s = read, for_s
        self._last: tuple[float, T] | None = None
        self._turn = asyncio.Lock()

    async def get(self) -> T:
        """Return what was read a moment ago, or read it."""
        async with self._turn:
            if self._last is None or self._last[0] < monotonic() - self._for_s:
                self._last = (monotonic(), await self._read())
            return self._last[1]
