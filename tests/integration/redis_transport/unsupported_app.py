"""A Faust app that uses one thing that Redis Streams cannot carry, named by the environment."""

import os
from typing import Any

import faust

FEATURE = os.environ.get("FEATURE", "")
OPTIONS: dict[str, dict[str, Any]] = {
    "exactly once": {"processing_guarantee": "exactly_once"},
    "publish on commit": {"stream_publish_on_commit": True},
    "threaded producer": {"producer_threaded": True},
    "latest": {"consumer_auto_offset_reset": "latest"},
}
TOPIC: dict[str, dict[str, Any]] = {
    "compacting": {"compacting": True},
    "no acks": {"acks": False},
    "pattern": {"pattern": "any.*"},
}

app = faust.App(
    "unsupported",
    broker=os.environ.get("FEATURE_BROKER", "redis://127.0.0.1:6379/0"),
    datadir=os.environ.get("FEATURE_FOLDER", os.devnull),
    web_enabled=False,
    **OPTIONS.get(FEATURE, {}),
)
names = () if FEATURE == "pattern" else ("orders",)
topic = app.topic(*names, **TOPIC.get(FEATURE, {}))
if FEATURE == "table":
    app.Table("counts", default=int, partitions=4)
if FEATURE == "global table":
    app.GlobalTable("rates", default=int)


@app.agent(topic)
async def work(stream: Any) -> None:
    """Never gets anything."""
    async for _ in stream:
        pass
