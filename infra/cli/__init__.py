"""The command `teamfit`. Each command imports what it needs when it runs: a worker must not carry the API in memory."""

# ruff: noqa: PLC0415 - for the reason above

import signal
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import failed, job, llm, organization, quota, replay
from infra.cli.errors import plain_errors

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(failed.app, name="failed")
app.add_typer(replay.app, name="replay")
app.add_typer(job.app, name="job")
app.add_typer(quota.app, name="quota")
app.add_typer(llm.app, name="llm")
app.add_typer(organization.app, name="organization")
app.add_typer(organization.teams, name="team")


def _print_version(asked: bool) -> None:  # noqa: FBT001 - Typer calls it so
    if asked:
        from importlib.metadata import version

        typer.echo(f"teamfit {version('teamfit-pipeline')}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """TEAMFIT's job pipeline: Faust agents on Redis Streams, a Postgres read model, activities from an LLM."""


class Scope(StrEnum):
    """The rights that a token may give, as the API knows them."""

    JOBS = "jobs"
    OPERATOR = "operator"


class Stage(StrEnum):
    """The stages that run as processes of their own."""

    QUOTA = "quota"
    GENERATION = "generation"
    PROJECTION = "projection"
    FAILURES = "failures"
    SCHEDULE = "schedule"


@app.command()
@plain_errors()
def worker(
    stage: Annotated[Stage, typer.Argument(help="Which stage to run.", show_choices=True)],
    ready_file: Annotated[
        Path | None, typer.Option(help="A file to make once the stage consumes, and to remove when it stops.")
    ] = None,
) -> None:
    """Run one stage until SIGTERM or Ctrl-C, which let it finish what it has begun.

    The same as `faust -A consumers.STAGE worker`, with this project's log format.
    """
    from infra.cli.worker import run_stage

    run_stage(stage.value, ready_file=ready_file)


@app.command()
@plain_errors()
def api(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 8000,
    root_path: Annotated[
        str | None, typer.Option(help="Prefix below which a proxy serves it; else TEAMFIT_ROOT_PATH.")
    ] = None,
) -> None:
    """Serve the HTTP API until SIGTERM or Ctrl-C, which let it finish the requests that it has begun."""
    from infra.cli.api import serve

    serve(host, port, root_path=root_path)


@app.command()
@plain_errors()
def migrate() -> None:
    """Bring the database at DATABASE_URL to the newest schema. Running it again changes nothing."""
    import asyncio

    from infra.migrations import upgrade
    from infra.settings import settings

    asyncio.run(upgrade(settings().database_url))
    typer.echo("The database has the newest schema.")


@app.command()
@plain_errors()
def token(
    organization: Annotated[str, typer.Option(help="The organization that the token speaks for.")],
    scope: Annotated[
        list[Scope] | None, typer.Option(help="A right that it gives; 'jobs' by default. May be repeated.")
    ] = None,
    ttl: Annotated[int, typer.Option(help="How long the token is valid, in seconds.", min=1)] = 3600,
) -> None:
    """Print a bearer token, signed with TEAMFIT_SIGNING_KEY."""
    from infra.cli.api import signed_token

    typer.echo(signed_token(organization, scopes=scope or [Scope.JOBS], ttl=timedelta(seconds=ttl)))


@app.command()
@plain_errors()
def up(
    port: Annotated[int, typer.Option(help="The API's port.", min=1, max=65535)] = 8000,
    llm_latency: Annotated[float, typer.Option(help="Seconds that the offline LLM takes to answer.", min=0)] = 1.0,
) -> None:
    """Run the whole pipeline on this machine until Ctrl-C; print addresses, tokens, and commands to try.

    OPENAI_API_KEY or OPENAI_BASE_URL, BROKER_URL and DATABASE_URL each replace their embedded part when they are set.
    Everything that was started is stopped in the end, and its data removed.
    """
    from infra.cli.up import run

    _end_on_signals()
    run(port=port, llm_latency_s=llm_latency)


@app.command()
@plain_errors()
def demo(
    *,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document on standard output instead of tables.")
    ] = False,
) -> None:
    """Start the pipeline, send jobs by all three ways in, watch them travel, print their activities, and stop.

    Ends with code 0 if every job ended as it should, and with a reason if not.
    """
    from infra.cli.demo import run

    _end_on_signals()
    run(as_json=as_json)


@app.command()
@plain_errors()
def verify(
    *,
    settled: Annotated[
        bool, typer.Option(help="Nothing should be under way: nothing may be reserved, live or overdue.")
    ] = False,
    llm_calls: Annotated[
        int | None,
        typer.Option(help="How many calls the LLM's provider counted; as many must be on record.", min=0),
    ] = None,
    patience: Annotated[
        float, typer.Option(help="Seconds by which an effect may lag behind its cause; none with --settled.", min=0)
    ] = 900,
    timeout: Annotated[float, typer.Option(help="The most seconds that a statement may take.", min=0.001)] = 120,
    examples: Annotated[int, typer.Option(help="The most IDs to name for each invariant.", min=0)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Check that nothing was lost, charged twice or saved twice. Read-only, and safe in production.

    Ends with code 1 if an invariant is violated, and names the jobs.
    """
    from infra.cli.verify import run

    run(
        as_json=as_json,
        settled=settled,
        llm_calls=llm_calls,
        patience=timedelta(seconds=patience),
        timeout=timedelta(seconds=timeout),
        examples=examples,
    )


@app.command()
@plain_errors()
def lag(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Print what waits in the broker: by topic and consumer group, what was never delivered and what is under way."""
    from infra.cli.lag import run

    run(as_json=as_json)


@app.command()
@plain_errors()
def erase(
    organization: Annotated[str, typer.Option(help="The organization whose texts are erased.")],
    *,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Erase an organization's texts: wishes, activities, reasons, messages, dead letters. Its live jobs are cancelled.

    Rows, times and numbers stay, so bills and `teamfit verify` hold. Says how much there is and asks, unless --yes is
    given.
    """
    from infra.cli.erase import run

    run(organization, yes=yes, as_json=as_json)


projection = typer.Typer(help="The read model that customers poll.", no_args_is_help=True)
app.add_typer(projection, name="projection")


@projection.command()
@plain_errors()
def rebuild(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what differs; change nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")] = False,
) -> None:
    """Fold the archive again and repair the rows of the read model that differ, while the service runs.

    Ends with code 1 if the read model is not what the archive says in the end, or shows what the archive misses.
    """
    from infra.cli.projection import run

    run(dry_run=dry_run, as_json=as_json)


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
