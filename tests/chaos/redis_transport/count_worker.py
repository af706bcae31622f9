"""A worker whose agent only counts, for the test of a long backlog."""

import os
from typing import Any

import faust

app = faust.App(
    "chaos",
    broker=os.environ.get("CHAOS_BROKER", "redis://127.0.0.1:6379/0"),
    topic_partitions=1,
    web_enabled=False,
    datadir=os.environ.get("CHAOS_FOLDER", os.devnull),
)
topic = app.topic("chaos", key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw")


@app.agent(topic)
async def count(stream: Any) -> None:
    """Do nothing with each event."""
    async for _ in stream:
        pass


if __name__ == "__main__":
    app.main()
