"""`teamfit streams`: entries in the broker, looked at without touching them."""

from typing import TYPE_CHECKING, Annotated

import typer

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson
from infra.cli.output import print_json, print_table

if TYPE_CHECKING:
    from infra.operations.streams import EntryPage

app = typer.Typer()
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

    page = asyncio.run(_read(topic, group, limit, cursor))
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


async def _read(topic: str, group: str | None, limit: int, cursor: str | None) -> "EntryPage":
    from infra.cli.session import opened_broker
    from infra.operations.streams import read_entries

    async with opened_broker("streams") as broker:
        return await read_entries(broker, topic, group=group, limit=limit, cursor=cursor)
