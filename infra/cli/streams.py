"""`teamfit lag` and `teamfit streams`: what waits in the broker. Nothing is touched by it."""

from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson
from infra.cli.output import out, print_json, print_table

if TYPE_CHECKING:
    from infra.operations.streams import EntryPage, Lag

app = typer.Typer()

_LIMIT: Final = timedelta(seconds=10)


@app.command()
@plain_errors()
def lag(*, as_json: AsJson = False) -> None:
    """Print the entries that wait in the broker, by topic and consumer group.

    They are what was never delivered and what is under way.
    """
    import asyncio

    found = asyncio.run(_read_lag())
    if as_json:
        print_json(found.topics)
        return
    out().print(_lag_table(found))
    for sentence in found.unread:
        typer.echo(sentence)


async def _read_lag() -> "Lag":
    from infra.cli.session import opened_broker
    from infra.operations.streams import read_lag

    async with opened_broker("lag", limit=_LIMIT) as broker:
        return await read_lag(broker)


def _lag_table(found: "Lag") -> Table:
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


streams_app = typer.Typer(help="Look at entries of the broker's streams.", no_args_is_help=True)
app.add_typer(streams_app, name="streams")


@streams_app.command("show")
@plain_errors()
def show_streams(
    topic: Annotated[str, typer.Argument(help="The topic, e.g. job-requests; `teamfit lag` lists them.")],
    *,
    group: Annotated[
        str | None, typer.Option(help="Only what is pending in this group: given out, and not acknowledged.")
    ] = None,
    limit: Annotated[int, typer.Option(help="Most to print.", min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="Go on where a page ended, which has printed this.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print entries of a topic, partition by partition, the oldest first. Nothing is delivered or changed."""
    import asyncio

    page = asyncio.run(_read_entries(topic, group, limit, cursor))
    if as_json:
        print_json(page)
        return
    rows = (
        (one.id, one.key, "removed from the stream" if one.gone else " ".join((one.event or "").split())[:100])
        + ((one.consumer, one.idle, one.deliveries) if group else ())
        for one in page.entries
    )
    print_table(("entry", "key", "event", *(("consumer", "idle", "deliveries") if group else ())), rows)
    typer.echo(f"{len(page.entries)} shown.")
    if page.next is not None:
        typer.echo(f"The next page: --cursor {page.next}")


async def _read_entries(topic: str, group: str | None, limit: int, cursor: str | None) -> "EntryPage":
    from infra.cli.session import opened_broker
    from infra.operations.streams import read_entries

    async with opened_broker("streams") as broker:
        return await read_entries(broker, topic, group=group, limit=limit, cursor=cursor)
