"""Looking at what is in a stream."""

from typing import cast

from redis.asyncio import Redis


async def entries_of(redis_url: str, stream: str) -> list[dict[bytes, bytes]]:
    """Return the fields of each entry, oldest first."""
    async with Redis.from_url(redis_url) as client:
        found = cast("list[tuple[bytes, dict[bytes, bytes]]]", await client.xrange(stream))
    return [fields for _, fields in found]
