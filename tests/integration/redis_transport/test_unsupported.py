"""`faust worker` refuses to start with what Redis Streams cannot carry, and says what to use instead."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

from tests.conformance.brokers import Broker


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("table", r"tables \(counts\) need a changelog.*database, or use kafka"),
        ("global table", r"tables \(rates\) need a changelog"),
        ("exactly once", "exactly_once.*Kafka's transactions"),
        ("publish on commit", "stream_publish_on_commit needs offsets"),
        ("threaded producer", "producer_threaded exists for Kafka only"),
        ("latest", "consumer_auto_offset_reset='latest' would skip"),
        ("compacting", "topic orders: compacting keeps"),
        ("no acks", "topic orders: with acks=False"),
        ("pattern", "streams are read by name"),
    ],
)
async def test_a_worker_refuses_to_start(feature: str, message: str, broker: Broker, tmp_path: Path) -> None:
    """The process ends with an error that names the feature, instead of working by halves."""
    environment = {
        **os.environ,
        "FEATURE": feature,
        "FEATURE_BROKER": broker.url(),
        "FEATURE_FOLDER": str(tmp_path),
    }
    module = "tests.integration.redis_transport.unsupported_app"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "faust", "-A", module, "worker", "--without-web", "-l", "info",
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode != 0
    assert re.search(f"UnsupportedFeature: .*{message}", output.decode())
