"""`teamfit lag`: what waits in the broker, by topic and consumer group."""

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import typer
from rich.table import Table

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson
from infra.cli.output import out, print_json

if TYPE_CHECKING:
    from infra.operations.lag import Lag

app = typer.Typer()

_LIMIT: Final = timedelta(seconds=10)


@app.command()
@plain_errors()
def lag(*, as_json: AsJson = False) -> None:
    """Print the entries that wait in the broker, by topic and consumer group.

    They are what was never delivered and what is under way.
    """
    import asyncio

    found = asyncio.run(_read())
    if as_json:
        print_json(found.topics)
        return
    out().print(_table(found))
    for sentence in found.unread:
        typer.echo(sentence)


async def _read() -> "Lag":
    from infra.cli.session import opened_broker
    from infra.operations.lag import read_lag

    async with opened_broker("lag", limit=_LIMIT) as broker:
        return await read_lag(broker)


def _table(found: "Lag") -> Table:
    table = Table()
    table.add_column("topic")
    table.add_column("entries", justify="right")
    table.add_column("group")
    for name in ("lag", "pending", "oldest pending", "consumers"):
        table.add_column(name, justify="right")
    for topic in found.topics:
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
    return table


def _age(age: timedelta) -> str:
    """Return an age as a person reads it: 4.2 s, 12 min, 3 h, 5 d."""
    seconds = age.total_seconds()
    for most, unit, length in ((120, "s", 1), (7_200, "min", 60), (172_800, "h", 3_600)):
        if seconds < most:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds / 86_400:.3g} d"
