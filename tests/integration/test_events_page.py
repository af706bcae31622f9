"""The examples on the page about events work as pasted."""

import re
import shlex
from pathlib import Path
from uuid import UUID

from redis.asyncio import Redis

from streams.jobs.events import JobCancelRequested, JobRequested, parse_event
from streams.jobs.schemas import DOCS
from tests.stream_entries import entries_of


def redis_cli_lines(page: Path) -> list[list[str]]:
    """Return the words of each redis-cli line in a page, as a shell would split them."""
    return [shlex.split(line) for line in re.findall(r"^redis-cli .*$", page.read_text(), flags=re.MULTILINE)]


async def test_the_redis_cli_lines_send_a_request_and_a_cancellation(redis_url: str) -> None:
    """Their fields, sent as they stand, are valid events of one job, keyed by it."""
    async with Redis.from_url(redis_url) as client:
        for line in redis_cli_lines(DOCS / "events.md"):
            assert line[:3] == ["redis-cli", "XADD", "job-requests"]
            await client.execute_command(*line[1:])
    entries = await entries_of(redis_url, "job-requests")
    events = [parse_event(fields[b"event"]) for fields in entries]
    assert [type(event) for event in events] == [JobRequested, JobCancelRequested]
    assert {event.job_id for event in events} == {UUID(fields[b"key"].decode()) for fields in entries}
