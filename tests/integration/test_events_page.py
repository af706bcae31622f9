"""The examples on the page about events work as pasted."""

import re
import shlex
from pathlib import Path
from uuid import UUID

from redis.asyncio import Redis

from streams.events import JobRequested, parse_event
from streams.schemas import DOCS
from tests.stream_entries import entries_of


def redis_cli_lines(page: Path) -> list[list[str]]:
    """Return the words of each redis-cli line in a page, as a shell would split them."""
    return [shlex.split(line) for line in re.findall(r"^redis-cli .*$", page.read_text(), flags=re.MULTILINE)]


async def test_the_redis_cli_line_sends_a_request(redis_url: str) -> None:
    """Its fields, sent as they stand, are a valid request event, keyed by its job."""
    (line,) = redis_cli_lines(DOCS / "events.md")
    assert line[:3] == ["redis-cli", "XADD", "job-requests"]
    async with Redis.from_url(redis_url) as client:
        await client.execute_command(*line[1:])
    (fields,) = await entries_of(redis_url, "job-requests")
    event = parse_event(fields[b"event"])
    assert isinstance(event, JobRequested)
    assert event.job_id == UUID(fields[b"key"].decode())
