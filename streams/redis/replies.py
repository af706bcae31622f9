"""This module checks the replies by which something is settled for good.

What stands between here and the server may answer anything at all: a proxy, a service that speaks most of the protocol.
An entry is acknowledged, and given up, only when the reply has the shape of the server's own.
"""

from __future__ import annotations

from typing import Any

from redis.exceptions import InvalidResponse

__all__ = ["entry_id", "entry_ids"]


def entry_id(reply: Any) -> bytes:
    """Return the ID of the entry that an XADD has written. Raises InvalidResponse when the reply is none."""
    if isinstance(reply, bytes) and b"-" in reply:
        return reply
    raise InvalidResponse(f"answered {reply!r:.80} instead of an entry's ID")


def entry_ids(reply: Any) -> list[bytes]:
    """Return a list of entries' IDs. Raises InvalidResponse when the reply is something else."""
    if isinstance(reply, list) and all(isinstance(one, bytes) for one in reply):
        return reply
    raise InvalidResponse(f"answered {reply!r:.80} instead of entries' IDs")
