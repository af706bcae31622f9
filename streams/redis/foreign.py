"""No reader reads a stream whose writer counts the topic's partitions differently.

Their content is good, and no worker will ever read it. The server cannot know this, and neither can the writer.
So readers look, every few leases, whether such a stream exists, and say so.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from redis.exceptions import NoPermissionError

from .server import Client

__all__ = ["ForeignStreams", "foreign_streams"]

log = logging.getLogger(__name__)


async def foreign_streams(client: Client, keys: Iterable[str]) -> list[str]:
    """Return which of these keys exist. Those that may not be looked at do not count."""
    return [key for key in keys if await _exists(client, key)]


async def _exists(client: Client, key: str) -> bool:
    try:
        return bool(await client.exists(key))
    except NoPermissionError:
        return False


class ForeignStreams:
    """Looks for one topic's streams of other counts, and tells of each once."""

    def __init__(self, client: Client, topic: str, keys: Iterable[str]) -> None:
        self._client = client
        self._topic = topic
        self._unknown = set(keys)

    async def look(self) -> None:
        """Log an error for each that has come to exist."""
        for key in await foreign_streams(self._client, sorted(self._unknown)):
            self._unknown.discard(key)
            log.error(
                "stream.unread topic=%s stream=%s: no worker reads it. Writers and readers must agree on `partitions`"
                " in the broker URL; delete the stream when what it holds is not needed",
                self._topic, key,
            )  # fmt: skip
