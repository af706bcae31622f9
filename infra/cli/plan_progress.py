"""A plan of cancellations or discards is applied under a progress bar."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from infra.operations.plan_applying import Progress

P = TypeVar("P")


async def with_progress(
    command: str, doing: str, plan_id: UUID, apply: Callable[[Callable[[Progress], None]], Awaitable[P]]
) -> P:
    """Apply a plan and show how far it is. A stop says how to go on.

    Args:
        command: whose plan it is, such as `cancel`.
        doing: what the bar says, such as `cancelling`.
        plan_id: which plan.
        apply: applies it; is given what to tell its progress.
    """
    columns = (TextColumn(doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("", total=None)

        def report(progress: Progress) -> None:
            bar.update(task, total=progress.total, completed=progress.total - progress.left)

        try:
            return await apply(report)
        except asyncio.CancelledError:
            typer.echo(f"Stopped. `teamfit {command} apply {plan_id}` goes on from here.", err=True)
            raise
