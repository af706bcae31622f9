"""What `teamfit job show` prints: everything that the pipeline has written about one job, read at one moment."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import aiosql
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.output import mended, out, print_json
from infra.cli.session import session
from infra.errors import TeamfitError
from infra.postgres import Session
from infra.settings import settings

_queries = aiosql.from_path(Path(__file__).with_name("job_life.sql"), "asyncpg")

# In the order in which a job meets them; each is a query and its title.
_SECTIONS = {
    "facts": "Facts (job_events)",
    "outcomes": "Ends of its runs (job_outcomes)",
    "quota": "Quota (quota_ledger)",
    "calls": "Calls to the LLM (generation_attempts)",
    "activities": "Activities (customized_activities)",
    "scheduled": "To be published later (scheduled_events)",
    "failed": "Failed events (failed_events)",
    "reemissions": "Sent again because it stood still (reemissions)",
}


class UnknownJob(TeamfitError):
    """Nothing in the database knows the job."""


def show(job_id: UUID, *, as_json: bool) -> None:
    """Print everything about a job.

    Raises:
        UnknownJob: nothing is known of it.
        DependencyDown: Postgres is away.
    """
    life = asyncio.run(session(settings().database_url, lambda connection: _read(connection, job_id)))
    if not any(life.values()):
        raise UnknownJob(
            f"job {job_id}: nothing is known of it. A request that came by client or XADD is known once it was read "
            "(`teamfit lag` says what waits); else check the ID and DATABASE_URL"
        )
    if as_json:
        print_json({"job_id": job_id, **life})
        return
    console = out()
    console.print(Text(f"Job {job_id}", style="bold"))
    for name, value in ({"request": life["request"], "job": life["job"]}).items():
        fields = "  ".join(f"{field} {_shown(one)}" for field, one in (value or {}).items() if one is not None)
        console.print(Text.assemble((f"{name:8}", "bold"), fields or "(no row)"))
    life["calls"] = [_with_unknown_cost(call) for call in life["calls"]]
    for name, title in _SECTIONS.items():
        if life[name]:
            _print_table(console, title, life[name])


async def _read(connection: Session, job_id: UUID) -> dict[str, Any]:
    # One moment for all: a job that moves meanwhile must not be shown half before and half after.
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        life: dict[str, Any] = {
            name: dict(row) if (row := await getattr(_queries, name)(connection, job_id=job_id)) else None
            for name in ("request", "job")
        }
        for name in _SECTIONS:
            life[name] = [dict(row) async for row in getattr(_queries, name)(connection, job_id=job_id)]
    return life


def _print_table(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    shown = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    for name in shown:
        table.add_column(name.replace("_", " "), no_wrap=name in {"id", "time"} or name.endswith("_at"))
    for row in rows:
        table.add_row(*(Text(_shown(row[name])) for name in shown))
    console.print()
    console.print(table)


def _with_unknown_cost(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call with its unknown counts named: an empty cell might be read as zero."""
    unknown = [name for name in ("prompt_tokens", "completion_tokens") if call[name] is None and call["maybe_billed"]]
    return call | dict.fromkeys(unknown, "unknown")


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"[:-3]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return mended(str(value))
