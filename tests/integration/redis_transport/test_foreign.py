"""A writer who counts the partitions of a topic differently."""

from __future__ import annotations

import pytest

from tests.conformance.harness import Bench, collect, running, transport_of
from tests.integration.redis_transport.conftest import Client
from tests.waiting import wait_for


@pytest.mark.parametrize("partitions", [1, 2])
async def test_a_worker_tells_of_streams_that_nobody_reads(
    bench: Bench, redis: Client, caplog: pytest.LogCaptureFixture, partitions: int
) -> None:
    """Entries that no worker will ever see are an error in the log of every worker, once, and it reads its own."""
    bench.settings.update(partitions=f"{bench.topic_name}:{partitions}", lease="100ms", scan="20ms")
    app = bench.app()
    seen = collect(bench, app)

    def told() -> list[str]:
        return [record.getMessage() for record in caplog.records if "stream.unread" in record.getMessage()]

    async with running(app):
        await bench.send(b"mine")
        await seen.become(1)
        assert told() == []
        foreign = transport_of(app).layout.foreign_stream_keys(bench.topic_name)
        for stream in foreign:
            await redis.xadd(stream, {"event": b"unseen"})
        await wait_for(lambda: len(told()) == len(foreign), what="the errors")
        await bench.send(b"mine too")
        await seen.become(2)
    assert seen == [b"mine", b"mine too"]
    assert {stream in "".join(told()) for stream in foreign} == {True}
    assert len(told()) == len(foreign)
