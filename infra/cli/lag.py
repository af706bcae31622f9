"""`teamfit lag`: what waits in the broker, by topic and consumer group."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import typer
from rich.table import Table

from infra.cli.output import out, print_json
from infra.settings import settings
from producers.broker import Broker
from streams.redis.backlog import TopicBacklog

_PATIENCE = timedelta(seconds=10)


def run(*, as_json: bool) -> None:
    """Print the backlog of every topic.

    Raises:
        DependencyDown: the broker is away.
        TransportError: it does not tell, or is Kafka.
    """
    topics = asyncio.run(_read())
    if as_json:
        print_json(topics)
        return
    table = Table()
    table.add_column("topic")
    table.add_column("entries", justify="right")
    table.add_column("group")
    for name in ("lag", "pending", "oldest pending", "consumers"):
        table.add_column(name, justify="right")
    for topic in topics:
        for number, group in enumerate(topic.groups):
            table.add_row(
                "" if number else topic.topic,
                "" if number else f"{topic.length:,}",
                group.group,
                "unknown" if group.lag is None else f"{group.lag:,}",
                f"{group.pending:,}",
                "" if group.oldest_pending is None else _age(group.oldest_pending),
                str(group.consumers),
            )
    out().print(table)
    for topic in topics:
        for stream in topic.unread:
            typer.echo(
                f"Nobody reads the stream {stream}: its writer counts the partitions of {topic.topic} differently. "
                "Put the same `partitions=` into every BROKER_URL."
            )
        for group in topic.groups:
            if not group.consumers and (group.lag or group.pending):
                typer.echo(f"Nobody reads {topic.topic} for {group.group}: start `teamfit worker {group.group}`.")


async def _read() -> Sequence[TopicBacklog]:
    broker = Broker(settings(), name="lag", timeout=_PATIENCE)
    try:
        return await broker.backlogs()
    finally:
        await broker.close()


def _age(age: timedelta) -> str:
    """Return an age as a person reads it: 4.2 s, 12 min, 3 h, 5 d."""
    seconds = age.total_seconds()
    for most, unit, length in ((120, "s", 1), (7_200, "min", 60), (172_800, "h", 3_600)):
        if seconds < most:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds / 86_400:.3g} d"
