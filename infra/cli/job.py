"""`teamfit job`: the life of one job, and the end of some."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson, Yes
from infra.cli.output import confirm, out, print_json, shown

if TYPE_CHECKING:
    from infra.operations.job_content import JobContent
    from infra.operations.jobs import CancelResult, JobLife
    from infra.postgres import Database
    from streams.jobs.cancellations import KnownJob

app = typer.Typer()
job_app = typer.Typer(help="See all that is known of a job; cancel jobs of any organization.", no_args_is_help=True)
app.add_typer(job_app, name="job")

# In the order in which a job meets them.
_SECTIONS: Final = {
    "facts": "Facts (job_events)",
    "outcomes": "Ends of its runs (job_outcomes)",
    "quota": "Quota (quota_ledger)",
    "spent": "Where its time has gone",
    "calls": "Calls to the LLM (generation_attempts)",
    "activities": "Activities (customized_activities)",
    "scheduled": "To be published later (scheduled_events)",
    "failed": "Failed events (failed_events)",
    "reemissions": "Sent again because it stood still (reemissions)",
}


@job_app.command("show")
@plain_errors()
def show_job(job: Annotated[UUID, typer.Argument(help="The job's ID.")], *, as_json: AsJson = False) -> None:
    """Print everything about one job.

    That is its requirements, status, facts, quota, calls to the LLM, what is scheduled for it, and what failed.
    """
    from infra.cli.session import with_database

    life, content = with_database(lambda database: _read(database, job))
    if as_json:
        print_json({**asdict(life), "content": _plain(content)})
    else:
        _print_life(life, content)


async def _read(database: "Database", job: UUID) -> "tuple[JobLife, JobContent]":
    from infra.operations.job_content import content_of
    from infra.operations.jobs import life_of

    return await life_of(database, job), await content_of(database, job)


def _plain(content: "JobContent") -> dict[str, Any]:
    activities = [one.model_dump(mode="json") for one in content.activities]
    return {"requirements": content.requirements, "activities": activities}


@job_app.command("events")
@plain_errors()
def show_events(
    job: Annotated[UUID, typer.Argument(help="The job's ID.")],
    *,
    after: Annotated[int, typer.Option(help="Go on after this place, which a page has printed.", min=0)] = 0,
    limit: Annotated[int, typer.Option(help="Most to print.", min=1, max=500)] = 100,
) -> None:
    """Print a job's archived events as one JSON document, in the order of arrival."""
    from infra.cli.session import with_database
    from infra.operations.job_content import archived_events

    print_json(with_database(lambda database: archived_events(database, job, after=after, limit=limit)))


@job_app.command("cancel")
@plain_errors()
def cancel_jobs(
    jobs: Annotated[list[UUID], typer.Argument(help="The jobs' IDs.")],
    *,
    because: Annotated[
        str, typer.Option("--because", "--reason", help="Why; the customer reads it in the job's status.")
    ],
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Cancel jobs, whosever they are, as their customers could. Those that have ended stay as they are.

    Says what they are and asks, unless --yes is given. Ends with code 1 if one of them is not cancelled in the end.
    """
    from infra.cli.session import with_database
    from infra.operations.jobs import known_jobs, may_be_cancelled

    wanted = list(dict.fromkeys(jobs))
    if not yes:
        found = with_database(lambda database: known_jobs(database, wanted))
        for job, known in found:
            typer.echo(f"{job}  {_standing(known)}", err=as_json)
        living = sum(may_be_cancelled(known) for _, known in found)
        if living:  # else nothing is there to ask about; each is told why it is not cancelled
            confirm(f"Cancel {living} job(s)?", err=as_json)
    results = with_database(lambda database: _cancel(database, wanted, because, quiet=as_json))
    if as_json:
        print_json(results)
    if not all(one.cancelled for one in results):
        raise typer.Exit(1)


def _standing(known: "KnownJob") -> str:
    if not known.is_known:
        return "not known"
    return f"{known.organization_id or '(of no organization)'}, run {known.run}, {known.ended or 'not ended'}"


async def _cancel(database: "Database", jobs: Sequence[UUID], because: str, *, quiet: bool) -> "Sequence[CancelResult]":
    from infra.cli.session import opened_broker
    from infra.operations.jobs import cancel
    from producers.cancellation import Cancellation

    results = []
    async with opened_broker("cancel") as broker:
        cancellation = Cancellation(database, broker, database.clock)
        for job in jobs:
            result = await cancel(cancellation, job, because=because)
            results.append(result)
            # Said at once: if the next one meets an outage, it is known which are done.
            if not quiet:
                typer.echo(f"{job}  cancelled, run {result.run}" if result.cancelled else f"{job}  {result.why}")
    return results


def _print_life(life: "JobLife", content: "JobContent") -> None:
    console = out()
    console.print(Text(f"Job {life.job_id}", style="bold"))
    if content.requirements:
        console.print(Text.assemble(("requirements ", "bold"), shown(content.requirements)))
    document = asdict(life)
    for name in ("request", "job", "waiting_for"):
        values = document[name] or {}
        line = "  ".join(f"{field} {_precise(one)}" for field, one in values.items() if one is not None)
        if line or name != "waiting_for":
            console.print(
                Text.assemble(
                    (f"{name.replace('_', ' '):8}", "bold"), " " * (name == "waiting_for"), line or "(no row)"
                )
            )
    document["calls"] = [_with_unknown_cost(call) for call in document["calls"]]
    for name, title in _SECTIONS.items():
        if document[name]:
            _print_section(console, title, document[name])


def _print_section(console: Console, title: str, rows: Sequence[dict[str, Any]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    filled = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    for name in filled:
        table.add_column(name.replace("_", " "), no_wrap=name in {"id", "time"} or name.endswith("_at"))
    for row in rows:
        table.add_row(*(Text(_precise(row[name])) for name in filled))
    console.print()
    console.print(table)


def _with_unknown_cost(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call with its unknown counts named: an empty cell might be read as zero."""
    unknown = [name for name in ("prompt_tokens", "completion_tokens") if call[name] is None and call["maybe_billed"]]
    return call | dict.fromkeys(unknown, "unknown")


def _precise(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S.%f}"[:-3] if isinstance(value, datetime) else shown(value)
