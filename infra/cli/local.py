"""`teamfit up` and `teamfit demo` run the whole pipeline on this machine."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer
from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from infra.cli.errors import plain_errors
from infra.cli.options import AsJson
from infra.cli.output import out

if TYPE_CHECKING:
    from infra.local.demo_report import Job, Report
    from infra.local.stack import Stack
    from infra.settings import Settings

app = typer.Typer()

_LOOK_S: Final = 0.5
# A real model may think for a while; the offline one takes a second.
_DEADLINE_S: Final = 120.0
_LLM_LATENCY_S: Final = 1.0
_COLUMNS: Final = ("requested", "started", "completed", "failed", "rejected")
_STYLES: Final = {"completed": "green", "failed": "red", "rejected": "yellow", "charged": "green"}


@app.command()
@plain_errors()
def up(
    port: Annotated[int, typer.Option(help="The API's port.", min=1, max=65535)] = 8000,
    llm_latency: Annotated[float, typer.Option(help="Seconds that the offline LLM takes to answer.", min=0)] = 1.0,
    *,
    one_worker: Annotated[bool, typer.Option("--one-worker", help="Run all stages in one process.")] = False,
    traces: Annotated[bool, typer.Option("--traces", help="Trace each job, and show the traces in a browser.")] = False,
) -> None:
    """Run the whole pipeline on this machine until Ctrl-C. It prints addresses, tokens, and commands to try.

    A part that ends by itself is started again, which is said. One that ends soon after each start ends the whole.

    BROKER_URL and DATABASE_URL each replace their embedded part when they are set; OPENAI_API_KEY, OPENAI_BASE_URL or
    TEAMFIT_LLM_ENDPOINTS replaces the offline LLM.
    Everything that was started is stopped in the end, and its data removed.
    """
    import threading

    from infra.local.instructions import instructions
    from infra.local.stack import ALL, API, TRACES, WEB, WORKERS, Stack
    from infra.local.supervision import Supervisor
    from infra.settings import settings

    _end_on_signals()
    console = Console(soft_wrap=True, highlight=False)
    if traces:
        _require_traces(settings())
    with_console = settings().model_copy(update={"console": True})
    parts = (*((TRACES,) if traces else ()), *((ALL,) if one_worker else WORKERS), API, WEB)
    stack = Stack(with_console, api_port=port, llm_latency_s=llm_latency, parts=parts, report=_stepwise(console))
    try:
        with stack:
            console.print(instructions(stack, _console_of(stack)), markup=False)
            supervisor = Supervisor(stack, lambda what: console.print(what, markup=False))
            look = threading.Event()
            while not look.wait(_LOOK_S):
                supervisor.look()
    except KeyboardInterrupt:
        console.print("Stopped; nothing is left behind.")


@app.command()
@plain_errors()
def demo(*, as_json: AsJson = False) -> None:
    """Start the pipeline, send jobs by all three ways in, and stop. It shows them travel and prints their activities.

    Ends with code 0 if every job ended as it should, and with a reason if not.
    """
    import asyncio

    from infra.local.demo import require_redis, run_demo
    from infra.local.stack import Stack
    from infra.settings import settings

    _end_on_signals()
    require_redis(settings())
    console = out(stderr=as_json, pipe_width=120)
    stack = Stack(settings(), llm_latency_s=_LLM_LATENCY_S, durable=False, report=_stepwise(console))
    with stack:
        with _live_table(console) if console.is_terminal else _lines(console) as show:
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


def _console_of(stack: "Stack") -> str:
    """Return the console's address, with a link that signs whoever reads it in once."""
    import asyncio

    from infra.cli.session import operator
    from infra.console.sessions import make_link
    from infra.postgres import Database

    async def link() -> str:
        database = Database(stack.settings.database_url, size=1)
        try:
            return await make_link(database, operator())
        finally:
            await database.close()

    return f"{stack.api_url}/console/sign-in/{asyncio.run(link())}"


def _require_traces(settings: "Settings") -> None:
    """Pass if a collector of our own can be told of all. Raises InvalidSetting."""
    from importlib.util import find_spec

    from infra.errors import InvalidSetting

    if find_spec("opentelemetry.sdk") is None:
        raise InvalidSetting("--traces", "needs what is not installed: pip install 'teamfit-pipeline[otel]'")
    if settings.otlp_endpoint is not None:
        raise InvalidSetting(
            "--traces", "is of no use while OTEL_EXPORTER_OTLP_ENDPOINT names a collector; leave it out"
        )


def _end_on_signals() -> None:
    """Let SIGTERM and a closed terminal end this process as Ctrl-C does: everything is cleaned up on the way out."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(_number: int, _frame: object) -> None:
        # A second one must not cut the clean-up short, which has deadlines of its own.
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in signals:
        signal.signal(number, interrupt)


def _stepwise(console: Console) -> Callable[[str], None]:
    return lambda step: console.print(f"{step} …", style="dim", markup=False)


@contextmanager
def _live_table(console: Console) -> "Iterator[Callable[[Sequence[Job]], None]]":
    """Show one row a job, one column a step, filled in as events arrive."""
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        yield lambda jobs: live.update(_table(jobs), refresh=True)


@contextmanager
def _lines(console: Console) -> "Iterator[Callable[[Sequence[Job]], None]]":
    """Show a line for each event of each job, for logs and pipes."""
    printed: Counter[UUID] = Counter()

    def show(jobs: "Sequence[Job]") -> None:
        fresh = [(moment.time, job, moment) for job in jobs for moment in job.timeline[printed[job.job_id] :]]
        for _, job, moment in sorted(fresh, key=lambda one: one[0]):
            who = f"{job.job_id}  {job.organization_id:7} by {job.way_in:6}"
            console.print(f"{moment.seconds:6.2f} s  {who}  {moment.type}", markup=False)
        for job in jobs:
            printed[job.job_id] = len(job.timeline)

    yield show


def _table(jobs: "Sequence[Job]") -> Table:
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


def _print_activities(console: Console, report: "Report") -> None:
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
