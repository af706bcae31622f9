"""A row that is not clean says what stood unmoved, so that its cause can be found without having it again."""

from pathlib import Path
from typing import Any

import aiosql
from redis.asyncio import Redis
from redis.exceptions import RedisError

from infra.postgres import Connection
from streams.jobs.stages import CONSUMER_GROUPS

_queries: Any = aiosql.from_path(Path(__file__).with_name("unmoved.sql"), "asyncpg")


async def unmoved(connection: Connection, broker: Redis) -> list[str]:
    """Return a sentence for each long transaction, what is due, and each consumer that holds entries."""
    transactions = [
        f"server process {row['pid']} ({row['state']}, {row['wait']}) is in a transaction for {row['seconds']:.0f} s"
        f"{', behind ' + str(row['behind']) if row['behind'] else ''}: {' '.join(row['query'].split())[:160]}"
        async for row in _queries.long_transactions(connection)
    ]
    due = [
        f"{row['records']} records for {row['topic']} wait since {row['since_s']:.0f} s, the first is due in "
        f"{row['due_s']:.0f} s: {row['reason']}"
        async for row in _queries.waiting(connection)
    ]
    return [*transactions, *due, *await _held(broker)]


async def _held(broker: Redis) -> list[str]:
    held = []
    for topic, groups in CONSUMER_GROUPS.items():
        for group in groups:
            try:
                rows: Any = await broker.xpending_range(topic, group, "-", "+", 20)
            except RedisError as error:
                held.append(f"{group} of {topic}: {error}")
                continue
            held += [
                f"{group} of {topic}: {row['message_id'].decode()} is with {row['consumer'].decode()}, idle for "
                f"{row['time_since_delivered'] / 1000:.1f} s, delivered {row['times_delivered']} times"
                for row in rows
            ]
    return held
