"""`teamfit demo`: a live table in a terminal, plain lines elsewhere, or one JSON document."""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from infra.cli.output import out
from infra.errors import TeamfitError
from infra.local.demo import run_demo
from infra.local.demo_report import Job, Report
from infra.local.stack import Stack
from infra.settings import settings

# A real model may think for a while; the offline one takes a second.
_DEADLINE_S = 120.0
_LLM_LATENCY_S = 1.0
_COLUMNS = ("requested", "started", "completed", "failed", "rejected")
_STYLES = {"completed": "green", "failed": "red", "rejected": "yellow", "charged": "green"}


class NeedsRedis(TeamfitError):
    """The demo cannot be shown on this broker."""


def run(*, as_json: bool) -> None:
    """Run the demo and print what it shows.

    Raises:
        NeedsRedis: the settings name another broker.
        LocalServerError: a part could not be started, or ended by itself.
        typer.Exit: with code 1, if a job did not end as it should.
    """
    if settings().broker_url.startswith("kafka:"):
        raise NeedsRedis(
            "BROKER_URL is kafka://: two of the three ways in that the demo shows, the Python client and XADD, need "
            "Redis. Unset it for the demo, or run `teamfit up`, which takes requests over HTTP on Kafka too"
        )
    console = out(stderr=as_json, pipe_width=120)
    stack = Stack(
        settings(),
        llm_latency_s=_LLM_LATENCY_S,
        durable=False,
        report=lambda step: console.print(f"{step} …", style="dim", markup=False),
    )
    with stack:
        view: _Lines | _LiveTable = _LiveTable(console) if console.is_terminal else _Lines(console)
        with view as show:
            report = asyncio.run(run_demo(stack, show, deadline_s=_DEADLINE_S))
        if as_json:
            typer.echo(report.model_dump_json(indent=2))
        else:
            _print_activities(console, report)
    for complaint in report.complaints:
        Console(stderr=True, soft_wrap=True).print(complaint, style="red", markup=False)
    if report.complaints:
        raise typer.Exit(1)
    console.print(
        f"All {len(report.jobs)} jobs ended as they should, after {report.seconds:.1f} s.", style="bold green"
    )


class _LiveTable:
    """One row a job, one column a step, filled in as events arrive."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Callable[[Sequence[Job]], None]:
        self._live.__enter__()
        return lambda jobs: self._live.update(_table(jobs), refresh=True)

    def __exit__(self, *problem: object) -> None:
        self._live.stop()


class _Lines:
    """A line for each event of each job, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown: Counter[UUID] = Counter()

    def __enter__(self) -> Callable[[Sequence[Job]], None]:
        return self._show

    def __exit__(self, *problem: object) -> None:
        """Leave the lines as they are."""

    def _show(self, jobs: Sequence[Job]) -> None:
        fresh = [(moment.time, job, moment) for job in jobs for moment in job.timeline[self._shown[job.job_id] :]]
        for _, job, moment in sorted(fresh, key=lambda one: one[0]):
            who = f"{job.job_id}  {job.organization_id:7} by {job.way_in:6}"
            self._console.print(f"{moment.seconds:6.2f} s  {who}  {moment.type}", markup=False)
        for job in jobs:
            self._shown[job.job_id] = len(job.timeline)


def _table(jobs: Sequence[Job]) -> Table:
    table = Table(title="Jobs, with the seconds after which each event happened")
    for name in ("job", "organization", "way in", *_COLUMNS, "quota", "status"):
        table.add_column(name)
    for job in jobs:
        seconds = {moment.type.split(".")[2]: f"{moment.seconds:.2f}" for moment in job.timeline}
        table.add_row(
            str(job.job_id)[:8],
            job.organization_id,
            job.way_in,
            *(Text(seconds.get(column, ""), style=_STYLES.get(column, "")) for column in _COLUMNS),
            Text(job.quota or "", style=_STYLES.get(job.quota or "", "")),
            job.refusal_code or job.status,
        )
    return table


def _print_activities(console: Console, report: Report) -> None:
    for job in report.jobs:
        if not job.activities:
            continue
        console.print(
            Panel(
                Group(*(_activity(activity) for activity in job.activities)),
                title=f"{job.organization_id}, by {job.way_in}: {job.requirements}",
                title_align="left",
            )
        )
    for refusal in report.http_refusals:
        console.print(f"Over HTTP, {refusal.organization_id} is refused at once: {refusal.status} {refusal.code}")


def _activity(activity: Mapping[str, object]) -> Text:
    size = activity["group_size"]
    people = f"{size['min']} to {size['max']} people" if isinstance(size, dict) else ""
    return Text.assemble(
        (f"{activity['title']}", "bold"),
        f"  {activity['duration_minutes']} minutes, {people}\n",
        f"{activity['description']}\n",
        (f"Objective: {activity['objective']}\n", "dim"),
    )
