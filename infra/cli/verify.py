"""`teamfit verify`: a table for people, one JSON document for scripts, and the exit code for both."""

import asyncio
from datetime import timedelta

import asyncpg
import typer
from rich.table import Table

from infra.cli.output import out, print_json
from infra.cli.session import session
from infra.settings import settings
from infra.verify import Report, verify


def run(
    *, as_json: bool, settled: bool, llm_calls: int | None, patience: timedelta, timeout: timedelta, examples: int
) -> None:
    """Check the database at DATABASE_URL and print what was found.

    Raises:
        typer.Exit: with code 1, if an invariant is violated.
        DependencyDown: Postgres is away.
        CheckTimedOut: a statement took longer than `timeout`.
    """

    async def check(connection: "asyncpg.Connection[asyncpg.Record]") -> Report:
        return await verify(
            connection,
            settled=settled,
            llm_calls=llm_calls,
            patience=patience,
            statement_timeout=timeout,
            examples=examples,
        )

    report = asyncio.run(session(settings().database_url, check))
    if as_json:
        print_json(report.document())
    else:
        _print(report)
    if not report.ok:
        raise typer.Exit(1)


def _print(report: Report) -> None:
    console = out(pipe_width=120)
    table = Table(title=f"{'At rest, ' if report.settled else ''}at {report.at:%Y-%m-%d %H:%M:%S} UTC")
    table.add_column("invariant")
    table.add_column("what always holds")
    table.add_column("checked", justify="right")
    table.add_column("violations", justify="right")
    for finding in report.findings:
        style = "red" if finding.violations else ""
        statement = f"{finding.statement}\n[dim]{finding.detail}[/]" if finding.detail else finding.statement
        table.add_row(finding.name, statement, str(finding.checked), str(finding.violations), style=style)
    console.print(table)
    for finding in report.violated:
        console.print(
            f"{finding.name}: {finding.violations} of {finding.checked} violate it", style="bold red", markup=False
        )
        for example in finding.examples:
            console.print(f"  {example}", markup=False, soft_wrap=True)
        if finding.violations > len(finding.examples):
            console.print(f"  … and {finding.violations - len(finding.examples)} more", markup=False)
        console.print(f"  What to do: {finding.next_step}", markup=False)
    if report.ok:
        console.print(f"All {len(report.findings)} invariants hold.", style="bold green")
