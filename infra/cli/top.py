"""`teamfit top`: the overview in the terminal, live."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson
from infra.cli.output import out, print_json, second, shown

if TYPE_CHECKING:
    from infra.operations.overview import Overview, Overviews

app = typer.Typer()

_STYLES: Final = {
    "stalled": "bold red",
    "absent": "bold red",
    "held": "bold red",
    "paused": "yellow",
    "at work": "green",
}
_BLOCKS: Final = " ▁▂▃▄▅▆▇█"


@app.command()
@plain_errors()
def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print it once, and end.")] = False,
    every: Annotated[float, typer.Option(help="Seconds from one look to the next.", min=1)] = 2,
    as_json: AsJson = False,
) -> None:
    """Show the overview, live: jobs by time, stages, endpoints, money, and what is wrong. Ends with Ctrl+C.

    The console and GET /api/ops/overview have the same. Where the output is no terminal, it is printed once.
    """
    from infra.cli.session import opened_broker, with_database
    from infra.operations.overview import Overviews
    from infra.postgres import Database
    from infra.settings import settings

    console = out(pipe_width=120)

    async def work(database: Database) -> None:
        async with opened_broker("top") as broker:
            overviews = Overviews(settings(), database, broker)
            try:
                if as_json:
                    print_json(await overviews.read())
                elif once or not console.is_terminal:
                    console.print(_page(await overviews.read()))
                else:
                    await _follow(overviews, every)
            finally:
                await overviews.close()

    with_database(work)


async def _follow(overviews: "Overviews", every_s: float) -> None:
    import asyncio

    from rich.live import Live

    from infra.errors import DependencyDown

    page: RenderableType = Text("…")
    with Live(page, console=out(), screen=True, auto_refresh=False) as live:
        while True:
            try:
                page = _page(await overviews.read())
                live.update(page, refresh=True)
            except DependencyDown as error:
                live.update(Group(Text(shown(str(error)), style="bold red"), page), refresh=True)
            await asyncio.sleep(every_s)


def _page(view: "Overview") -> RenderableType:
    head = Text(view.state.capitalize(), style=_STYLES.get(view.state, "bold"))
    head.append(f"  {view.sentence}  {second(view.at)} UTC", style="default")
    faults = [
        Text(
            f"! {shown(one.says)}{f': {shown(one.detail)}' if one.detail else ''} (docs/operating.md: {one.section})",
            "red",
        )
        for one in view.faults
    ]
    return Group(head, *faults, _periods(view), _charts(view), _stages(view), *_endpoints(view), *_last(view))


def _periods(view: "Overview") -> Table:
    rows = (
        (
            *(one.name, one.asked, one.completed, one.failed, one.cancelled, one.per_minute),
            *(_seconds(one.p50_s), _seconds(one.p95_s)),
        )
        for one in view.history.periods
    )
    columns = (
        "in the past",
        "asked for",
        "completed",
        "failed",
        "cancelled",
        "ended a minute",
        "half within",
        "95 % within",
    )
    return _table(columns, rows)


def _charts(view: "Overview") -> Text:
    lines = []
    for name, bars in (("24 hours", view.history.day), ("90 days", view.history.days)):
        most = max((one.ended for one in bars), default=0)
        line = "".join(_BLOCKS[-(-one.ended * (len(_BLOCKS) - 1) // most) if most else 0] for one in bars)
        lines.append(f"ended in {name:9}{line}  at most {most:,}")
    return Text("\n".join(lines))


def _stages(view: "Overview") -> Table:
    table = _table(("stage", "state", "workers", "under way", "waiting", "pending", "oldest", "why"), ())
    for one in view.stages:
        why = [f"paused by {one.paused}"] if one.paused else []
        why += [f"paused for {', '.join(one.paused_for)}"] if one.paused_for else []
        cells = (
            *(one.workers, f"{one.under_way} of {one.concurrency}", "?" if one.waiting is None else f"{one.waiting:,}"),
            *(f"{one.pending:,}", _seconds(one.oldest_s), "; ".join([*why, *one.held])),
        )
        state = Text(one.state, style=_STYLES.get(one.state, ""))
        table.add_row(one.name, state, *(Text(shown(cell)) for cell in cells))
    return table


def _endpoints(view: "Overview") -> Iterable[RenderableType]:
    from infra.operations.prices import spent_amount

    if view.endpoints:
        rows = (
            (
                *(one.endpoint, one.model, "held" if one.held else "closed" if one.closed_for else "open"),
                *(one.calls, one.failed, one.refused, _seconds(one.seconds_per_call)),
            )
            for one in view.endpoints
        )
        yield _table(("endpoint, 24 h", "model", "gate", "calls", "failed", "limited (429)", "a call"), rows)
    spend = view.spend
    money = f"{spent_amount(spend.cost)} {spend.currency}, " if spend.currency else ""
    unpriced = f", {spend.unpriced_calls:,} without a price" if spend.unpriced_calls else ""
    yield Text(f"{spend.period}: {money}{spend.calls:,} calls{unpriced}")


def _last(view: "Overview") -> Iterable[RenderableType]:
    jobs = view.jobs
    yield Text(f"{jobs.failed} failed events open, {jobs.due} published later, {jobs.overdue} of them overdue")
    if view.failed:
        rows = ((one.stage, one.error_type, one.events, one.last_failed_at) for one in view.failed[:5])
        yield _table(("failed in", "error", "events", "last (UTC)"), rows)
    if view.verified is not None:
        broken = ", ".join(str(one["name"]) for one in view.verified.violated)
        said = "all invariants held" if view.verified.ok else f"did not hold: {broken}"
        yield Text(f"teamfit verify, {second(view.verified.at)} UTC: {said}", style="" if view.verified.ok else "red")


def _table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    table = Table()
    for name in columns:
        table.add_column(name)
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else shown(cell)) for cell in row))
    return table


def _seconds(length: float | None) -> str:
    return "" if length is None else f"{length:,.1f} s"
