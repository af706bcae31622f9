"""Consumer groups, always created at the beginning of the stream."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from redis.exceptions import ResponseError

from .server import Client

__all__ = ["create_groups"]

log = logging.getLogger(__name__)


async def create_groups(client: Client, stream: bytes, groups: Iterable[str]) -> None:
    """Create the groups that do not exist yet, and the stream if need be.

    Always at "0", never at "$": after a flush or a failover, "$" would skip what was written in between; and a group
    that a topic declares but that has not started yet must find everything.
    """
    for group in groups:
        try:
            await client.execute_command("XGROUP CREATE", stream, group, "0", "MKSTREAM")
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
        else:
            log.info("group.created stream=%s group=%s at the beginning of the stream", stream.decode(), group)
