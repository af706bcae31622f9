"""Commands about plans print them alike, and apply them under a progress bar."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from uuid import UUID

import typer
from rich.console import Console

from infra.cli.output import print_models, print_table, second, tell

if TYPE_CHECKING:
    from pydantic import BaseModel

    from infra.operations.frozen_plans import FrozenPlan
    from infra.operations.job_search import JobFilter
    from infra.operations.plan_applying import Progress
    from producers.replay.failed import Filter

P = TypeVar("P")
_ORGANIZATIONS: Final = 20


def tell_unknown(chosen: "JobFilter | Filter") -> None:
    """Say on standard error which organization or team of a filter is not known."""
    from infra.cli.session import with_database
    from streams.jobs.known_names import unknown_names

    names = {name: getattr(chosen, name, None) for name in ("organization_id", "team_id")}
    tell(with_database(lambda database: unknown_names(database, **names)))


def print_plans(
    command: str, found: Sequence[Any], counted: str, *, column: str | None = None, no_filter: str, as_json: bool
) -> None:
    """Print a list of plans.

    Args:
        command: whose plans they are, such as `cancel`.
        found: the plans.
        counted: the field that says how many items each has.
        column: what stands above those numbers, if not the field's name.
        no_filter: what a plan without a filter has chosen.
        as_json: print JSON instead.
    """

    def row(one: Any) -> tuple[object, ...]:  # noqa: ANN401 - each kind of plan has a model of its own
        chosen = one.filters.model_dump(exclude_none=True) or no_filter
        return (one.id, one.state, getattr(one, counted), one.created_at, one.created_by, one.ended_at, chosen)

    columns = ("plan", "state", column or counted, "made (UTC)", "by", "ended (UTC)", "filter")
    none = f"There is no plan. `teamfit {command} plan` makes one."
    print_models(found, columns, row, none=none, as_json=as_json)


def print_standing(plan: "FrozenPlan[Any, Any]", items: str) -> None:
    """Print who made a plan, how far it is, and its digest. `items` is what it is for, such as `jobs`."""
    typer.echo(f"Plan {plan.id}, made by {plan.created_by} at {second(plan.created_at)} UTC")
    typer.echo(f"State: {plan.state}, {plan.done} of {plan.total} {items} {plan.DONE}, {plan.left} left")
    typer.echo(f"Set: SHA-256 {plan.digest}")


def print_organizations(found: "Sequence[BaseModel]", columns: Sequence[str]) -> None:
    """Print what would follow for the first organizations: their fields, in their order."""
    if found:
        print_table(columns, ((value for _, value in one) for one in found[:_ORGANIZATIONS]))
    if (more := len(found) - _ORGANIZATIONS) > 0:
        typer.echo(f"and {more} more organizations; --json has them")


async def with_progress(
    command: str, doing: str, plan_id: UUID, apply: Callable[[Callable[["Progress"], None]], Awaitable[P]]
) -> P:
    """Apply a plan and show how far it is. A stop says how to go on.

    Args:
        command: whose plan it is, such as `cancel`.
        doing: what the bar says, such as `cancelling`.
        plan_id: which plan.
        apply: applies it; is given what to tell its progress.
    """
    return await with_bar(doing, f"`teamfit {command} apply {plan_id}` goes on from here.", apply)


async def with_bar(doing: str, going_on: str, work: Callable[[Callable[["Progress"], None]], Awaitable[P]]) -> P:
    """Work on many items and show how far it is. `going_on` is said when it is stopped."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def report(progress: "Progress") -> None:
            bar.update(task, total=progress.total, completed=progress.total - progress.left)

        try:
            return await work(report)
        except asyncio.CancelledError:
            typer.echo(f"Stopped. {going_on}", err=True)
            raise
