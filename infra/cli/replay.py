"""`teamfit replay`: a plan that shows what would follow, then the act, which can be stopped and resumed."""

# ruff: noqa: PLC0415 - each command imports what it needs when it runs

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from infra.cli.errors import plain_errors
from infra.cli.failed_filter import filtered

if TYPE_CHECKING:
    from producers.replay.failed import Filter

app = typer.Typer(help="Bring failed events back: plan, look, apply.", no_args_is_help=True)


def _rate(text: str) -> float:
    """Read a rate: `100/s`, or `100`."""
    number = text.removesuffix("/s")
    try:
        rate = float(number)
    except ValueError as error:
        raise typer.BadParameter("give events per second, such as 100/s") from error
    if not 0 < rate <= 1e6:  # noqa: PLR2004 - past any broker, and short of infinity
        raise typer.BadParameter("give a number of events per second above 0, such as 100/s")
    return rate


PlanId = Annotated[UUID, typer.Argument(help="The plan's ID.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


@app.command("plan")
@plain_errors()
@filtered
def plan_replay(
    *,
    chosen: "Filter",
    as_json: AsJson = False,
) -> None:
    """Choose open failed events, say what replaying them would do, and keep that as a plan. Nothing is sent."""
    from infra.cli.replay_plans import make

    make(chosen, as_json=as_json)


@app.command("apply")
@plain_errors()
def apply_plan(
    plan: PlanId,
    *,
    rate: Annotated[float, typer.Option(parser=_rate, metavar="N/s", help="Events per second, such as 100/s.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Send exactly what a plan showed. Ctrl-C stops after the batch under way; the same command goes on from there.

    Refused if anything in the plan changed since it was made: an event was replayed, discarded or failed again, or its
    job has moved on.
    """
    from infra.cli.replay_plans import apply

    apply(plan, rate=rate, yes=yes)


@app.command("status")
@plain_errors()
def show_status(
    plan: PlanId,
    *,
    events: Annotated[int, typer.Option(help="How many of its events to list, in the order of sending.", min=0)] = 0,
    as_json: AsJson = False,
) -> None:
    """Print a plan, what it said, and how far it is."""
    from infra.cli.replay_plans import show

    show(plan, events=events, as_json=as_json)


@app.command("abort")
@plain_errors()
def abort_plan(plan: PlanId) -> None:
    """End a plan before its time. What it has sent stays sent; whoever is applying it stops before the next batch."""
    from infra.cli.replay_plans import abort

    abort(plan)
